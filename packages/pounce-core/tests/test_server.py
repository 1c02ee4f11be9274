"""Server: embedding, several in one process, and every way of ending."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import pytest

import pounce
from pounce import AppImportError, BindError, ConfigError, LifespanError, Server, ServerConfig, StartInfo
from pounce.testing import TestServer
from pounce.worker.standstill import LoneWatch

PATIENCE = 60.0


class App:
    """Notes its lifespan."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.events.append((await receive())["type"])
            await send({"type": "lifespan.startup.complete"})
            self.events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})


def config(**settings: Any) -> ServerConfig:
    return ServerConfig.of({"port": 0, "access_log": False} | settings)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE))  # type: ignore[arg-type]


def get(address: tuple[str, int], path: str = "/") -> bytes:
    with socket.create_connection(address, 5) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        data = b""
        while piece := client.recv(65536):
            data += piece
        return data


class Serving:
    """A server on the loop of the test."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.ready: asyncio.Future[StartInfo] = asyncio.get_running_loop().create_future()
        self.server = Server(config(**settings), app, on_ready=self.ready.set_result)
        self.task = asyncio.create_task(self.server.serve())

    async def address(self) -> tuple[str, int]:
        await self.ready
        assert self.server.bound_addr is not None
        return self.server.bound_addr


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"worker_mode": "process"}, {"loop": "asyncio"}])
def test_blocking_on_a_loop_that_runs_is_refused_with_what_to_write(settings: dict[str, Any]) -> None:
    """As in a notebook; nothing is left behind that nobody has awaited."""

    async def test() -> None:
        for block in (
            lambda: pounce.run(App(), port=0, **settings),
            lambda: pounce.run("main:app", port=0, **settings),
            Server(config(**settings), App()).run,
        ):
            with pytest.raises(ConfigError, match="an event loop runs") as caught:
                block()
            assert caught.value.code == "POUNCE_RUN_IN_LOOP"
            assert "await pounce.Server(" in (caught.value.hint or "")
            assert ".serve()" in (caught.value.hint or "")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(test)
        gc.collect()


def test_bound_addr_is_known_while_the_server_runs() -> None:
    async def test() -> None:
        serving = Serving(App())
        assert serving.server.bound_addr is None
        host, port = await serving.address()
        assert host == "127.0.0.1"
        assert (await asyncio.to_thread(get, (host, port))).endswith(b"hello")
        serving.server.shutdown()
        await serving.task
        assert serving.server.bound_addr is None

    run(test)


def test_start_info_tells_how_it_runs() -> None:
    async def test() -> None:
        serving = Serving(App(), http_parser="h11")
        info = await serving.ready
        assert info.urls == (f"http://127.0.0.1:{(await serving.address())[1]}",)
        assert (info.version, info.pid, info.app) == (pounce.__version__, os.getpid(), None)
        assert (info.tls, info.workers, info.http_parser) == (False, 1, "h11")
        assert "h1" in info.wires
        serving.server.shutdown()
        await serving.task

    run(test)


def test_several_servers_run_on_one_loop() -> None:
    async def test() -> None:
        servings = [Serving(App()) for _ in range(3)]
        addresses = [await serving.address() for serving in servings]
        assert len(set(addresses)) == 3
        servings[0].server.shutdown()
        await servings[0].task
        for address in addresses[1:]:
            assert (await asyncio.to_thread(get, address)).endswith(b"hello")
        for serving in servings[1:]:
            serving.server.shutdown()
            await serving.task

    run(test)


def test_shutdown_may_come_from_many_threads_at_once() -> None:
    async def test() -> None:
        app = App()
        serving = Serving(app)
        await serving.ready
        threads = [threading.Thread(target=serving.server.shutdown) for _ in range(8)]
        for thread in threads:
            thread.start()
        await serving.task
        for thread in threads:
            thread.join()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(test)


def test_shutdown_before_the_start_ends_it_at_once() -> None:
    async def test() -> None:
        app = App()
        server = Server(config(), app)
        server.shutdown()
        await server.serve()
        assert app.events in ([], ["lifespan.startup", "lifespan.shutdown"])

    run(test)


def test_shutdown_after_the_end_does_nothing() -> None:
    async def test() -> None:
        serving = Serving(App())
        await serving.ready
        serving.server.shutdown()
        await serving.task
        serving.server.shutdown()
        serving.server.shutdown(force=True)

    run(test)


def test_serve_that_is_cancelled_cleans_up() -> None:
    async def test() -> None:
        app = App()
        serving = Serving(app)
        address = await serving.address()
        serving.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving.task
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert serving.server.bound_addr is None
        with pytest.raises(OSError):
            await asyncio.to_thread(get, address)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_serve_that_is_cancelled_ends_requests_that_run() -> None:
    ends: list[str] = []
    begun = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def test() -> None:
        serving = Serving(app, shutdown_timeout=60)
        request = asyncio.create_task(asyncio.to_thread(get, await serving.address()))
        await asyncio.to_thread(begun.wait, PATIENCE)
        serving.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving.task
        assert ends == ["cancelled"]
        assert (await request).startswith(b"HTTP/1.1 503 ")

    run(test)


def test_serve_that_is_cancelled_while_it_starts_cleans_up() -> None:
    begun = asyncio.Event()

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def test() -> None:
        serving = Serving(hangs)
        await begun.wait()
        serving.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving.task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_failed_start_frees_the_port() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError

    async def test() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with pytest.raises(LifespanError):
            await Server(config(port=port), fails).serve()
        serving = Serving(App(), port=port)
        await serving.ready
        serving.server.shutdown()
        await serving.task

    run(test)


def test_on_ready_that_raises_ends_the_server_cleanly() -> None:
    def on_ready(info: StartInfo) -> None:
        raise RuntimeError("not ready at all")

    async def test() -> None:
        app = App()
        with pytest.raises(RuntimeError, match="not ready at all"):
            await Server(config(), app, on_ready=on_ready).serve()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(test)


class WritesWhenResumed(asyncio.Protocol):
    """Does what the protocol of TLS does in `resume_writing()`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def resume_writing(self) -> None:
        self.transport.write(b"more")


