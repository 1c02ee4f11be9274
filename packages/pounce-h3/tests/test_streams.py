"""What happens on request streams besides messages: flow control, priorities, tunnels, the end of a connection."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.clock import HeldLoop
from tests.conformance.client import PATIENCE, Broken
from tests.conformance.h3 import H3Client, literal_section
from tests.conformance.wires import Started, answer, read_body

from pounce.errors import ClientGone
from pounce.plugin import API_VERSION, Headers, Plugin, RequestHead, Service, Stream, Upgrade
from pounce.registry import Registry
from pounce_h3.codes import H3_FRAME_UNEXPECTED, H3_INTERNAL_ERROR, H3_NO_ERROR, H3_REQUEST_REJECTED
from pounce_h3.frames import frame
from pounce_h3.qh3_engine import CONNECTION_WINDOW, STREAM_WINDOW
from pounce_h3.windows import HOLD_MAX

from .endpoints import endpoint_of

Start = Callable[..., Started]


class Gate:
    """An application that goes on when the test says so."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._open: asyncio.Event | None = None

    async def wait(self, path: str) -> None:
        self.loop = asyncio.get_running_loop()
        self._open = asyncio.Event()
        self.begun.put(path)
        await asyncio.wait_for(self._open.wait(), PATIENCE)

    def open(self) -> None:
        assert self.loop is not None and self._open is not None
        self.loop.call_soon_threadsafe(self._open.set)


def connect(server: Started) -> H3Client:
    client = server.connect()
    assert isinstance(client, H3Client)
    return client


# Flow control


def test_upload_that_nobody_reads_is_held_up(start: Start) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait(scope["path"])
        await answer(send, b"%d" % len(await read_body(receive)))

    client = connect(start(app))
    request = client.open("POST", "/", body=True)
    size = 8 * 1024 * 1024
    client.h3.send_data(request.id, b"x" * size, True)
    assert gate.begun.get(timeout=PATIENCE) == "/"
    client.wait_until(lambda: size - client.quic.get_send_buffer_size(request.id) >= HOLD_MAX)
    with pytest.raises(TimeoutError):
        client.wait_until(lambda: client.quic.get_send_buffer_size(request.id) == 0, 0.5)
    assert size - client.quic.get_send_buffer_size(request.id) <= HOLD_MAX + CONNECTION_WINDOW + STREAM_WINDOW
    gate.open()
    assert request.response().body == b"%d" % size


def test_upload_is_not_hurried_while_others_hold_up_the_connection(start: Start) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await cast(HeldLoop, asyncio.get_running_loop()).advance(17.0)
        if scope["path"] == "/slow":
            await gate.wait(scope["path"])
        await answer(send, b"%d" % len(await read_body(receive)))

    # The idle timeout of the client, which counts for both, is 20 s.
    settings = {"request_timeout": 15.0, "min_body_rate": 0}
    server = start(app, loop="tests.clock:HeldLoop", **settings)
    client = connect(server)
    quick = client.open("POST", "/quick", body=True)
    quick.send_body(b"x")
    slow = client.open("POST", "/slow", body=True)
    client.h3.send_data(slow.id, b"x" * 8 * HOLD_MAX, True)
    assert gate.begun.get(timeout=PATIENCE) == "/slow"
    endpoint = endpoint_of(server)
    client.wait_until(lambda: any(each.windows.is_shut for each in tuple(endpoint._open)))
    assert connect(server).request("GET", "/later").body == b"0"
    assert not quick.events
    gate.open()
    quick.send_body(b"y")
    quick.end()
    assert quick.response().body == b"2"


def test_request_beside_an_unread_upload_is_served(start: Start) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await gate.wait(scope["path"])
            await read_body(receive)
        await answer(send, scope["path"].encode())

    client = connect(start(app))
    slow = client.open("POST", "/slow", body=True)
    slow.send_body(b"x" * STREAM_WINDOW)
    slow.end()
    assert client.request("GET", "/quick").body == b"/quick"
    gate.open()
    assert slow.response().body == b"/slow"


def test_answer_waits_for_a_client_that_does_not_read(start: Start) -> None:
    sent: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for n in range(256):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent.put(n)
        await send({"type": "http.response.body"})

    server = start(app)
    with H3Client(
        server.server.host, server.server.port, server.certificate.certfile, max_data=65536, max_stream_data=65536
    ) as connected:
        request = connected.open("GET", "/")
        # Nobody reads the socket now.
        with pytest.raises(queue.Empty):
            for _ in range(3):
                sent.get(timeout=0.3)
        assert len(request.response().body) == 256 * 65536


def test_answer_before_the_end_of_the_upload(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"enough")

    client = connect(start(app))
    request = client.open("POST", "/", body=True)
    request.send_raw(frame(0, b"x"))
    assert request.response().body == b"enough"
    client.wait_until(lambda: not client.quic._stream_can_send(request.id))


