import os
from pathlib import Path

import pytest

from pounce.errors import ConfigError
from pounce.supervisor.start_folder import StartFolder


def test_folder_that_was_deleted_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current directory cannot be told") as raised:
        StartFolder()
    assert "change to another one" in raised.value.hint
    os.chdir(tmp_path)
