"""FileWatcher: when a change of a file counts, whoever reports it. Which files count is in test_reload_rules.py."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pounce import ConfigError, ServerConfig
from pounce.supervisor import reload_loops, watch_files
from pounce.supervisor.reload_rules import rules_of
from pounce.supervisor.watch_files import FileWatcher
from pounce.supervisor.watched_tree import WatchedTree

PATIENCE = 60.0


def write(folder: Path, name: str, text: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"{time.time_ns()}")
    return path


def watched(folder: Path, **settings: object) -> set[str]:
    """The files that are watched below a folder, as paths from there on."""
    found = FileWatcher(ServerConfig.of({"app_dir": str(folder)} | settings), lambda: None)
    return {os.path.relpath(path, folder) for path in found._before}


# What is watched


def test_python_is_watched_and_nothing_else(tmp_path: Path) -> None:
    for name in ("main.py", "package/module.py", "settings.toml", ".hidden.py", "__pycache__/main.py", "build/main.py"):
        write(tmp_path, name)
    assert watched(tmp_path) == {"main.py", "package/module.py"}


def test_folder_that_lies_below_one_called_build_is_watched(tmp_path: Path) -> None:
    write(tmp_path, "build/env/project/main.py")
    assert watched(tmp_path / "build" / "env" / "project") == {"main.py"}


def test_named_folders_are_watched_instead_of_the_usual_one(tmp_path: Path) -> None:
    for name in ("app/main.py", "library/module.py", "build/made.py"):
        write(tmp_path, name)
    folders = tuple(str(tmp_path / name) for name in ("library", "build"))
    assert watched(tmp_path, reload_dirs=folders) == {"library/module.py", "build/made.py"}


def test_named_folder_below_another_one_is_watched_though_it_is_excluded_there(tmp_path: Path) -> None:
    for name in ("main.py", "build/made.py"):
        write(tmp_path, name)
    folders = (str(tmp_path), str(tmp_path / "build"))
    assert watched(tmp_path, reload_dirs=folders) == {"main.py", "build/made.py"}


def test_virtual_environment_is_known_by_its_file(tmp_path: Path) -> None:
    for name in ("main.py", "own/pyvenv.cfg", "own/lib/module.py", "venv/module.py"):
        write(tmp_path, name)
    assert watched(tmp_path) == {"main.py", "venv/module.py"}
    assert watched(tmp_path, reload_include=("own/lib/module.py",)) == {
        "main.py", "venv/module.py", "own/lib/module.py",
    }  # fmt: skip
    assert watched(tmp_path, reload_exclude=("!own/",)) == {"main.py", "venv/module.py", "own/lib/module.py"}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "app", tmp_path / "elsewhere"
    write(folder, "package/module.py")
    write(elsewhere, "shared.py")
    (folder / "again").symlink_to(folder / "package")
    (folder / "loop").symlink_to(folder)
    (folder / "one").symlink_to(elsewhere)
    (folder / "two").symlink_to(elsewhere)
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    found = watched(folder)
    assert "package/module.py" in found
    assert len(found) == 2


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        watched(tmp_path, reload_dirs=(str(tmp_path / "missing"),))


def test_watcher_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    FileWatcher(ServerConfig(app_dir=str(tmp_path)), lambda: None).stop()


# What is noticed, by either watcher


class Watching:
    """A watcher of a folder, and what it has noticed."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.noticed: list[str] = []
        self._news = threading.Condition()
        settings = {"app_dir": str(folder), "reload_delay": 0.02} | settings
        self.watcher = FileWatcher(ServerConfig.of(settings), lambda: None)
        self._handler = logging.Handler()
        self._handler.emit = self.emit  # type: ignore[method-assign]
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        with self._news:
            if text.startswith("Changed: "):
                self.noticed += text.removeprefix("Changed: ").split(", ")
            else:
                self.warnings.append(text)
            self._news.notify_all()

    def wait(self, until: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(until, PATIENCE), (self.noticed, self.warnings)

    def change(self, name: str) -> None:
        """Change a file that counts, and wait until it is noticed."""
        seen = len(self.noticed)
        write(self.folder, name)
        self.wait(lambda: name in self.noticed[seen:])

    def start(self) -> None:
        log = logging.getLogger("pounce.reload")
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)
        self.watcher.start()
        # From here on it watches, whatever that takes.
        self.change("started.py")

    def stop(self) -> None:
        self.watcher.stop()
        logging.getLogger("pounce.reload").removeHandler(self._handler)
        logging.getLogger("pounce.reload").setLevel(logging.NOTSET)


