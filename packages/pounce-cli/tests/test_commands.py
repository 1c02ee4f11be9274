"""Commands other than `serve`: help, versions, and what plugins bring."""

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest

from pounce.plugin import API_VERSION, Command, Plugin
from pounce.registry import BUILT_IN_COMMANDS, Loaded, Registry
from pounce.supervisor.control import open_control
from pounce.supervisor.control_folder import running
from pounce_cli.main import main
from pounce_cli.top import LATENCY, look


def greet(name: str, *, loud: bool = False) -> int:
    """Greet somebody."""
    print(f"hello {name}{'!' if loud else ''}")
    return 3 if loud else 0


def broken():
    raise RuntimeError("half installed")


def registry(*commands, skipped=()):
    plugin = Plugin(name="fake", api=API_VERSION, commands=commands)
    return Registry([Loaded("fake", "-", "-", plugin), *skipped])


GREET = Command(name="greet", load=lambda: greet)
BROKEN = Command(name="broken", load=broken)


def must_not_discover():
    raise AssertionError("plugins were imported")


@pytest.mark.parametrize(
    ("words", "said", "code"), [(["Ada"], "hello Ada\n", 0), (["Ada", "--loud"], "hello Ada!\n", 3)]
)
def test_a_plugin_brings_a_command_with_its_own_parameters(capsys, words, said, code):
    assert main(["greet", *words], discover=lambda: registry(GREET)) == code
    assert capsys.readouterr().out == said


def test_the_help_lists_the_commands_of_plugins_also_those_that_cannot_be_loaded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for words in ([], ["--help"], ["-h"]):
        assert main(words, discover=lambda: registry(GREET, BROKEN)) == 0
        out = capsys.readouterr().out
        assert "greet" in out
        assert "Greet somebody." in out
        assert "broken" in out
        assert "half installed" in out
        assert "serve" in out


def test_other_commands_are_not_loaded_for_one(capsys):
    assert main(["greet", "Ada"], discover=lambda: registry(GREET, BROKEN)) == 0


def test_a_command_that_cannot_be_loaded_is_an_error_of_its_plugin(capsys):
    assert main(["broken"], discover=lambda: registry(BROKEN)) == 7
    assert "command broken cannot be loaded: RuntimeError: half installed" in capsys.readouterr().err


def test_a_plugin_cannot_take_the_name_of_a_built_in_command(capsys):
    command = Command(name="serve", load=lambda: greet)
    assert main(["--help"], discover=lambda: registry(command)) == 7
    assert "POUNCE_PLUGIN_CONFLICT" in capsys.readouterr().err


def test_wrong_parameters_of_a_plugin_s_command_are_a_usage_error(capsys):
    assert main(["greet", "Ada", "--lout"], discover=lambda: registry(GREET)) == 2
    assert "Did you mean --loud?" in capsys.readouterr().err
    assert main(["greet"], discover=lambda: registry(GREET)) == 2
    assert "NAME" in capsys.readouterr().err.upper()


@pytest.mark.parametrize(
    ("word", "hint"),
    [("srve", "Did you mean serve?"), ("gret", "Did you mean greet?"), ("main:app", "pounce serve main:app"),
     ("xyz", f"Commands: {', '.join(BUILT_IN_COMMANDS)}, greet.")],
)  # fmt: skip
def test_an_unknown_command_is_told_what_there_is(capsys, word, hint):
    assert main([word], discover=lambda: registry(GREET)) == 2
    err = capsys.readouterr().err
    assert f"there is no command {word!r}" in err
    assert hint in err


def test_an_unknown_command_is_told_of_plugins_that_are_skipped(capsys):
    skipped = Loaded("other", "-", "-", skipped="import failed: ImportError: no x")
    assert main(["xyz"], discover=lambda: registry(GREET, skipped=[skipped])) == 2
    assert "plugin other is skipped: import failed" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["serve", "--version"], ["serve"], ["--nope"]])
def test_plugins_are_not_imported_where_none_is_asked_for(capsys, words):
    main(words, discover=must_not_discover)


def test_the_version_is_that_of_both_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pounce {version('pounce-core')}\npounce-cli {version('pounce-cli')}\n"


