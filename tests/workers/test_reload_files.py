"""Reload because a file or a link has changed, or of what a link leads to by then."""

import signal
from pathlib import Path

import pytest
from tests.workers.running import APP, Running, eventually, version

MODES = ("thread", "process", "subinterpreter")

# Files that change


def test_changed_file_is_served(tmp_path: Path) -> None:
    with Running(tmp_path, "--reload") as server:
        assert server.get()["parent"] == server.process.pid
        server.write(version(2))
        server.wait_for_message("Reloaded")
        eventually(lambda: server.get()["version"] == 2)


def test_file_that_is_included_by_its_name_is_noticed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("1")
    with Running(tmp_path, "--reload", "--reload-include", ".env") as server:
        (tmp_path / ".env").write_text("22")
        assert server.wait_for_message("Changed: ")["message"] == "Changed: .env"
        server.wait_for_message("Reloaded")


def test_application_that_writes_a_file_is_not_reloaded_for_ever(tmp_path: Path) -> None:
    app = APP + "\nopen('made.py', 'w').write(f'made = {time.time()}')\n"
    with Running(tmp_path, "--reload", "--reload-delay", "0.05", app=app) as server:
        server.wait_for_message("made.py has caused 3 reloads")
        at = len(server.log)
        server.wait_for_message("Reloaded", after=at)
        server.write(version(2, app))
        server.wait_for_message("Changed: main.py", after=at)
        eventually(lambda: server.get()["version"] == 2)
        changes = [entry["message"] for entry in server.log if entry.get("message", "").startswith("Changed: ")]
        assert changes == ["Changed: made.py"] * 3 + ["Changed: main.py"]


def test_pattern_that_can_never_match_is_an_error_of_the_start(tmp_path: Path) -> None:
    with Running(tmp_path, "--reload", "--reload-exclude", "../data", wait=False) as server:
        assert server.wait() == 2
        assert "reload_exclude '../data' can never match" in server.text()


# A folder that is entered by a link


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Path, Path]:
    """Two versions of an application, and the link by which the first one is entered."""
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/main.py").write_text(version(number))
    link = tmp_path / "current"
    link.symlink_to("1")
    return link, tmp_path / "2"


def move(link: Path, to: Path) -> None:
    beside = link.with_name("next")
    beside.symlink_to(to)
    beside.replace(link)


@pytest.mark.parametrize("mode", [*MODES, "reload"])
def test_reload_serves_what_the_link_of_the_folder_leads_to(mode: str, releases: tuple[Path, Path]) -> None:
    link, new = releases
    flags = ("--reload",) if mode == "reload" else ("--workers", "2", "--worker-mode", mode)
    with Running(link, *flags, app=version(1), environ={"PWD": str(link)}) as server:
        assert server.get()["version"] == 1
        move(link, new)
        server.reload()
        eventually(lambda: server.get()["version"] == 2)


def test_link_of_the_folder_that_is_moved_is_a_change(releases: tuple[Path, Path]) -> None:
    link, new = releases
    with Running(link, "--reload", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, new)
        eventually(lambda: server.get()["version"] == 2)


def test_upgrade_serves_what_the_link_of_the_folder_leads_to(releases: tuple[Path, Path]) -> None:
    link, new = releases
    with Running(link, "--workers", "2", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, new)
        server.upgrade()
        assert server.get()["version"] == 2


def test_reload_serves_what_the_link_of_app_dir_leads_to(releases: tuple[Path, Path], tmp_path: Path) -> None:
    link, new = releases
    with Running(tmp_path, "--workers", "2", "--app-dir", str(link)) as server:
        (tmp_path / "main.py").unlink()
        move(link, new)
        server.reload()
        eventually(lambda: server.get()["version"] == 2)


def test_reload_where_the_link_leads_nowhere_changes_nothing(releases: tuple[Path, Path], tmp_path: Path) -> None:
    link, _ = releases
    with Running(link, "--workers", "2", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, tmp_path / "nowhere")
        server.kill(signal.SIGHUP)
        assert str(link) in server.wait_for_message("Reload failed")["message"]
        assert server.get()["version"] == 1
