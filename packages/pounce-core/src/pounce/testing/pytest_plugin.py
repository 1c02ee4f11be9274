"""The pytest fixture `pounce_server`; loaded by pytest through its entry point."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pounce.testing.server import TestServer

__all__ = ["pounce_server"]


@pytest.fixture
def pounce_server() -> Iterator[Callable[..., TestServer]]:
    """A function that starts a `TestServer` for an application and its settings; all are stopped after the test."""
    from pounce.testing.server import TestServer

    with ExitStack() as stack:

        def start(app: Any, **settings: Any) -> TestServer:
            return stack.enter_context(TestServer(app, **settings))

        yield start
