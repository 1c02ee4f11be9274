"""The application behind a real server: the fixture pounce_server comes with pounce."""

from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from main import app


def test_it_greets(pounce_server: Any) -> None:
    with urlopen(pounce_server(app).url) as answer:
        assert answer.read() == b"Hello, World!\n"


def test_it_says_what_it_does_not_have(pounce_server: Any) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(pounce_server(app).url + "/nothing")
    assert refused.value.code == 404
    refused.value.close()
