"""What a wire raises costs the connection it was raised on, whichever event it was: the log names the wire, the client
sees a break, the application is told, and the end of the server waits for nothing."""

import logging
import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from pounce import ClientGone
from pounce.h1.connection import H1Connection
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin, Responder, Service, Upgrade, Wire
from pounce.registry import Registry
from pounce.testing import TestServer

PATIENCE = 20.0
MUCH = bytes(16_000_000)
"""More than the kernel takes for a client that does not read."""

HOLD = b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
MUCH_WANTED = b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n"

EVENTS = {
    "connection_made": b"",
    "data_received": HOLD,
    "eof_received": HOLD,
    "connection_lost": HOLD,
    "deadline_passed": HOLD,
    "write_deadline_passed": HOLD,
    "next_turn": HOLD,
    "pause_writing": MUCH_WANTED,
    "resume_writing": MUCH_WANTED,
}
"""Events of a connection, and the request during which they come."""


class App:
    """Notes how its clients leave."""

    def __init__(self) -> None:
        self.began: queue.Queue[str] = queue.Queue()
        self.ended: queue.Queue[str] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.began.put(scope["path"])
        if scope["path"] == "/hold":
            while (message := await receive())["type"] != "http.disconnect":
                assert message["more_body"]
            self.ended.put("http.disconnect")
            return
        await send({"type": "http.response.start", "status": 200})
        try:
            while scope["path"] == "/much":
                await send({"type": "http.response.body", "body": MUCH, "more_body": True})
        except ClientGone:
            self.ended.put("ClientGone")
            raise
        await send({"type": "http.response.body", "body": b"well"})


def failing(event: str, more: tuple[str, ...] = ()) -> Wire:
    """HTTP/1.1 that raises in one event, and in the methods `more`."""

    def fail(self: Any, *args: object) -> None:
        raise ValueError("the wire is broken")

    def data_received(self: Any, data: bytes) -> None:
        if b"x" in data:
            if event == "next_turn":
                self.share.left = 0
                self.park()
            elif event == "data_received":
                fail(self)
            else:
                setattr(self, event.removesuffix("_passed"), 0.0)
        else:
            H1Connection.data_received(self, data)

    methods: dict[str, Any] = {"__slots__": (), **dict.fromkeys((event, *more), fail)}
    if event in ("data_received", "next_turn", "deadline_passed", "write_deadline_passed"):
        methods["data_received"] = data_received
    kind = type("Broken", (H1Connection,), methods)

    def connect(service: Service) -> Any:
        protocol = kind(service)
        protocol.wire = name
        return protocol

    name = "-".join((event, *more)).replace("_", "-")
    return Wire(name=name, connect=connect)


def respond(head: Any) -> None:
    if head.target == b"/respond":
        raise ValueError("the responder is broken")


def open_upgrade(service: Service, head: Any, stream: Any) -> Any:
    raise ValueError("the upgrade is broken")


BROKEN = Plugin(
    name="broken",
    api=API_VERSION,
    wires=(*map(failing, EVENTS), failing("data_received", ("abort",)), failing("drain"), failing("close")),
    upgrades=(Upgrade(token=b"broken", open=open_upgrade),),
    responders=(Responder(name="respond", create=lambda service: respond),),
)


class Running:
    def __init__(self, app: App, server: TestServer) -> None:
        self.app = app
        self.server = server

    def connect(self, wire: str = "http") -> socket.socket:
        (url,) = (url for url in self.server.info.urls if url.startswith(f"{wire}://"))
        return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), PATIENCE)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    app = App()
    binds = ["127.0.0.1:0", *(f"{wire.name}://127.0.0.1:0" for wire in BROKEN.wires)]
    # Whatever is left at the end would be waited for.
    server = TestServer(app, registry=Registry.of(h1, BROKEN), bind=binds, shutdown_timeout=600, loop=request.param)
    server.start()
    yield Running(app, server)
    server.stop(timeout=PATIENCE)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(1_000_000):
            data += piece
    except ConnectionError:
        pass
    return data


def wait_for(true: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("event", EVENTS)
def test_event_that_raises_costs_its_connection_and_the_application_is_told(
    running: Running, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = event.replace("_", "-")
    request = EVENTS[event]
    with suppress(ConnectionError), running.connect(name) as client:
        client.sendall(request)
        if event == "connection_lost":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if request:
            running.app.began.get(timeout=PATIENCE)
            client.sendall(b"x") if request is HOLD and event not in ("eof_received", "connection_lost") else None
        if event == "eof_received":
            client.shutdown(socket.SHUT_WR)
        if event != "connection_lost":
            read_all(client)
    if request:
        told = running.app.ended.get(timeout=PATIENCE)
        assert told == ("http.disconnect" if request is HOLD else "ClientGone")
    if event == "connection_made":
        # A client may be reset before it knows that it is connected.
        wait_for(lambda: failures(caplog))
    what = "to take" if event == "connection_made" else "on"
    assert failures(caplog) == [f"Plugin {name} failed {what} a connection"]
    assert str(caplog.records[-1].exc_info[1]) == "the wire is broken"  # type: ignore[index]


def test_connection_that_cannot_even_be_aborted_ends(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect("data-received-abort") as client:
        client.sendall(HOLD)
        running.app.began.get(timeout=PATIENCE)
        client.sendall(b"x")
        assert read_all(client) == b""
    assert running.app.ended.get(timeout=PATIENCE) == "http.disconnect"
    name = "data-received-abort"
    assert failures(caplog) == [
        f"Plugin {name} failed on a connection",
        f"Plugin {name} failed on the end of a connection",
    ]


def test_responder_that_raises_is_answered_500_and_blamed(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as client:
        client.sendall(b"GET /respond HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"POUNCE_PLUGIN_FAILED" in answer
    assert failures(caplog) == ["Responder respond failed"]


def test_upgrade_that_raises_is_broken_off_and_blamed(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: broken\r\n\r\n")
        assert read_all(client) == b""
    assert failures(caplog) == ["Upgrade broken failed"]


@pytest.mark.parametrize("event", ["drain", "close", "connection_lost"])
def test_nothing_waits_for_a_connection_that_raises_while_the_server_ends(event: str) -> None:
    app = App()
    wire = failing(event)
    registry = Registry.of(h1, Plugin(name="broken", api=API_VERSION, wires=(wire,)))
    server = TestServer(app, registry=registry, bind=[f"{wire.name}://127.0.0.1:0"], shutdown_timeout=600)
    server.start()
    with running_client(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.stop(timeout=PATIENCE)


def running_client(server: TestServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)
