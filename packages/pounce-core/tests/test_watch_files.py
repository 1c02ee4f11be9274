"""FileWatcher: which files count, and when a change does."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce import ConfigError, ServerConfig
from pounce.supervisor.watch_files import FileWatcher

PATIENCE = 10.0


def watcher(folder: Path, **settings: object) -> FileWatcher:
    return FileWatcher(ServerConfig.of({"app_dir": str(folder)} | settings), lambda: None)


@pytest.mark.parametrize(
    ("name", "watched"),
    [
        ("main.py", True),
        ("package/module.py", True),
        ("settings.toml", True),
        ("notes.txt", False),
        (".hidden.py", False),
        (".git/config.py", False),
        ("__pycache__/main.py", False),
        ("build/lib/main.py", False),
    ],
)
def test_usual_files_are_watched(tmp_path: Path, name: str, watched: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert watcher(tmp_path).is_watched(str(path)) == watched
    assert (str(path) in watcher(tmp_path).snapshot()) == watched


def test_folder_that_lies_below_one_called_build_is_watched(tmp_path: Path) -> None:
    folder = tmp_path / "build" / "env" / "project"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("")
    assert watcher(folder).is_watched(str(folder / "main.py"))
    assert len(watcher(folder).snapshot()) == 1


@pytest.mark.parametrize("pattern", ["*.sql", ".sql", "query.sql"])
def test_further_files_are_watched_on_request(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "query.sql").write_text("")
    assert len(watcher(tmp_path).snapshot()) == 0
    assert len(watcher(tmp_path, reload_include=(pattern,)).snapshot()) == 1


@pytest.mark.parametrize("pattern", ["generated", "gen*", "main.py"])
def test_files_and_folders_are_left_out_on_request(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "main.py").write_text("")
    assert len(watcher(tmp_path).snapshot()) == 1
    assert len(watcher(tmp_path, reload_exclude=(pattern,)).snapshot()) == 0


def test_further_folders_are_watched_on_request(tmp_path: Path) -> None:
    for name in ("app", "library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("")
    assert len(watcher(tmp_path / "app", reload_dirs=(str(tmp_path / "library"),)).snapshot()) == 2


class Watching:
    def __init__(self, folder: Path, **settings: object) -> None:
        self.calls = 0
        self.called = threading.Event()
        config = ServerConfig.of({"app_dir": str(folder), "reload_delay": 0.05} | settings)
        self.watcher = FileWatcher(config, self.changed)

    def changed(self) -> None:
        self.calls += 1
        self.called.set()


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    monkeypatch.setattr("pounce.supervisor.watch_files.INTERVAL", 0.02)
    monkeypatch.setattr("pounce.supervisor.watch_files._watchfiles_is_installed", lambda: False)
    (tmp_path / "main.py").write_text("1")
    found = Watching(tmp_path)
    found.watcher.start()
    yield found
    found.watcher.stop()


def test_changed_file_is_noticed(watching: Watching, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("22")
    assert watching.called.wait(PATIENCE)


def test_new_file_is_noticed(watching: Watching, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("")
    assert watching.called.wait(PATIENCE)


def test_file_that_goes_is_noticed(watching: Watching, tmp_path: Path) -> None:
    (tmp_path / "main.py").unlink()
    assert watching.called.wait(PATIENCE)


def test_file_with_an_older_time_is_noticed(watching: Watching, tmp_path: Path) -> None:
    os.utime(tmp_path / "main.py", (1, 1))
    assert watching.called.wait(PATIENCE)


@pytest.mark.parametrize("installed", [True, False])
def test_file_that_changes_before_the_start_is_noticed(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:
        pytest.importorskip("watchfiles")
    monkeypatch.setattr("pounce.supervisor.watch_files._watchfiles_is_installed", lambda: installed)
    (tmp_path / "main.py").write_text("1")
    found = Watching(tmp_path)
    (tmp_path / "main.py").write_text("22")
    found.watcher.start()
    assert found.called.wait(PATIENCE)
    found.watcher.stop()


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        watcher(tmp_path, reload_dirs=(str(tmp_path / "missing"),))


def test_watcher_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    watcher(tmp_path).stop()