def test_a_plain_serve_line_imports_neither_the_parsing_library_nor_the_drawing_one():
    code = (
        "import sys, pounce_cli.serve\n"
        "pounce_cli.serve.run_alone = lambda app, **settings: None\n"
        "from pounce_cli.main import main\n"
        "assert main(['serve', 'main:app', '--port', '0', '--no-access-log']) == 0\n"
        "print([name for name in ('cyclopts', 'rich', 'attrs', 'tomllib') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_to_its_end_is_no_error(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        line = [sys.executable, "-m", "pounce_cli", "config", "show"]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        ran = subprocess.run(line, stdout=pipe, stderr=subprocess.PIPE, env=environment, check=False)
    assert (ran.returncode, ran.stderr) == (141, b"")


# A running server


@pytest.mark.parametrize("command", ["status", "top --once", "workers +1", "reload", "stop"])
def test_control_socket_is_found_where_the_server_finds_it(capsys, tmp_path, monkeypatch, command):
    """Nobody listens on these; the error says which one was tried."""
    command, *rest = command.split()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main([command, *rest]) == 2
    assert "no server of this user runs" in capsys.readouterr().err
    (tmp_path / "pounce.toml").write_text('control_socket = "of-file"')
    (tmp_path / "other.toml").write_text('control_socket = "of-other-file"')
    said = []
    for words in ([], ["--config", "other.toml"], ["--control-socket", "of-line"]):
        assert main([command, *rest, *words]) == 2
        said.append(capsys.readouterr().err)
    monkeypatch.setenv("POUNCE_CONTROL_SOCKET", "of-environment")
    assert main([command, *rest]) == 2
    said.append(capsys.readouterr().err)
    names = ["of-file", "of-other-file", "of-line", "of-environment"]
    assert [f"no server answers at {name}:" in text for name, text in zip(names, said, strict=True)] == [True] * 4


def test_one_of_several_servers_has_to_be_named(capsys, tmp_path_factory, monkeypatch):
    run = tmp_path_factory.mktemp("run")
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):  # servers of other tests are in neither
        monkeypatch.setenv(variable, str(run))
    selector = selectors.DefaultSelector()
    sockets = [open_control("auto", app, selector, {}) for app in ("shop:app", "blog:app")]
    try:
        assert main(["stop"]) == 2
        err = capsys.readouterr().err
        assert "2 servers run" in err
        assert [f"--control-socket {each}" in err for each in running()] == [True, True]
    finally:
        for each in sockets:
            each.close()
        selector.close()


def test_a_server_of_its_own_process_is_found_and_obeys_without_a_flag(pounce, capsys, tmp_path_factory, monkeypatch):
    run = tmp_path_factory.mktemp("run")
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(variable, str(run))
    server = pounce.start("serve", "main:app", "--port", "0", "--log-format", "json")
    url = server.started()["url"]
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["pid"], status["urls"], len(status["processes"])) == (server.popen.pid, [url], 1)
    assert main(["reload"]) == 3
    assert "start it with --control-socket" in capsys.readouterr().err
    assert main(["stop"]) == 0
    assert server.ended() == 0
    assert list((run / "pounce").iterdir()) == []


@pytest.fixture
def answering(tmp_path):
    """Makes a socket that says `answer` to every line, whatever it is; gives its path."""
    listening = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "somebody")
    answers, clients, threads = [], [], []

    def run():
        while True:
            try:
                client, _ = listening.accept()
                clients.append(client)
                client.recv(4096)
                client.sendall(answers[0])
            except OSError:
                return

    def answering(answer):
        answers.append(answer)
        listening.bind(path)
        listening.listen()
        threads.append(threading.Thread(target=run))
        threads[0].start()
        return path

    yield answering
    listening.shutdown(socket.SHUT_RDWR)
    threads[0].join()
    for sock in (listening, *clients):
        sock.close()


STATUS = {
    "version": "1\x1b[2J", "pid": 1, "state": "serving", "urls": ["http://\x9b2J"], "uptime_seconds": 1.0, "workers": 1,
    "worker_mode": "thread",
    "processes": [
        {"pid": 1, "state": "\x07", "workers": []},
        {"pid": 2, "state": "serving", "workers": [
            {"number": 0, "connections": 1, "requests": 2, "served": 3, "silence": 0.0}
        ]},
    ],
    "counts": {"requests": 4, "plugin\x1b[2J": 2, "http_requests_total{method=GET,status=200}": 4},
    "gauges": {"connections": 1, "running": 2, "pounce_connections{wire=\x1b[2J}": 1},
}  # fmt: skip