def test_application_hears_that_its_request_was_given_up(start: Start) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        told.put((await receive())["type"])
        with pytest.raises(ClientGone):
            await send({"type": "http.response.body", "body": b"x"})
        told.put("refused")

    client = connect(start(app))
    request = client.open("GET", "/")
    assert request.read_piece() == b"x"
    request.abort()
    client.wait_until(lambda: told.qsize() == 2)
    assert (told.get(), told.get()) == ("http.disconnect", "refused")


def test_requests_may_arrive_out_of_order(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["path"].encode())

    client = connect(start(app))
    first, second = client.quic.get_next_available_stream_id(), client.quic.get_next_available_stream_id() + 4
    requests = [client.later(stream_id, f"/{stream_id}") for stream_id in (second, first)]
    assert [request.response().body for request in requests] == [b"/%d" % second, b"/%d" % first]


# Priorities (RFC 9218)


async def megabyte(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x" * 1_048_576)


def order_of_ends(client: H3Client, *requests: Any) -> list[int]:
    """Ids in the order in which their answers end."""
    ended: list[int] = []
    while len(ended) < len(requests):
        client.wait_until(lambda: any(request.events for request in requests))
        for request in requests:
            while request.events:
                if getattr(request.events.popleft(), "stream_ended", False):
                    ended.append(request.id)
    return ended


def test_urgent_answer_overtakes(start: Start) -> None:
    client = connect(start(megabyte))
    first = client.open("GET", "/", [(b"priority", b"u=6")])
    second = client.open("GET", "/", [(b"priority", b"u=1")])
    assert order_of_ends(client, first, second) == [second.id, first.id]


def test_priority_can_be_updated(start: Start) -> None:
    client = connect(start(megabyte))
    control = client.h3._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, frame(0xF0700, b"\x04u=0"))
    client.wait_until(lambda: client.quic.get_send_buffer_size(control) == 0)
    first, second = client.open("GET", "/"), client.open("GET", "/")
    assert order_of_ends(client, first, second) == [second.id, first.id]


def test_answers_of_one_urgency_leave_in_their_order(start: Start) -> None:
    client = connect(start(megabyte))
    first, second = client.open("GET", "/"), client.open("GET", "/")
    assert order_of_ends(client, first, second) == [first.id, second.id]


def test_answer_knows_better_than_its_client_how_urgent_it_is(start: Start) -> None:
    """RFC 9218 8: and what lies between may go by it as well."""

    async def ranked(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 1_000_000, headers=[(b"priority", scope["path"][1:].encode())])

    client = connect(start(ranked))
    first, second = client.open("GET", "/u=6", [(b"priority", b"u=0")]), client.open("GET", "/u=1")
    assert order_of_ends(client, first, second) == [second.id, first.id]
    assert client.request("GET", "/u=5").headers[b"priority"] == b"u=5"


# Extended CONNECT (RFC 9220)


class Echo:
    """An exchange that sends back what comes through its tunnel."""

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.stream = stream
        stream.tunnel([(b"x-head", head.target)])

    def data_received(self, data: bytes) -> None:
        self.stream.write(data.upper(), True)
        self.stream.consumed(len(data))

    def eof_received(self, trailers: Headers | None = None) -> None:
        self.stream.write(b"bye", False)

    def half_closed(self) -> None: ...

    def resume_writing(self) -> None: ...

    def stream_lost(self, exc: Exception | None) -> None: ...


class Refusing(Echo):
    """An exchange that wants no tunnel."""

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.stream = stream
        stream.start(403, [], b"no", False)


class Failing(Echo):
    """An exchange with an error in it."""

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("on purpose")


def registry(exchange: type[Echo]) -> Registry:
    from pounce.h1.plugin import plugin as h1
    from pounce_h3.plugin import plugin as h3

    upgrade = Upgrade(token=b"echo", open=exchange)
    return Registry.of(h1, h3, Plugin(name="echo", api=API_VERSION, upgrades=(upgrade,)))


def tunnel(client: H3Client, protocol: bytes = b"echo", early: bytes = b"") -> Any:
    request = client.open("CONNECT", "/chat", pseudo=[(b":protocol", protocol)], body=True)
    if early:
        request.send_body(early)
    return request


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


def test_extended_connect_is_offered(start: Start) -> None:
    client = connect(start(nothing))
    client.wait_until(lambda: client.h3.received_settings)
    assert client.h3.received_settings is not None
    assert client.h3.received_settings[8] == 1


def test_tunnel_carries_bytes_both_ways(start: Start) -> None:
    client = connect(start(nothing, registry=registry(Echo)))
    request = tunnel(client)
    head = request.read_head()
    assert (head.status, head.headers[b"x-head"]) == (200, b"/chat")
    request.send_body(b"abc")
    assert request.read_piece() == b"ABC"
    request.end()
    assert (request.read_piece(), request.read_piece()) == (b"bye", b"")


def test_bytes_that_come_before_the_tunnel_are_not_lost(start: Start) -> None:
    request = tunnel(connect(start(nothing, registry=registry(Echo))), early=b"abc")
    assert request.read_piece() == b"ABC"