@pytest.fixture(params=["polling", "watchfiles"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watching]]:
    if request.param == "watchfiles":
        pytest.importorskip("watchfiles")
    monkeypatch.setattr(watch_files, "INTERVAL", 0.02)
    monkeypatch.setattr(watch_files, "LINKS", 50)
    monkeypatch.setattr(watch_files, "_watchfiles_is_installed", lambda: request.param == "watchfiles")
    started: list[Watching] = []

    def start(folder: Path, **settings: object) -> Watching:
        started.append(Watching(folder, **settings))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def remove(path: Path) -> None:
    path.unlink()


def set_back(path: Path) -> None:
    os.utime(path, (1, 1))


def replace(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_text(path.read_text())
    os.utime(beside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    beside.replace(path)


def rename(path: Path) -> None:
    path.rename(path.with_name("other.py"))


def move_folder_in(path: Path) -> None:
    apart = path.parent.parent / "apart"
    write(apart, "package/other.py")
    apart.rename(path.parent / "moved")


def make_link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    write(elsewhere, "other.py")
    (path.parent / "link").symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("do", "name"),
    [
        (lambda path: path.write_text("longer than it was"), "main.py"),
        (remove, "main.py"),
        (set_back, "main.py"),
        (replace, "main.py"),
        (rename, "other.py"),
        (lambda path: write(path.parent, "new/package/other.py"), "new/package/other.py"),
        (move_folder_in, "moved/package/other.py"),
        (make_link, "link/other.py"),
    ],
    ids=["written", "removed", "set back", "replaced", "renamed", "new folder", "folder moved in", "new link"],
)
def test_change_is_noticed(
    do: Callable[[Path], object], name: str, watching: Callable[..., Watching], tmp_path: Path
) -> None:
    path = write(tmp_path / "app", "main.py", "1")
    found = watching(tmp_path / "app")
    do(path)
    found.wait(lambda: name in found.noticed)


@pytest.mark.parametrize(
    ("name", "settings", "counts"),
    [
        ("main.py", {}, True),
        ("settings.toml", {}, False),
        (".env", {"reload_include": (".env",)}, True),
        ("page.tmplx", {"reload_include": ("tmplx",)}, True),
        ("build/schema.json", {"reload_include": ("build/schema.json",)}, True),
        ("build/main.py", {"reload_include": ("build/schema.json",)}, False),
        ("data/x.py", {"reload_exclude": ("data/",)}, False),
        ("data/x.py", {"reload_exclude": ("./data",)}, False),
        ("data/x.py", {"reload_exclude": ("data/*",)}, False),
        ("own/lib/x.py", {}, False),
        ("link/x.py", {}, True),
        ("link/x.py", {"reload_exclude": ("link",)}, False),
    ],
)
def test_both_watchers_keep_to_the_rules(
    name: str, settings: dict[str, object], counts: bool, watching: Callable[..., Watching], tmp_path: Path
) -> None:
    folder = tmp_path / "app"
    write(folder, "own/pyvenv.cfg")
    write(tmp_path, "elsewhere/x.py")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    write(folder, name)
    found = watching(folder, **settings)
    write(folder, name)
    found.change("last.py")
    assert (name in found.noticed) == counts


def test_named_folder_is_watched_though_it_is_called_build(watching: Callable[..., Watching], tmp_path: Path) -> None:
    write(tmp_path, "build/main.py")
    watching(tmp_path / "build", app_dir=".", reload_dirs=(str(tmp_path / "build"),)).change("main.py")


def test_link_to_the_watched_folder_that_is_moved_is_noticed(watching: Callable[..., Watching], tmp_path: Path) -> None:
    write(tmp_path, "1/main.py", "1")
    write(tmp_path, "2/main.py", "1")
    link = tmp_path / "current"
    link.symlink_to("1")
    found = watching(link)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(link)
    found.wait(lambda: "main.py" in found.noticed)
    found.change("main.py")


def test_file_that_changes_before_the_start_is_noticed(watching: Callable[..., Watching], tmp_path: Path) -> None:
    write(tmp_path, "main.py", "1")
    found = Watching(tmp_path)
    write(tmp_path, "main.py", "22")
    found.start()
    found.wait(lambda: "main.py" in found.noticed)
    found.stop()


# An application that writes its own files


def test_file_that_causes_one_reload_after_another_is_named_and_left_alone(
    watching: Callable[..., Watching], tmp_path: Path
) -> None:
    found = watching(tmp_path, reload_include=("state.json",))
    for number in range(3):
        assert found.warnings == []
        write(tmp_path, "state.json", str(number) * 9)
        found.wait(lambda number=number: found.noticed.count("state.json") == number + 1)  # type: ignore[misc]
    found.wait(lambda: bool(found.warnings))
    assert found.warnings[0].startswith("state.json has caused 3 reloads within ")
    assert "--reload-exclude state.json" in found.warnings[0]
    write(tmp_path, "state.json", "once more")
    found.change("main.py")
    assert found.noticed.count("state.json") == 3
    found.watcher.react_to_all()
    found.change("state.json")


def test_file_that_was_left_alone_causes_a_reload_again(
    watching: Callable[..., Watching], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_loops, "AFTER_START", -60.0)
    found = watching(tmp_path)
    for _ in range(3):
        found.change("main.py")
    found.wait(lambda: bool(found.warnings))
    monkeypatch.setattr(reload_loops, "LOOP_SECONDS", -60.0)
    # As somebody does who has saved it some times in a row, and comes back to it.
    found.change("main.py")


def test_file_that_was_left_alone_causes_none_right_after_a_start(
    watching: Callable[..., Watching], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = watching(tmp_path)
    for _ in range(3):
        found.change("main.py")
    found.wait(lambda: bool(found.warnings))
    monkeypatch.setattr(reload_loops, "LOOP_SECONDS", -60.0)
    write(tmp_path, "main.py", "written by the application")
    found.change("other.py")
    assert found.noticed.count("main.py") == 3


def test_file_that_changes_as_often_in_a_longer_time_is_not(
    watching: Callable[..., Watching], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_loops, "LOOP_SECONDS", -1.0)
    found = watching(tmp_path)
    for _ in range(4):
        found.change("main.py")
    assert found.warnings == []


def test_time_that_a_start_takes_counts_for_a_loop(
    watching: Callable[..., Watching], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_loops, "LOOP_SECONDS", -1.0)
    found = watching(tmp_path)
    found.watcher.started(60.0)
    for _ in range(3):
        found.change("main.py")
    found.wait(lambda: bool(found.warnings))


def start_over(folder: Path, name: str, number: int) -> None:
    """Do what an application does at each start: make a file, and take the one before away if that is its way."""
    write(folder, name.format(number))
    for old in folder.glob("rotated/*.json"):
        if old.stem != str(number):
            old.unlink()


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    """A folder with an application, and what it has left from another time."""
    for name in ("main.py", "package/module.py", "runs/0.json", "rotated/0.json"):
        write(tmp_path, name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "place", "exclude"),
    [
        ("gen_{}.py", "{}", "'gen_*.py'"),
        ("package/gen{}.py", "package", "'package/gen*.py'"),
        ("{}.py", "{}", "'[0-9]*.py'"),
        ("runs/{}.json", "runs", "'runs/[0-9]*.json'"),
        ("runs/x{}[a].json", "runs", r"'runs/x*\[a].json'"),
        ("runs/{}/out.json", "runs", "'runs/[0-9]*'"),
        ("new/{}.json", "new", "'new/[0-9]*.json'"),
        ("rotated/{}.json", "rotated", "'rotated/[0-9]*.json'"),
    ],
)
def test_files_with_new_names_after_each_start_are_noticed_and_left_alone(
    name: str, place: str, exclude: str, watching: Callable[..., Watching], existing: Path
) -> None:
    found = watching(existing, reload_include=("*.json",))
    found.watcher.react_to_all()
    for number in range(100, 103):
        assert found.warnings == []
        start_over(existing, name, number)
        found.wait(lambda: name.format(number) in found.noticed)  # noqa: B023
        found.watcher.started(0.1)
    found.wait(lambda: bool(found.warnings))
    assert found.warnings[0].startswith(f"New files in {place.format(existing)} have caused 3 reloads right after")
    assert f"{name.format(102)} the last" in found.warnings[0]
    assert f"With --reload-exclude {exclude} they never are" in found.warnings[0]
    seen = len(found.noticed)
    start_over(existing, name, 103)
    found.change("main.py")
    found.watcher.started(0.1)
    start_over(existing, name, 104)
    found.change("package/module.py")
    assert len(found.warnings) == 1
    assert not [each for each in found.noticed[seen:] if each.endswith((".json", "103.py", "104.py"))]


@pytest.fixture
def looping(watching: Callable[..., Watching], existing: Path) -> Watching:
    """A watcher that has found out that the application makes files beside its own."""
    found = watching(existing)
    for number in range(3):
        found.change(f"gen_{number}.py")
    found.wait(lambda: bool(found.warnings))
    return found


def test_file_that_was_there_reloads_beside_those_that_the_application_makes(looping: Watching) -> None:
    looping.change("main.py")
    looping.change("package/module.py")
    assert len(looping.warnings) == 1


def test_file_that_is_removed_and_written_again_reloads_beside_them(looping: Watching) -> None:
    (looping.folder / "main.py").unlink()
    looping.change("package/module.py")
    looping.change("main.py")


def test_new_file_reloads_beside_them_once_the_start_is_over(
    looping: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(looping.folder, "late.py")
    looping.change("main.py")
    assert "late.py" not in looping.noticed
    monkeypatch.setattr(reload_loops, "AFTER_START", -60.0)
    looping.watcher.started(0.1)
    looping.change("late.py")
    looping.change("later.py")


def test_reload_by_hand_lets_new_names_count_again(looping: Watching) -> None:
    looping.watcher.react_to_all()
    looping.change("gen_9.py")


def test_files_that_appear_long_after_a_start_are_a_person_s(
    watching: Callable[..., Watching], existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_loops, "AFTER_START", -60.0)
    found = watching(existing)
    for number in range(5):
        found.change(f"gen_{number}.py")
    assert found.warnings == []


def test_file_of_a_name_that_may_be_any_is_named_without_a_pattern_for_the_whole_application(
    watching: Callable[..., Watching], existing: Path
) -> None:
    found = watching(existing)
    for name in ("a.py", "b.py", "c.py"):
        found.change(name)
    found.wait(lambda: bool(found.warnings))
    assert "--reload-exclude 'PATTERN'" in found.warnings[0]


# What it costs


def test_look_asks_the_system_for_nothing_but_folders_and_files_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        write(tmp_path, f"package{number}/module.py")
        write(tmp_path, f"package{number}/picture.png")
        write(tmp_path, f"node_modules/package{number}/module.py")
    for path, _, _ in os.walk(tmp_path):
        os.utime(path, (1, 1))
    tree = WatchedTree([str(tmp_path)], rules_of([str(tmp_path)], (), ()))
    before = tree.snapshot()
    calls: list[str] = []

    def stat(path: str) -> os.stat_result:
        calls.append(os.path.relpath(path, tmp_path))
        return os.lstat(path)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "scandir", None)
    assert tree.snapshot() == before
    packages = [f"package{number}" for number in range(5)]
    assert sorted(calls) == sorted([".", *packages, *(f"{package}/module.py" for package in packages)])


def test_pause_between_two_looks_is_as_long_as_the_share_of_a_cpu_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return True

    found = FileWatcher(ServerConfig(app_dir=str(tmp_path)), lambda: None)
    found._stop = Stop()
    found._cost = 0.2
    assert list(found._polled()) == []
    assert waits == [pytest.approx(0.2 / watch_files.SHARE)]
    assert watch_files.SHARE < 0.05
