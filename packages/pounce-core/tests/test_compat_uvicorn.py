"""Programs that start uvicorn are served by pounce, as they were written."""

import asyncio
import http.client
import logging
import multiprocessing
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pounce.compat import uvicorn as compat
from pounce.config import ServerConfig
from pounce.errors import ConfigError


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture(params=["installed", "not installed"])
def uvicorn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module as a program finds it behind `install()`."""
    kept = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "uvicorn"}
    for name in kept:
        del sys.modules[name]
    monkeypatch.setattr(multiprocessing.spawn, "get_preparation_data", multiprocessing.spawn.get_preparation_data)
    if request.param == "not installed":
        monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    compat.install()
    import uvicorn

    yield uvicorn
    compat.install()
    for name in [name for name in list(sys.modules) if name.partition(".")[0] == "uvicorn"]:
        del sys.modules[name]
    sys.modules.update(kept)


def get(server: Any, path: str = "/") -> tuple[int, str, str]:
    """Status, Server header and body."""
    host, port = server.servers[0].sockets[0].getsockname()
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=60) as answer:
        return answer.status, answer.headers["server"], answer.read().decode()


class Threaded:
    """A server on a thread of its own, as programs that have something else to do start it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.run, daemon=True)

    def __enter__(self) -> Any:
        self.thread.start()
        waited = threading.Event()
        while not self.server.started and self.thread.is_alive():
            waited.wait(0.001)
        assert self.server.started
        return self.server

    def __exit__(self, *exc_info: object) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_server_on_a_thread_starts_answers_and_ends(uvicorn: Any) -> None:
    with Threaded(uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))) as server:
        assert get(server, "/here") == (200, "pounce", "/here")
    assert not server.started


def test_derived_class_is_a_server(uvicorn: Any) -> None:
    class Mine(uvicorn.Server):  # type: ignore[misc]
        def install_signal_handlers(self) -> None:
            pass

        def run(self, sockets: Any = None) -> None:
            self.ran = True
            super().run(sockets)

    with Threaded(Mine(uvicorn.Config(app=app, host="127.0.0.1", port=0, log_level="error"))) as server:
        assert get(server)[0] == 200
        assert server.ran


def test_server_of_a_coroutine_is_served_on_its_loop(uvicorn: Any) -> None:
    async def main() -> tuple[int, str, str]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        found = await asyncio.to_thread(get, server)
        server.should_exit = True
        await serving
        return found

    assert asyncio.run(main()) == (200, "pounce", "/")


def test_loop_whose_tasks_are_written_in_python_is_served_on(uvicorn: Any) -> None:
    """As nest_asyncio leaves it: `current_task()` knows none of them."""

    async def main() -> tuple[int, str, str]:
        loop = asyncio.get_running_loop()
        kind: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        loop.set_task_factory(lambda loop, coro, **options: kind(coro, loop=loop, **options))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = loop.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        found = await loop.run_in_executor(None, get, server)
        server.should_exit = True
        await serving
        # asyncio's own end of a loop needs to know its task.
        loop.set_task_factory(None)
        return found

    assert asyncio.run(main()) == (200, "pounce", "/")


def test_start_and_end_are_steps_of_their_own(uvicorn: Any) -> None:
    async def main() -> None:
        config = uvicorn.Config(app, port=0, log_level="error")
        server = uvicorn.Server(config)
        await server.startup()
        assert server.started
        assert (await asyncio.to_thread(get, server))[0] == 200
        server.should_exit = True
        await server.main_loop()
        await server.shutdown()
        assert not server.started

    asyncio.run(main())


def test_start_that_is_cancelled_leaves_nothing_running(uvicorn: Any) -> None:
    async def main() -> None:
        starting, over = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            starting.set()
            try:
                await asyncio.Event().wait()
            finally:
                over.set()

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
        serving = asyncio.ensure_future(server.serve())
        await starting.wait()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert over.is_set()
        assert not server.started
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def create() -> Any:
    return app


def test_application_that_is_loaded_already_is_served(uvicorn: Any) -> None:
    config = uvicorn.Config(create, port=0, log_level="error", factory=True, lifespan="off")
    config.load()
    with Threaded(uvicorn.Server(config)) as server:
        assert get(server, "/a") == (200, "pounce", "/a")