def test_tunnel_has_no_trailers(start: Start) -> None:
    client = connect(start(nothing, registry=registry(Echo)))
    request = tunnel(client)
    request.read_head()
    request.send_raw(frame(1, literal_section([(b"x", b"1")])))
    assert client.close_code() == H3_FRAME_UNEXPECTED


def test_tunnel_may_be_refused(start: Start) -> None:
    response = tunnel(connect(start(nothing, registry=registry(Refusing)))).response()
    assert (response.status, response.body) == (403, b"no")


def test_unknown_protocol_is_answered_501(start: Start) -> None:
    response = tunnel(connect(start(nothing)), b"other").response()
    assert (response.status, dict(response.headers)[b"x-pounce-error-code"]) == (501, b"POUNCE_UNKNOWN_PROTOCOL")


def test_exception_in_a_plugin_costs_its_stream_and_no_other(start: Start, caplog: Any) -> None:
    client = connect(start(nothing, registry=registry(Failing)))
    request = tunnel(client)
    request.read_head()
    request.send_body(b"abc")
    assert request.reset() == H3_INTERNAL_ERROR
    assert client.request("GET", "/").status == 200
    assert "Plugin h3 failed on a stream" in caplog.text


def test_websocket_runs_unchanged(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "3", "wss")
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"].upper()})
        await receive()

    client = connect(start(app))
    request = client.open(
        "CONNECT", "/chat", [(b"sec-websocket-version", b"13")], pseudo=[(b":protocol", b"websocket")], body=True
    )
    assert request.read_head().status == 200
    mask = b"\1\2\3\4"
    request.send_body(b"\x81\x85" + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(b"hello")))
    assert request.read_piece() == b"\x81\x05HELLO"


# The end


def test_drain_names_the_end_and_serves_what_has_begun(start: Start) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait(scope["path"])
        await answer(send, b"done")

    server = start(app)
    client = connect(server)
    request = client.open("GET", "/")
    client.wait_until(lambda: not gate.begun.empty())
    server.server.shutdown()
    client.wait_until(lambda: client.goaway is not None)
    assert client.goaway == (1 << 62) - 4
    client.wait_until(lambda: client.goaway == 4)
    late = client.open("GET", "/late")
    assert late.reset() == H3_REQUEST_REJECTED
    gate.open()
    assert request.response().body == b"done"
    assert client.close_code() == H3_NO_ERROR


def test_answer_arrives_whole_before_the_connection_is_closed(start: Start) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait(scope["path"])
        await answer(send, b"x" * 10_000)

    server = start(app)
    with H3Client(server.server.host, server.server.port, server.certificate.certfile, max_stream_data=4096) as client:
        request = client.open("GET", "/")
        client.wait_until(lambda: not gate.begun.empty())
        server.server.shutdown()
        client.wait_until(lambda: client.goaway == 4)
        gate.open()
        assert len(request.response().body) == 10_000
        assert client.close_code() == H3_NO_ERROR


def test_peer_that_is_gone_holds_up_no_drain(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pounce_h3.ending.LINGER", 0.2)
    server = start(nothing)
    client = connect(server)
    client.sock.close()
    server.server.stop(timeout=PATIENCE)


def test_tunnel_whose_peer_ends_it_at_once_hears_of_it(start: Start) -> None:
    client = connect(start(nothing, registry=registry(Echo)))
    request = client.open("CONNECT", "/chat", pseudo=[(b":protocol", b"echo")])
    assert request.read_piece() == b"bye"


def test_request_on_its_way_when_a_drain_begins_is_served(start: Start) -> None:
    server = start(nothing)
    client = connect(server)
    server.server.shutdown()
    client.wait_until(lambda: client.goaway is not None)
    assert client.request("GET", "/").status == 200


def test_idle_connection_is_closed_in_a_drain(start: Start) -> None:
    server = start(nothing)
    client = connect(server)
    assert client.request("GET", "/").status == 200
    server.server.shutdown()
    assert client.close_code() == H3_NO_ERROR


def test_connection_ends_after_its_number_of_requests(start: Start) -> None:
    client = connect(start(nothing, max_requests_per_connection=2))
    assert [client.request("GET", "/").status for _ in range(2)] == [200, 200]
    assert client.close_code() == H3_NO_ERROR


def test_slow_head_is_answered_408(start: Start) -> None:
    client = connect(start(nothing, header_timeout=0.3))
    assert client.raw(b"\x01\x40").response().status == 408


def test_slow_body_is_answered_408(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_body(receive))

    client = connect(start(app, request_timeout=0.3))
    request = client.open("POST", "/", body=True)
    request.send_body(b"x")
    assert request.response().status == 408


def test_peer_that_takes_nothing_is_given_up(start: Start) -> None:
    lost = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except OSError:
            lost.set()

    server = start(app, write_timeout=0.3)
    client = connect(server)
    request = client.open("GET", "/")
    assert lost.wait(PATIENCE)
    with pytest.raises(Broken):
        while request.read_piece():
            pass


def test_silent_connection_ends(start: Start) -> None:
    client = connect(start(nothing, http3_idle_timeout=0.5))
    client.wait_until(lambda: client.terminated is not None)
