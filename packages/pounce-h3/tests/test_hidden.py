"""What HTTP/3 does not import, because it would switch the GIL on."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pounce_h3.hidden import hidden

SERVED = """
import sys
from pounce.testing import TestServer

async def app(scope, receive, send): ...

with TestServer(app, ssl_certfile=sys.argv[1], ssl_keyfile=sys.argv[2], http3_enabled=True,
                workers=int(sys.argv[3]), worker_mode="thread"):
    assert "qh3.tls" in sys.modules
    assert "brotli" not in sys.modules, "it was imported"
    import brotli
    assert brotli.__file__.startswith(sys.argv[4])
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_brotli_is_not_imported_by_the_server_and_there_for_others(
    tmp_path: Path, tls_files: tuple[str, str], workers: str
) -> None:
    (tmp_path / "brotli.py").write_text("")
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[4])\n{SERVED}", *tls_files, workers, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_module_is_hidden_from_one_thread_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hidden_from_one.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.meta_path
    found: list[object] = []

    def look() -> None:
        import hidden_from_one  # type: ignore[import-not-found]

        found.append(hidden_from_one)

    with hidden("hidden_from_one"):
        with pytest.raises(ModuleNotFoundError, match="not wanted"):
            look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    assert len(found) == 1
    assert sys.meta_path == before


def test_a_module_that_is_there_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with hidden("json"):
        import json
    assert json is sys.modules["json"]


def test_a_hidden_module_is_found_again_after_an_error() -> None:
    before = sys.meta_path
    with pytest.raises(ZeroDivisionError), hidden("anything"):
        raise ZeroDivisionError
    assert sys.meta_path == before
