"""The garbage collector while a server starts and afterwards, in every mode."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.workers.running import Running, ask

from pounce import gc_hold
from pounce.testing import TestServer

APP = """
import gc
import json

BEFORE = gc.get_threshold()
{said}

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        global ended
        ended += 1

ended = 0
Cycle()
late = Cycle()

async def app(scope, receive, send):
    global late
    if scope["type"] == "lifespan":
        raise NotImplementedError
    answer = {{"import": BEFORE, "now": gc.get_threshold(), "enabled": gc.isenabled(), "frozen": gc.get_freeze_count()}}
    answer["ended"] = ended
    late = None
    body = json.dumps(answer).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""
MODES = {
    "caller": [],
    "thread": ["--workers", "2"],
    "process": ["--workers", "2", "--worker-mode", "process"],
    "preload": ["--workers", "2", "--worker-mode", "process", "--preload"],
    "subinterpreter": ["--workers", "2", "--worker-mode", "subinterpreter"],
}
DEFAULT = list(gc.get_threshold())


def told(folder: Path, mode: str, said: str = "") -> Any:
    line = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", "--log-format", "json", *MODES[mode]]
    with Running(folder, app=APP.format(said=said), command=line) as server:
        with server.connect() as client:
            answer = ask(client)
        assert server.end() == 0
    return answer


@pytest.mark.parametrize("mode", MODES)
def test_collector_waits_until_the_server_is_ready_and_passes_over_what_is_there_then(
    mode: str, tmp_path: Path
) -> None:
    answer = told(tmp_path, mode)
    assert answer["import"] == [gc_hold.HELD, *DEFAULT[1:]]
    assert answer["now"] == DEFAULT
    assert answer["enabled"]
    # Thousands of objects of modules; what was garbage by then is not among them.
    assert answer["frozen"] > 5000
    assert answer["ended"] == 1


@pytest.mark.parametrize("said", ["gc.set_threshold(50_000)", "gc.disable()", "gc.set_threshold(0)"])
def test_application_that_says_how_the_collector_runs_has_its_way(said: str, tmp_path: Path) -> None:
    answer = told(tmp_path, "caller", said)
    assert answer["enabled"] is (said != "gc.disable()")
    assert answer["now"][0] == {"gc.set_threshold(50_000)": 50_000, "gc.disable()": DEFAULT[0]}.get(said, 0)


def test_program_that_has_a_server_in_it_keeps_its_collector() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    before = gc.get_threshold(), gc.get_freeze_count()
    with TestServer(app):
        assert gc.get_threshold() == before[0]
        # Of those that were frozen before some may be gone.
        assert gc.get_freeze_count() <= before[1]


def test_commands_that_are_not_for_serving_have_their_collector() -> None:
    code = (
        "import gc, pounce_cli.main as main, pounce_cli.commands as commands\n"
        "commands.run = lambda *args, **kwargs: print(gc.get_threshold()) or 0\n"
        "main.main(['bench'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tuple(DEFAULT)}\n"


def test_command_that_fails_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    code = "import gc; from pounce_cli.main import main; print(main(['serve', 'nowhere:app']), gc.get_threshold())"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"4 {tuple(DEFAULT)}\n"
