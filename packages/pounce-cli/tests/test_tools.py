"""Commands beside a running server: check, info, init, completion, run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from pounce.registry import BUILT_IN_COMMANDS, Registry
from pounce_cli.completion import completion
from pounce_cli.helps import GROUPS, HELPS
from pounce_cli.main import main
from pounce_cli.migrate import migrate

APP = "async def app(scope, receive, send): ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an application that no other test has imported."""
    name = f"app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    # What Python has read of a folder named by a dot is of the folder of another test.
    monkeypatch.setenv("POUNCE_APP_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    return tmp_path


def app_in(folder: Path) -> str:
    return f"{next(folder.glob('app_*.py')).stem}:app"


# help


def test_every_command_has_an_example_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command, text in HELPS.items():
        assert f"pounce {command}" in text.partition("For example:")[2]
    assert main(["stop", "--help"]) == 0
    assert "\npounce stop" in capsys.readouterr().out.partition("For example:")[2]


def test_help_lists_the_commands_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], discover=lambda: Registry([])) == 0
    out = capsys.readouterr().out
    titles = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭")]
    assert titles == ["Commands", "Serving", "A server that runs", "Looking", "Beginning"]
    assert GROUPS.keys() == HELPS.keys() == set(BUILT_IN_COMMANDS)


@pytest.mark.parametrize("command", ["serve", "check", "doctor"])
def test_short_help_is_one_page(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "-h"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: pounce {command} [APP]")
    assert len(out.splitlines()) < 40
    assert "--workers NUMBER" in out
    assert f"pounce {command} --help" in out


# check


def test_check_does_what_a_start_does_and_opens_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", app_in(folder), "--bind", "127.0.0.1:1", "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert "ok    application" in out
    assert "127.0.0.1:1, not opened" in out
    assert "ok    workers        2 (" in out


def test_check_opens_sockets_where_that_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", app_in(folder), "--sockets", "--port", "0"]) == 0
    assert "127.0.0.1:0 can be opened" in capsys.readouterr().out
    assert main(["check", app_in(folder), "--sockets", "--bind", "fd://0"]) == 5
    assert "cannot listen on descriptor 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["app_gone:app"], 4, "there is no module 'app_gone'"), ([], 2, "no application is given"),
     (["--ssl-certfile", "gone.pem", "--ssl-keyfile", "gone.pem", "APP"], 6, "gone.pem"),
     (["APP", "--port", "70000"], 2, "--port"), (["APP", "--loop", "nowhere:loop"], 2, "nowhere"),
     (["APP", "--rate-limit-enabled", "--workers", "2", "--worker-mode", "process"], 2, "rate_limit_store"),
     (["APP", "--middleware", "nowhere:make"], 4, "nowhere"), (["APP", "--when-ready", "nowhere:hook"], 4, "nowhere"),
     (["APP", "--user", "nobody-of-this-name"], 2, "nobody-of-this-name")],
)  # fmt: skip
def test_check_ends_with_what_a_start_would_end_with(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["check", *(app_in(folder) if word == "APP" else word for word in words)]) == code
    assert said in capsys.readouterr().err


def test_check_warns_of_what_works_and_may_not_be_meant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", app_in(folder), "--reload-delay", "3", "--ssl-self-signed"]) == 0
    out = capsys.readouterr().out
    assert "note  configuration  these settings do nothing: reload_delay" in out
    assert "ok    TLS            a certificate for development" in out


def test_check_tells_programs_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", app_in(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["error"]) == (True, None)
    assert "application" in [each["what"] for each in found["found"]]
    with pytest.raises(SystemExit) as ended:
        main(["check", "app_gone:app", "--json"])
    assert ended.value.code == 4
    found = json.loads(capsys.readouterr().out)
    assert found["error"]["code"] == "POUNCE_APP_MODULE_NOT_FOUND"


@pytest.mark.parametrize(
    "line", ["uvicorn APP --workers 2 --proxy-headers --ws-max-queue 9 --limit-max-requests 9",
             "gunicorn -k uvicorn.workers.UvicornWorker -w 2 --preload --access-logfile - APP"],
)  # fmt: skip
def test_migrated_line_starts(folder: Path, line: str) -> None:
    migration = migrate([line.replace("APP", app_in(folder))])
    assert main(["check", *migration.command[2:]]) == 0
    (folder / "pounce.toml").write_text(migration.toml(same_defaults=True))
    assert main(["check"]) == 0


