"""What a command that cannot do its work says, and the code it ends with."""

import json
import socket

import pytest

from pounce_cli import serve
from pounce_cli.main import main

BROKEN = """
def inner():
    raise KeyError("oops")

inner()
"""
FAILS_TO_START = """
async def app(scope, receive, send):
    await receive()
    raise ValueError("no database")
"""
NEEDS_MODULE = "import surely_not_installed\n"


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "said"),
    [
        (["main:app", "--port", "70000"], 2, "POUNCE_CONFIG_INVALID", "an integer from 0 to 65535 (got '70000')"),
        (["main:app", "--ssl-keyfile", "k"], 2, "POUNCE_CONFIG_INVALID", "ssl_keyfile is given without ssl_certfile"),
        (["main:app", "--prot", "80"], 2, "POUNCE_CLI_USAGE", "Did you mean --port?"),
        (["main:app", "--set", "nope.x=1"], 2, "POUNCE_CONFIG_INVALID", "No plugin nope with settings is installed"),
        (["main:app", "--uds", "unix:/run/x"], 2, "POUNCE_CONFIG_INVALID", "Write '/run/x'"),
        (["main:app", "--uds", "missing/x"], 5, "POUNCE_BIND_FAILED", "There is no folder missing: make it first"),
        (["main:app", "--uds", "x" * 200], 5, "POUNCE_BIND_FAILED", "bytes, and this one 200: choose a shorter one"),
        (["main:app", "--control-socket", "missing/x"], 5, "POUNCE_BIND_FAILED", "There is no folder missing"),
        (["main:app", "--pid-file", "main.py"], 2, "POUNCE_CONFIG_INVALID", "does not hold a number"),
        (["main:app", "--env-file", ".env"], 2, "POUNCE_CONFIG_INVALID", "the file of variables .env cannot be read"),
        (["main:app", "--env-file", "fails.py"], 2, "POUNCE_CONFIG_INVALID", "line 2 of fails.py does not set a"),
        (["main.py:app"], 4, "POUNCE_APP_PATH", "Write main:app"),
        (["fails:app"], 3, "POUNCE_LIFESPAN_STARTUP_FAILED", "no database"),
        (["missing:app"], 4, "POUNCE_APP_MODULE_NOT_FOUND", "'missing'"),
        (["needs:app"], 4, "POUNCE_APP_MODULE_NOT_FOUND", "surely_not_installed"),
        (["main:nope"], 4, "POUNCE_APP_ATTRIBUTE_NOT_FOUND", "'nope'"),
        (["main:not_an_app"], 4, "POUNCE_APP_NOT_CALLABLE", "not callable"),
        (["main"], 4, "POUNCE_APP_PATH", "module:attribute"),
        (["main:app", "--ssl-certfile=x", "--ssl-keyfile=y"], 6, "POUNCE_TLS_CERT_FILE_NOT_FOUND", "x"),
        (["main:app", "--only-plugins", "nope"], 7, "POUNCE_PLUGIN_E", "'nope'"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("POUNCE_") else None,
)  # fmt: skip
def test_each_kind_of_error_has_its_exit_code(pounce, tmp_path, words, exit_code, code, said):
    (tmp_path / "fails.py").write_text(FAILS_TO_START)
    (tmp_path / "needs.py").write_text(NEEDS_MODULE)
    port = "--debug" if {"--port", "--uds"} & {*words} else "--port=0"
    ended, stderr = pounce.fails("serve", port, *words, "--log-format", "text")
    assert ended == exit_code
    assert stderr.startswith("Error: ")
    assert f"\n  Code: {code}\n" in stderr
    assert said in stderr


PLUGIN = """
from pounce.plugin import *
def create(service): raise ValueError("no such table")
plugin = Plugin(name="bad", api=API_VERSION, {piece})
"""
NOT_MADE = "could not be made: ValueError: no such table"
MALFORMED = "upgrades must be a tuple (got one Upgrade"
PIECES = {
    NOT_MADE: "responders=(Responder(name='r', create=create),)",
    MALFORMED: "upgrades=Upgrade(token=b'x', open=print)",
}
MODES = {
    "one": [],
    "threads": ["--workers", "2"],
    "processes": ["--workers", "2", "--worker-mode", "process"],
    "interpreters": ["--workers", "2", "--worker-mode", "subinterpreter"],
}


@pytest.mark.parametrize(("mode", "said"), [*((mode, NOT_MADE) for mode in MODES), ("processes", MALFORMED)])
def test_a_plugin_that_fails_at_the_start_is_named_in_every_mode(pounce, tmp_path, monkeypatch, mode, said):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "bad_plugin.py").write_text(PLUGIN.format(piece=PIECES[said]))
    info = tmp_path / "bad-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pounce.plugins]\nbad = bad_plugin:plugin\n")
    ended, stderr = pounce.fails("serve", "main:app", "--port", "0", *MODES[mode], "--log-format", "text")
    assert ended == 7
    assert stderr.startswith("Error: plugin bad")
    assert said in stderr
    assert "\n  Code: POUNCE_PLUGIN_E\n" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "words", [["main:app"], ["srve", "main:app"], ["--port", "1"], ["status"], ["serve", "main:app", "--prot", "1"]]
)
def test_what_any_command_has_to_say_is_json_where_logs_are(capsys, monkeypatch, tmp_path, words):
    # Where `status` also looks for servers, of whoever they are.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(words) == 2
    error = json.loads(capsys.readouterr().err)
    assert list(error) == ["ts", "level", "event", "code", "message", "hint"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(words) == 2
    text = capsys.readouterr().err
    assert "Error: " in text
    assert "{" not in text


@pytest.mark.parametrize("log_format", ["text", "auto"])
def test_a_port_in_use_is_said_in_the_format_of_the_log(pounce, log_format):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended, stderr = pounce.fails("serve", "main:app", "--port", str(port), "--log-format", log_format)
    assert ended == 5
    if log_format == "text":
        assert f"cannot listen on 127.0.0.1:{port}" in stderr
        return
    error = json.loads(stderr)
    assert list(error) == ["ts", "level", "event", "code", "message", "hint"]
    assert (error["level"], error["event"], error["code"]) == ("error", "start_failed", "POUNCE_BIND_IN_USE")
    assert str(port) in error["message"]
    assert "--port 0" in error["hint"]


def test_the_traceback_of_the_application_has_no_frames_of_the_server(pounce, tmp_path):
    pounce.cold = True
    (tmp_path / "broken.py").write_text(BROKEN)
    ended, stderr = pounce.fails("serve", "broken:app", "--log-format", "text")
    block, _, below = stderr.partition("\n\n")
    assert ended == 4
    assert block == (
        f"Error: broken could not be imported: KeyError: 'oops' ({tmp_path / 'broken.py'}:3)\n"
        "  Code: POUNCE_APP_IMPORT_FAILED"
    )
    assert below.startswith("Traceback (most recent call last):\n")
    assert below.count('  File "') == 2
    assert below.count("broken.py") == 2


def test_the_traceback_of_the_application_is_in_the_json_line(pounce, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    error = json.loads(pounce.fails("serve", "broken:app")[1])
    assert error["exception"].endswith("KeyError: 'oops'")
    assert error["exception"].count('  File "') == 2


def test_a_file_that_does_not_compile_is_shown_with_its_line(pounce, tmp_path):
    (tmp_path / "broken.py").write_text("app = 1\ndef x(:\n")
    ended, stderr = pounce.fails("serve", "broken:app", "--log-format", "text")
    assert ended == 4
    assert 'broken.py", line 2' in stderr
    assert "importlib" not in stderr


def test_the_failed_startup_of_the_application_is_shown_with_its_traceback(pounce, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS_TO_START)
    _, stderr = pounce.fails("serve", "fails:app", "--port", "0", "--log-format", "text")
    assert stderr.count('  File "') == 1
    assert 'fails.py", line 4, in app' in stderr


def test_messages_cannot_drive_the_terminal(pounce):
    _, stderr = pounce.fails("serve", "main:app", "--port", "\x1b[2J", "--log-format", "text")
    assert "\x1b" not in stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no application is given"),
        (["a:b", "--app", "c:d"], "the application is given more than once (a:b, c:d)"),
        (["a:b", "c:d"], "'c:d' is one argument too many"),
        (["a:b", "--port"], "--port needs a value"),
        (["a:b", "--port", "1", "--port", "2"], "--port is given more than once"),
        (["a:b", "--access-log=perhaps"], "--access-log must be true or false (got 'perhaps')"),
        (["a:b", "--no-access-lgo"], "there is no option --no-access-lgo"),
        (["a:b", "--lifespan", "of"], "--lifespan must be one of auto, on, off (got 'of')"),
        (["a:b", "--lifespan", "of"], "\n  Hint: Did you mean off?"),
        (["a:b", "--request-timeout", "soon"], "--request-timeout must be a number of seconds above 0 (got 'soon')"),
        (["a:b", "--request-timeout", "soon"], "30s, 5m"),
        (["a:b", "--max-request-size", "-3"], "--max-request-size must be"),
        (["a:b", "--max-request-size", "9" * 400], "--max-request-size must be"),
        (["a:b", "--backlog", "9" * 5000], "--backlog must be"),
        (["a:b", "--uds-permissions", "999"], "--uds-permissions must be an octal number from 0 to 777 (got '999')"),
        (["a:b", "--set", "x=1"], "--set must be NAME.field=value (got 'x=1')"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_what_is_wrong_with_it(capsys, words, said):
    assert main(["serve", *words, "--log-format", "text"]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr
    assert stderr.startswith("Error: ")


def test_an_interrupt_before_the_server_listens_to_signals_is_no_traceback(monkeypatch, capsys):
    def interrupted(given):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "serve", interrupted)
    assert main(["serve", "main:app"]) == 130
    assert main(["serve", "main:app", "--root-path="]) == 130
    assert capsys.readouterr().err == ""


def test_what_nobody_expects_is_a_traceback(monkeypatch):
    def broken(given):
        raise ZeroDivisionError

    monkeypatch.setattr(serve, "serve", broken)
    with pytest.raises(ZeroDivisionError):
        main(["serve", "main:app"])
