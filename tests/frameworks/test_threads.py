"""What docs/threads.md says of applications whose parts belong to an event loop, with these very applications."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import websockets.sync.client
from tests.frameworks import thread_apps
from tests.frameworks.thread_apps import APPS, INITIALIZE, create_app
from tests.frameworks.wires import PATIENCE, ServerLog

from pounce import LifespanError
from pounce.testing import TestServer

TWO_THREADS: dict[str, Any] = {"workers": 2, "worker_mode": "thread"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Where aiohttp's session fetches from."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"from upstream"})

    with TestServer(app) as server:
        yield server.url


@pytest.fixture
def serve() -> Iterator[Callable[..., TestServer]]:
    with ExitStack() as stack:
        yield lambda app, **settings: stack.enter_context(TestServer(app, **settings))


def on_each(server: TestServer, path: str, **request: Any) -> list[httpx.Response]:
    """The answer of each of two workers, in their order; whoever has the fewest connections gets the next."""
    found: dict[str, httpx.Response] = {}
    with ExitStack() as clients:
        for _ in range(100):
            client = clients.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE, verify=False))
            # Where it fails nobody says which worker it was.
            worker = client.get("/channels").headers["x-worker"]
            if worker not in found:
                found[worker] = client.request(request.get("method", "GET"), path, **request.get("more", {}))
            if len(found) == 2:
                return [found[worker] for worker in sorted(found)]
    raise AssertionError("one worker has all connections")


def use(server: TestServer, name: str, upstream: str) -> list[str]:
    """What each worker made of it: a text, or its status where that is none of success."""
    if name == "socketio":
        return [say_something(server, text) for text in ("one", "two")]
    if name == "mcp":
        headers = {"accept": "application/json, text/event-stream"}
        answers = on_each(server, "/mcp/", method="POST", more={"json": INITIALIZE, "headers": headers})
    else:
        answers = on_each(server, f"/{name}/", more={"params": {"url": upstream}})
    return [answer.text if answer.is_success else str(answer.status_code) for answer in answers]


def say_something(server: TestServer, text: str) -> str:
    """A conversation of Socket.IO 5 over Engine.IO 4."""
    url = server.url.replace("http", "ws", 1) + "/socketio/?EIO=4&transport=websocket"
    with websockets.sync.client.connect(url, open_timeout=PATIENCE) as ws:
        assert str(ws.recv(PATIENCE)).startswith("0{")
        ws.send("40")
        assert str(ws.recv(PATIENCE)).startswith("40{")
        ws.send('42["say",' + json.dumps(text) + "]")
        return str(ws.recv(PATIENCE))


def worked(name: str, answers: list[str]) -> bool:
    expected = {
        "aiohttp": ["from upstream"] * 2,
        "lock": ["[0, 1, 2]"] * 2,
        "module-lock": ["[0, 1, 2]"] * 2,
        "litestar": ["the same loop"] * 2,
        "socketio": ['42["said","one"]', '42["said","two"]'],
    }
    if name == "mcp":
        return all(json.loads(answer)["result"]["serverInfo"]["name"] == "empty" for answer in answers)
    if name == "channels":
        return all(answer.isdigit() for answer in answers)
    return answers == expected[name]


# The ways out


@pytest.fixture(scope="module")
def each_its_own() -> Iterator[TestServer]:
    """Two threads, and a factory."""
    with TestServer(create_app, factory=True, **TWO_THREADS) as server:
        yield server


@pytest.mark.parametrize("name", [name for name in APPS if name != "module-lock"])
def test_with_a_factory_each_worker_works(name: str, each_its_own: TestServer, upstream: str) -> None:
    assert worked(name, use(each_its_own, name, upstream))


@pytest.fixture(scope="module")
def in_processes() -> Iterator[TestServer]:
    """Two processes, and an object."""
    with TestServer("tests.frameworks.thread_apps:app", workers=2, worker_mode="process") as server:
        yield server


@pytest.mark.parametrize("name", APPS)
def test_in_processes_each_worker_works(name: str, in_processes: TestServer, upstream: str) -> None:
    assert worked(name, use(in_processes, name, upstream))


# The symptoms


def said(caplog: pytest.LogCaptureFixture) -> int:
    return sum("Several event loops" in record.getMessage() for record in caplog.records)


def test_session_in_the_state_of_one_application_belongs_to_one_of_the_loops(
    serve: Callable[..., TestServer], upstream: str, server_log: ServerLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = serve(create_app(("aiohttp", "channels")), **TWO_THREADS)
    for _ in range(2):
        answers = use(server, "aiohttp", upstream)
        assert sorted(answers) == ["500", "from upstream"]
    server.stop()
    assert len(server_log.take(2)) == 2
    assert said(caplog) == 1


@pytest.mark.parametrize("factory", [False, True], ids=["object", "factory"])
def test_lock_of_a_module_belongs_to_the_first_loop_that_waits_for_it(
    serve: Callable[..., TestServer],
    factory: bool,
    server_log: ServerLog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread_apps, "LOCK", asyncio.Lock())
    caplog.set_level(logging.WARNING)

    def create() -> Any:
        return create_app(("module-lock", "channels"))

    server = serve(create if factory else create(), factory=factory, **TWO_THREADS)
    assert sorted(use(server, "module-lock", "")) == ["500", "[0, 1, 2]"]
    server.stop()
    assert "different event loop" in server_log.take(1)[0]
    assert said(caplog) == 1


def test_session_manager_of_mcp_runs_once_for_one_application(serve: Callable[..., TestServer]) -> None:
    with pytest.raises(LifespanError, match="once per instance") as raised:
        serve(create_app(("mcp", "channels")), **TWO_THREADS)
    assert "--factory" in (raised.value.hint or "")
    assert "--worker-mode process" in (raised.value.hint or "")


# What one loop has left open at the end belongs to the other.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_events_of_one_litestar_application_are_handled_on_one_of_the_loops(
    serve: Callable[..., TestServer], server_log: ServerLog
) -> None:
    server = serve(create_app(("litestar", "channels")), **TWO_THREADS)
    assert sorted(use(server, "litestar", "")) == ["another loop", "the same loop"]
    server.stop()
    # At the end the second worker may find what the first has left.
    server_log.take()


def test_channels_has_one_layer_for_a_process_whoever_makes_the_application(
    each_its_own: TestServer, in_processes: TestServer
) -> None:
    assert len(set(use(each_its_own, "channels", ""))) == 1


def test_a_message_of_socketio_reaches_the_clients_of_its_worker(each_its_own: TestServer) -> None:
    url = each_its_own.url.replace("http", "ws", 1) + "/socketio/?EIO=4&transport=websocket"
    with ExitStack() as stack:
        sockets = [stack.enter_context(websockets.sync.client.connect(url)) for _ in range(4)]
        for ws in sockets:
            ws.recv(PATIENCE)
            ws.send("40")
            ws.recv(PATIENCE)
        # Each says its number; whoever heard another's is at the same worker.
        heard: list[set[str]] = [set() for _ in sockets]
        for number, ws in enumerate(sockets):
            ws.send(f'42["say","{number}"]')
            while str(number) not in heard[number]:
                heard[number].add(json.loads(str(ws.recv(PATIENCE))[2:])[1])
        assert all(len(each) < 4 for each in heard)