def test_sockets_that_the_program_has_bound_are_served(uvicorn: Any) -> None:
    config = uvicorn.Config(app, port=0, log_level="error")
    sock = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    waited = threading.Event()
    while not server.started and thread.is_alive():
        waited.wait(0.001)
    assert server.servers[0].sockets[0].getsockname()[1] == sock.getsockname()[1]
    assert get(server)[0] == 200
    server.should_exit = True
    thread.join(60)
    assert sock.fileno() == -1


def test_server_that_cannot_start_says_why_and_exits_as_theirs_does(
    uvicorn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = uvicorn.Config(app, port=0)
    with config.bind_socket() as sock:
        sock.listen()
        taken = uvicorn.Config(app, port=sock.getsockname()[1], log_level="error")
        logging.getLogger("pounce").addHandler(caplog.handler)
        try:
            with pytest.raises(SystemExit) as ended:
                asyncio.run(uvicorn.Server(taken).serve())
        finally:
            logging.getLogger("pounce").removeHandler(caplog.handler)
    assert ended.value.code == 3
    assert "in use" in caplog.text


@pytest.mark.parametrize("arguments", [{"timeout_keep_alive": -1}, {"root_path": "api"}, {"port": 70000}])
@pytest.mark.parametrize("step", ["run", "serve", "startup"])
def test_argument_that_is_no_setting_says_so_and_exits_as_theirs_does(
    uvicorn: Any, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], step: str
) -> None:
    server = uvicorn.Server(uvicorn.Config(app, **({"port": 0} | arguments)))
    logging.getLogger("pounce").addHandler(caplog.handler)
    try:
        with pytest.raises(SystemExit) as ended:
            if step == "run":
                server.run()
            else:
                asyncio.run(getattr(server, step)())
    finally:
        logging.getLogger("pounce").removeHandler(caplog.handler)
    assert ended.value.code == 3
    [value] = arguments.values()
    assert repr(value) in caplog.text


def test_no_time_to_keep_connections_ends_them_with_the_answer(uvicorn: Any) -> None:
    config = uvicorn.Config(app, port=0, timeout_keep_alive=0, root_path="/api/", log_level="error")
    with Threaded(uvicorn.Server(config)) as server:
        connection = http.client.HTTPConnection(*server.servers[0].sockets[0].getsockname(), timeout=60)
        connection.request("GET", "/x")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["connection"], answer.read()) == (200, "close", b"/api/x")


@pytest.mark.parametrize(
    ("url", "family", "name"),
    [("http://127.0.0.1:80", socket.AF_INET, ("127.0.0.1", 80)),
     ("https://[::1]:443", socket.AF_INET6, ("::1", 443, 0, 0)), ("unix:/run/a", socket.AF_UNIX, "/run/a")],
)  # fmt: skip
def test_address_is_that_of_its_family(url: str, family: int, name: Any) -> None:
    found = compat._Name(url)
    assert (found.family, found.getsockname()) == (family, name)


def test_server_goes_to_another_process_that_is_to_run_it(uvicorn: Any) -> None:
    config = uvicorn.Config("main:app", port=0)
    config.log_config = None
    server = pickle.loads(pickle.dumps(uvicorn.Server(config).run)).__self__
    assert (server.config.app, server.started, server.should_exit) == ("main:app", False, False)
    server.should_exit = True
    assert server.should_exit


def test_first_signal_ends_and_a_second_forces(uvicorn: Any) -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, True)