async def app_whose_peer_goes_while_a_transport_closes(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        accepted = listening.accept()[0]
        accepted.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(WritesWhenResumed, accepted)
        transport.set_write_buffer_limits(high=0)
        while not transport.get_write_buffer_size():
            transport.write(bytes(65536))
        transport.close()
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while peer.recv(2**20):
                pass
    while transport.get_extra_info("socket").fileno() >= 0:
        await asyncio.sleep(0)
    # The second end, where there is one, was asked for before.
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ended"})


def test_transport_that_asyncio_ends_twice_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with TestServer(app_whose_peer_goes_while_a_transport_closes, loop="asyncio") as server:
        assert urlopen(server.url).read() == b"ended"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_exception_handler_of_the_loop_is_put_back() -> None:
    def mine(loop: Any, context: Any) -> None: ...

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(mine)
        serving = Serving(App())
        await serving.ready
        serving.server.shutdown()
        await serving.task
        assert loop.get_exception_handler() is mine

    run(test)


def test_port_that_is_taken_raises() -> None:
    async def test() -> None:
        serving = Serving(App())
        _, port = await serving.address()
        with pytest.raises(BindError):
            await Server(config(port=port), App()).serve()
        serving.server.shutdown()
        await serving.task

    run(test)


def test_factory_is_called_once() -> None:
    made: list[App] = []

    def create() -> App:
        made.append(App())
        return made[-1]

    async def test() -> None:
        serving = Serving(create, factory=True)
        await serving.ready
        serving.server.shutdown()
        await serving.task
        assert len(made) == 1

    run(test)


@pytest.mark.parametrize("app", [3, None, App], ids=["number", "none", "class"])
def test_what_is_no_application_is_refused(app: Any) -> None:
    async def test() -> None:
        with pytest.raises((ConfigError, AppImportError)):
            await Server(config(), app).serve()

    run(test)


# Settings that hold on a loop of the program too


@pytest.mark.parametrize("settings", [{}, {"workers": 2, "worker_mode": "thread"}], ids=["one", "two"])
def test_pid_file_is_there_while_the_server_runs(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with TestServer(App(), pid_file=str(path), **settings):
        assert int(path.read_text()) == os.getpid()
    assert not path.exists()


def test_pid_file_of_a_process_that_runs_keeps_the_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getppid()))
    with pytest.raises(ConfigError, match="pid_file"):
        TestServer(App(), pid_file=str(tmp_path / "pid")).start()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system knows no affinity")
def test_affinity_holds_for_the_thread_that_serves_and_no_longer() -> None:
    allowed = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(os.sched_getaffinity(0))
        raise NotImplementedError

    async def main() -> None:
        server = Server(config(cpu_affinity=True), app)
        server.shutdown()
        await server.serve()

    asyncio.run(main())
    assert [len(cpus) for cpus in seen] == [1]
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("settings", [{}, {"workers": 2, "worker_mode": "thread"}], ids=["one", "two"])
def test_connections_are_served_until_the_drain_begins_and_are_told_of_it(settings: dict[str, Any]) -> None:
    server = TestServer(App(), drain_delay=60.0, health_check_path="/up", **settings)
    server.start()
    server.shutdown()
    until = time.monotonic() + PATIENCE
    while get((server.host, server.port), "/up").startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < until
    assert get((server.host, server.port)).endswith(b"hello")
    server.shutdown(force=True)
    server.stop()