# info


def test_info_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "pounce-core" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"]["executable"] == sys.executable
    assert found["packages"]["pounce-cli"] is not None
    assert {"machine", "optional", "frameworks"} <= found.keys()


# init


def test_new_application_is_told_how_to_go_on_and_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init", "hello", "--docker"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["hello/main.py", "hello/test_main.py"]
    assert "Next: cd hello; pounce serve --reload" in out
    assert (tmp_path / "hello" / "Dockerfile").exists()
    monkeypatch.chdir(tmp_path / "hello")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delitem(sys.modules, "main", raising=False)
    assert main(["check", "--app-dir", str(tmp_path / "hello")]) == 0
    monkeypatch.delitem(sys.modules, "main", raising=False)


def test_quickstart_of_the_examples_is_what_is_written(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "quickstart"
    assert main(["init", "quickstart", "--docker"]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "quickstart").iterdir()}
    assert written == {name: (example / name).read_text() for name in written}


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pounce.toml").write_text("")
    assert main(["init", "."]) == 2
    assert "pounce.toml in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pounce.toml"]
    assert main(["init", "../x"]) == 2
    assert main(["init"]) == 2
    assert "neither a folder nor --plugin" in capsys.readouterr().err


# completion


def test_bash_completes_what_the_command_line_knows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    ask = f"source {script}; COMP_WORDS=(pounce mig); COMP_CWORD=1; _pounce; echo ${{COMPREPLY[@]}}"
    ran = subprocess.run([shutil.which("bash") or "bash", "-c", ask], capture_output=True, text=True, check=True)
    assert ran.stdout == "migrate\n"


def test_powershell_is_told_of_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "powershell"]) == 0
    script = capsys.readouterr().out
    for word in ("'migrate'", "'--worker-mode'", "'--h2-stream-window'", "'doctor' = @("):
        assert word in script


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_of_their_own(shell: str) -> None:
    app = App(name="pounce")
    app.command(lambda: None, name="migrate")
    assert "migrate" in completion(app, shell)


# run


def test_program_is_run_with_its_own_words(pounce: Any) -> None:
    (pounce.folder / "program.py").write_text(
        "import sys, uvicorn\n"
        "from main import app\n"
        "if __name__ == '__main__':\n"
        "    print(*sys.argv, file=sys.stderr, flush=True)\n"
        "    uvicorn.run(app, port=1, lifespan='off')\n"
    )
    server = pounce.start("run", "program.py", "--port", "x", POUNCE_PORT="0", POUNCE_LOG_FORMAT="json")
    server.line(r"^program\.py --port x$")
    assert server.started()["workers"] == 1
    assert server.stop() == 0


def test_module_is_run_with_its_own_words(pounce: Any) -> None:
    """Its command line calls uvicorn.run() by the name that it has in that module."""
    words = ("-m", "uvicorn", "main:app", "--port", "1", "--lifespan", "off", "--log-level", "warning")
    server = pounce.start("run", *words, POUNCE_PORT="0", POUNCE_LOG_FORMAT="json", POUNCE_LOG_LEVEL="info")
    assert server.started()["app"] == "main:app"
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "no program is given"), (["-m"], "no program is given"), (["main:app"], "pounce serve main:app"),
     (["gone.py"], "there is no program gone.py")],
)
def test_what_is_no_program_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "said"),
    [("nopkg", "No module named nopkg"), ("nopkg.part", "No module named 'nopkg'"),
     ("empty", "'empty' is a package and cannot be directly executed"), ("main.py", "Try using 'main' instead")],
)  # fmt: skip
def test_module_that_is_not_there_to_be_run_is_told_without_a_traceback(pounce: Any, module: str, said: str) -> None:
    (pounce.folder / "empty").mkdir()
    (pounce.folder / "empty/__init__.py").touch()
    code, err = pounce.fails("run", "-m", module, POUNCE_LOG_FORMAT="text")
    assert code == 2
    assert f"Error: -m {module} cannot be run: " in err
    assert said in err
    assert "Traceback" not in err


def test_module_that_raises_itself_keeps_its_traceback(pounce: Any) -> None:
    (pounce.folder / "raises.py").write_text("def fail():\n    import gone_away\n\n\nfail()\n")
    code, err = pounce.fails("run", "-m", "raises")
    assert code == 1
    assert 'raises.py", line 2, in fail' in err
    assert "ModuleNotFoundError: No module named 'gone_away'" in err