def test_handler_of_signals_may_be_the_program_s(uvicorn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = uvicorn.Server.handle_exit

    def handle_exit(self: Any, sig: int, frame: Any) -> None:
        seen.append(sig)
        original(self, sig, frame)
        # Who raises it again would end the tests.
        self._captured_signals.clear()

    monkeypatch.setattr(uvicorn.Server, "handle_exit", handle_exit)

    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        await serving

    asyncio.run(main())
    assert seen == [signal.SIGTERM]


# What arguments mean

ARGUMENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"trusted_hosts": ("127.0.0.1", "::1"), "log_level": "info", "max_request_size": 0}),
    ({"host": "0.0.0.0", "port": 80}, {"host": "0.0.0.0", "port": 80}),
    ({"host": None}, {"host": "0.0.0.0"}),
    ({"uds": Path("/run/a")}, {"uds": "/run/a"}),
    ({"fd": 3}, {"bind": ("fd://3",)}),
    ({"log_level": "TRACE"}, {"log_level": "debug"}),
    ({"log_level": logging.WARNING}, {"log_level": "warning"}),
    ({"ws": "none"}, {"disable_plugin": ("ws",)}),
    ({"ws_ping_interval": None, "ws_ping_timeout": 3}, {"websocket_ping_interval": 0.0, "websocket_ping_timeout": 3.0}),
    ({"headers": [("X-A", "1")], "server_header": False}, {"headers": ("X-A:1",), "server_header": ""}),
    ({"proxy_headers": False}, {"proxy_headers": False}),
    ({"forwarded_allow_ips": "10.0.0.0/8, ::1"}, {"trusted_hosts": ("10.0.0.0/8", "::1")}),
    ({"interface": "asgi3", "loop": "asyncio", "http": "h11"}, {"interface": "asgi", "loop": "asyncio"}),
    ({"limit_max_requests": 9, "limit_concurrency": 8}, {"max_requests": 9, "limit_concurrency": 8}),
    ({"timeout_keep_alive": 7, "timeout_graceful_shutdown": 3}, {"keep_alive_timeout": 7.0, "shutdown_timeout": 3.0}),
    ({"timeout_keep_alive": 0}, {"max_requests_per_connection": 1, "keep_alive_timeout": 5.0}),
    ({"root_path": "/api/"}, {"root_path": "/api"}),
    ({"root_path": "/"}, {"root_path": ""}),
    ({"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "a"},
     {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_cert_reqs": "required", "ssl_ca_certs": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "settings"), ARGUMENTS)
def test_arguments_are_settings(
    uvicorn: Any, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], settings: dict[str, Any]
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    found = compat.settings_of(uvicorn.Config(app, **arguments))
    config = ServerConfig.of(found)
    assert {name: getattr(config, name) for name in settings} == settings


def test_what_would_be_less_safe_is_refused(uvicorn: Any) -> None:
    config = uvicorn.Config(app, ssl_context_factory=lambda config, default: default())
    with pytest.raises(ConfigError, match="ssl_context_factory"):
        compat.settings_of(config)


def test_settings_that_are_given_stand_above_the_program(uvicorn: Any) -> None:
    compat.install({"uds": "/run/b", "log_level": "error"})
    found = compat.settings_of(uvicorn.Config(app, host="0.0.0.0", port=80, log_level="debug"))
    assert (found["uds"], found["log_level"]) == ("/run/b", "error")
    assert not {"host", "port"} & found.keys()


def test_argument_that_does_not_exist_is_a_type_error(uvicorn: Any) -> None:
    with pytest.raises(TypeError, match="prot"):
        uvicorn.Config(app, prot=80)


def test_run_serves_with_what_it_was_given(uvicorn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Any, ServerConfig]] = []
    monkeypatch.setattr(compat.ours, "run", lambda app, config: served.append((app, config)))
    uvicorn.run(app, port=81)
    uvicorn.run("main:app", workers=3, reload_dirs=None, access_log=False)
    uvicorn.run("main:app", reload=True, reload_dirs=["src"])
    [(one, first), (name, second), (_, third)] = served
    assert (one, first.port, first.workers) == (app, 81, 1)
    assert (name, second.workers, second.access_log) == ("main:app", 3, False)
    assert (third.reload, third.reload_dirs) == (True, ("src",))


PROGRAM = """
import multiprocessing, sys
from uvicorn import Config, Server

def of_child(queue):
    queue.put((Server.__module__, sys.argv[1:]))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=of_child, args=(queue,))
    process.start()
    print(Server.__module__, *queue.get())
    process.join()
"""


def test_processes_that_a_program_starts_are_reached(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    code = f"from pounce.compat.uvicorn import install, run_program; install(); run_program([{str(program)!r}, '--x'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "pounce.compat.uvicorn pounce.compat.uvicorn ['--x']\n"
