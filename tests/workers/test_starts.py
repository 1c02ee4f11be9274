"""A start that the application ends, in whatever way: one error with code, place and exit code, in every mode."""

import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from tests.workers.running import FEWEST, Running

import pounce
from pounce import LifespanError, PounceError, Server, ServerConfig
from pounce.testing import TestServer

MODES = {
    "caller": (),
    **FEWEST,
    "reload": ("--reload",),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return MODES[request.param]


def failed_start(folder: Path, app: str, *flags: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the one line that says why."""
    with Running(folder, *flags, app=app, wait=False) as server:
        code = server.wait()
        (error,) = [entry for entry in server.log if entry.get("event") == "start_failed"]
        return code, error


IN_LIFESPAN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        raise SystemExit(0)
"""


@pytest.mark.parametrize(
    ("app", "exit_code", "code", "place"),
    [
        ("import sys\nsys.exit()\n", 4, "POUNCE_APP_IMPORT_FAILED", "main.py:2"),
        ("def app():\n    raise KeyboardInterrupt\n", 4, "POUNCE_APP_FACTORY_FAILED", "main.py:2"),
        (IN_LIFESPAN, 3, "POUNCE_LIFESPAN_STARTUP_FAILED", "main.py:5"),
    ],
    ids=["import", "factory", "lifespan"],
)
def test_exit_in_the_application_is_an_error_of_the_start(
    app: str, exit_code: int, code: str, place: str, mode: tuple[str, ...], tmp_path: Path
) -> None:
    factory = ("--factory",) if "def app()" in app else ()
    ended, error = failed_start(tmp_path, app, *mode, *factory)
    assert (ended, error["code"]) == (exit_code, code)
    assert error["message"].endswith(f"({tmp_path / place})")
    assert "Traceback" in error["exception"]
    assert "pounce" not in error["exception"].replace(str(tmp_path), "")


HOOKS = """
import logging
import sys

def middleware(app):
    sys.exit()

def ssl_context(context):
    sys.exit("no")

class Handler(logging.Handler):
    def __init__(self):
        sys.exit(0)

async def app(scope, receive, send): ...
"""


@pytest.mark.parametrize(
    ("flags", "exit_code", "code", "line"),
    [
        (("--middleware", "main:middleware"), 4, "POUNCE_APP_MIDDLEWARE_FAILED", 6),
        (("--ssl-self-signed", "--ssl-context", "main:ssl_context"), 6, "POUNCE_TLS_CONTEXT_HOOK_FAILED", 9),
        (("--log-config", "log.json"), 2, "POUNCE_CONFIG_INVALID", 13),
    ],
    ids=["middleware", "ssl_context", "log_config"],
)
def test_exit_in_what_the_application_brings_for_the_start_is_an_error_too(
    flags: tuple[str, ...], exit_code: int, code: str, line: int, mode: tuple[str, ...], tmp_path: Path
) -> None:
    handlers = {"h": {"class": "main.Handler"}}
    (tmp_path / "log.json").write_text(json.dumps({"version": 1, "handlers": handlers, "root": {"handlers": ["h"]}}))
    ended, error = failed_start(tmp_path, HOOKS, *mode, *flags)
    assert (ended, error["code"]) == (exit_code, code)
    assert "SystemExit" in error["message"]
    assert error["message"].endswith(f"({tmp_path / 'main.py'}:{line})")


IN_A_TASK = """
import asyncio

async def give_up():
    raise SystemExit(0)

async def app(scope, receive, send):
    await receive()
    task = asyncio.create_task(give_up())
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize("mode", ["caller", "thread", "process"])
def test_exit_in_a_task_of_the_startup_ends_the_start_with_an_error(mode: str, tmp_path: Path) -> None:
    ended, error = failed_start(tmp_path, IN_A_TASK, *MODES[mode], "--loop", "asyncio")
    assert (ended, error["code"]) == (3, "POUNCE_WORKER_FAILED")
    assert error["message"].endswith(f"SystemExit: 0 ({tmp_path / 'main.py'}:5)")


@pytest.mark.parametrize("mode", ["caller", "thread", "process"])
def test_wsgi_application_that_is_to_be_asgi_is_refused_in_every_mode(mode: str, tmp_path: Path) -> None:
    wsgi = "def app(environ, start_response): ..."
    ended, error = failed_start(tmp_path, wsgi, *MODES[mode], "--interface", "asgi")
    assert (ended, error["code"]) == (4, "POUNCE_APP_NOT_ASGI")
    assert "a WSGI application" in error["message"]


# In a process that does other things too


def exits(before: bool) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not before:
            await receive()
        raise SystemExit(0)

    return app


def line_of_the_exit() -> str:
    lines, first = inspect.getsourcelines(exits)
    return f"{__file__}:{first + next(number for number, line in enumerate(lines) if 'raise' in line)}"


@pytest.mark.parametrize("before", [True, False], ids=["before it asks", "after it asked"])
@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"workers": 2, "lifespan_scope": "process"}], ids=str)
def test_exit_in_the_lifespan_is_an_error_of_an_embedded_server(settings: dict[str, Any], before: bool) -> None:
    with pytest.raises(LifespanError) as caught:
        TestServer(exits(before), worker_mode="thread", **settings).start()
    assert caught.value.code == "POUNCE_LIFESPAN_STARTUP_FAILED"
    assert str(caught.value).endswith(f"SystemExit: 0 ({line_of_the_exit()})")


def test_exit_in_the_lifespan_leaves_the_loop_of_the_program_alone() -> None:
    async def main() -> str:
        try:
            await Server(ServerConfig(port=0), exits(False)).serve()
        except PounceError as exc:
            return exc.code
        return ""

    assert asyncio.run(main()) == "POUNCE_LIFESPAN_STARTUP_FAILED"


@pytest.mark.parametrize("kind", ["startup", "draining", "shutdown"])
def test_exit_in_a_hook_of_a_worker_is_a_failure_of_the_hook(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == f"pounce.worker.{kind}":
            raise SystemExit(0)

    server = TestServer(app, worker_hooks=True)
    if kind == "startup":
        with pytest.raises(LifespanError, match=r"SystemExit: 0 \(.*test_starts.py:\d+\)"):
            server.start()
        return
    with server:
        pass
    assert f"pounce.worker.{kind} failed" in caplog.text


def test_exit_in_the_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise SystemExit(0)

    with TestServer(app):
        pass
    assert "The application's shutdown failed" in caplog.text


# What is served without a lifespan


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError(), AssertionError(), KeyError("path"), ValueError("Unknown scope type: lifespan"),
        ValueError("Django can only handle ASGI/HTTP connections, not lifespan."), TypeError("not supported"),
    ],
    ids=repr,
)  # fmt: skip
def test_application_that_says_that_it_has_no_lifespan_is_believed(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert warned_of(error, caplog) == []


@pytest.mark.parametrize(
    "error", [ImportError("no module named x"), KeyError("DATABASE"), AssertionError("DATABASE is not set")], ids=repr
)
def test_failure_before_the_lifespan_began_is_shown_with_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert warned_of(error, caplog) == [error]


def warned_of(error: Exception, caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with TestServer(app):
        pass
    return [record.exc_info[1] for record in caplog.records if record.levelname == "WARNING" and record.exc_info]


def test_what_gives_nothing_to_wait_for_is_refused() -> None:
    def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(pounce.AppImportError, match="returned None") as caught:
        TestServer(app).start()
    assert caught.value.code == "POUNCE_APP_NOT_ASGI"


def test_middleware_that_a_framework_cannot_put_together_at_the_lifespan_ends_the_start() -> None:
    class Framework:
        def _build_middleware_stack(self) -> None:
            raise TypeError("no such argument")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self._build_middleware_stack()

    with pytest.raises(pounce.AppImportError, match="no such argument") as caught:
        TestServer(Framework()).start()
    assert caught.value.code == "POUNCE_APP_MIDDLEWARE_FAILED"