@pytest.mark.parametrize("command", ["status", "reload", "stop"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"command": "status"}\n', b"[1]\n"])
def test_a_socket_of_somebody_else_is_told_from_a_server(capsys, answering, command, answer):
    path = answering(answer)
    assert main([command, "--control-socket", path]) == 2
    err = capsys.readouterr().err
    assert "is no pounce server" in err
    assert "POUNCE_CONTROL_NO_SERVER" in err


@pytest.mark.parametrize(
    "status",
    [None, [], {}, STATUS | {"urls": 3}, STATUS | {"urls": [3]}, STATUS | {"uptime_seconds": "long"},
     STATUS | {"uptime_seconds": 10**400}, STATUS | {"processes": None}, STATUS | {"processes": [7]},
     STATUS | {"processes": [{"pid": 1, "state": None, "workers": [{"number": "x"}]}]}],
    ids=lambda status: str(status)[-60:],
)  # fmt: skip
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_status_of_another_form_is_an_error(capsys, answering, status, flags):
    path = answering(json.dumps({"ok": True, "status": status}).encode() + b"\n")
    assert main(["status", "--control-socket", path, *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is no pounce server: its status has another form" in printed.err


@pytest.mark.parametrize(
    "states, code", [(["starting"], 1), (["draining", "starting"], 1), (["ended"], 1), ([], 1),
                     (["serving"], 0), (["draining", "serving"], 0)],
)  # fmt: skip
def test_status_fails_while_nothing_serves(capsys, answering, states, code):
    processes = [{"pid": 1, "state": state, "workers": []} for state in states]
    status = STATUS | {"processes": processes}
    path = answering(json.dumps({"ok": True, "status": status}).encode() + b"\n")
    assert main(["status", "--control-socket", path]) == code
    assert f"up 1 s, 1 worker (thread), {STATUS['state']}" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_status_cannot_drive_the_terminal(capsys, answering, flags):
    path = answering(json.dumps({"ok": True, "status": STATUS}).encode() + b"\n")
    assert main(["status", "--control-socket", path, *flags]) == 0
    out = capsys.readouterr().out
    assert "serving" in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_top_cannot_be_driven_by_a_status_either(capsys, answering, flags):
    path = answering(json.dumps({"ok": True, "status": STATUS}).encode() + b"\n")
    assert main(["top", "--control-socket", path, "--once", "--interval", "0.1", *flags]) == 0
    out = capsys.readouterr().out
    assert "serving" in out
    assert all(line.isprintable() for line in out.splitlines())


def test_top_says_what_has_changed_in_between():
    latencies = {f"{LATENCY}{bound}}}": 30 for bound in ("0.1", "+Inf")}
    later = STATUS | {"counts": {"requests": 34, "POUNCE_LIMIT": 3} | latencies}
    seen = look(STATUS, later, 2.0)
    assert seen["requests_per_second"] == 15
    assert seen["latencies"] == {"0.1": 30, "+Inf": 0}
    assert seen["events_per_second"] == {"POUNCE_LIMIT": 1.5}
    assert look(later, STATUS, 2.0)["requests_per_second"] == 0


@pytest.mark.parametrize("by", ["3", "+0", "-", "one", "+1000"])
def test_workers_takes_a_difference(capsys, by):
    assert main(["workers", by, "--control-socket", "nobody"]) == 2
    assert "how many more or fewer" in capsys.readouterr().err


def test_the_error_of_a_server_is_told_and_cannot_drive_the_terminal(capsys, answering):
    path = answering(b'{"ok": false, "error": "no\\u001b[2J"}\n')
    assert main(["reload", "--control-socket", path]) == 3
    err = capsys.readouterr().err
    assert "POUNCE_RELOAD_FAILED" in err
    assert "\x1b" not in err


def test_the_path_of_a_control_socket_is_a_path(capsys):
    assert main(["status", "--control-socket", "unix:/run/x"]) == 2
    assert "'/run/x'" in capsys.readouterr().err