class Blocks:
    """Blocks the loop on which it is asked to, until it is let go; tells which thread serves."""

    def __init__(self) -> None:
        self.blocked, self.let_go = threading.Event(), threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/block":
            self.blocked.set()
            self.let_go.wait(3 * PATIENCE)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_that_stands_still_is_replaced_within_the_process(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Blocks()
    with TestServer(app, workers=workers, worker_mode="thread", worker_timeout=2.0) as server, ExitStack() as stack:
        blocked = []
        for _ in range(workers):
            app.blocked.clear()
            blocked.append(stack.enter_context(socket.create_connection((server.host, server.port), PATIENCE)))
            blocked[-1].sendall(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
            assert app.blocked.wait(PATIENCE)
        with urlopen(server.url, timeout=3 * PATIENCE) as answer:
            assert answer.read().startswith(b"pounce worker")
        assert "in __call__" in caplog.text
        app.let_go.set()
        for client in blocked:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_loop_that_stands_still_is_shown_where_it_is_the_only_one() -> None:
    shown = threading.Event()
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            shown.set()

    beat = time.monotonic() - 60
    watch = LoneWatch(0.01, lambda: beat)
    log = logging.getLogger("pounce")
    log.addHandler(handler := Handler())
    watch.start()
    assert shown.wait(PATIENCE)
    watch.stop()
    log.removeHandler(handler)
    (record,) = records
    assert record.getMessage().startswith("The event loop stands still for 60 s, and there is no other worker:")
    assert "test_loop_that_stands_still_is_shown" in record.getMessage()


# pounce.run


def test_run_takes_a_configuration_or_settings_but_not_both() -> None:
    with pytest.raises(TypeError):
        pounce.run(App(), config=config(), port=1)
    with pytest.raises(TypeError):
        pounce.run(App(), config={"port": 1})  # type: ignore[arg-type]


def test_run_refuses_a_setting_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="prot"):
        pounce.run(App(), prot=1)


def test_run_in_a_thread_ends_by_shutdown() -> None:
    ready = threading.Event()
    server = Server(config(), App(), on_ready=lambda info: ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(PATIENCE)
    server.shutdown()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# Processes

PROGRAM = """
import asyncio, logging, sys, pounce

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        print("shutdown", flush=True)
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    print("request", flush=True)
    {request}
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"hello"}})

def on_ready(info):
    print(info.urls[0], flush=True)

pounce.run(app, port=0, on_ready=on_ready, shutdown_timeout={timeout})
"""


class Process:
    """A server in a process of its own; its output is read line by line."""

    def __init__(
        self, folder: Path, *, startup: str = "pass", request: str = "pass", timeout: float = 10, **popen: Any
    ) -> None:
        path = folder / "program.py"
        path.write_text(PROGRAM.format(startup=startup, request=request, timeout=timeout))
        options: dict[str, Any] = {"stderr": subprocess.DEVNULL} | popen
        self.process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, **options)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def address(self) -> tuple[str, int]:
        host, _, port = self.line().removeprefix("http://").rpartition(":")
        return host, int(port)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_ends_the_process(tmp_path: Path, number: int) -> None:
    with Process(tmp_path, request="await asyncio.sleep(0.3)") as server:
        client = socket.create_connection(server.address(), PATIENCE)
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert server.line() == "request"
            server.signal(number)
            data = b""
            while piece := client.recv(65536):
                data += piece
        assert data.endswith(b"hello")
        assert b"connection: close" in data.lower()
        assert server.line() == "shutdown"
        assert server.end() == 0


def test_second_signal_waits_for_no_request(tmp_path: Path) -> None:
    with (
        Process(tmp_path, request="await asyncio.Event().wait()", timeout=60) as server,
        socket.create_connection(server.address(), PATIENCE) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert server.line() == "request"
        server.signal(signal.SIGTERM)
        # Two signals that are pending at the same time are one: the first has to have arrived.
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.3)
        server.signal(signal.SIGTERM)
        assert server.end() == 1


def test_second_signal_ends_a_startup_that_hangs(tmp_path: Path) -> None:
    with Process(tmp_path, startup='print("starting", flush=True); await asyncio.Event().wait()') as server:
        assert server.line() == "starting"
        server.signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.3)
        server.signal(signal.SIGTERM)
        assert server.end() == 1


def test_log_that_nobody_reads_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    flood = 'log = logging.getLogger("pounce.flood"); [log.warning("x" * 1000) for _ in range(2000)]'
    with Process(tmp_path, request=flood, stderr=subprocess.PIPE) as server:
        assert get(server.address()).endswith(b"hello")
        server.signal(signal.SIGTERM)
        assert server.end() == 0


def test_server_that_cannot_start_names_the_reason(tmp_path: Path) -> None:
    with Process(tmp_path, startup='raise RuntimeError("no database")', stderr=subprocess.PIPE) as server:
        _, errors = server.process.communicate(timeout=PATIENCE)
        assert server.process.returncode != 0
        assert "no database" in errors
