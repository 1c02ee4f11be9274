"""The kits catch what they are there to catch; the test servers start, stop and report."""

import asyncio
import socket
from typing import Any

import h11
import pytest

from pounce import BadRequest, ConfigError, LifespanError
from pounce.contract.head import RequestHead
from pounce.h1.h11_parser import H11Parser
from pounce.h1.plugin import create_h11
from pounce.h1.plugin import plugin as h1
from pounce.plugin import EndOfBody, ParserLimits
from pounce.testing import MemoryConnection, RoundRobinTestProxy, TestServer, check_parser, check_wire, serve

REQUESTS = [
    b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
]


def test_wire_of_the_core_keeps_the_contract() -> None:
    check_wire(h1.wires[0], REQUESTS)


# Parsers that are too lax


class H11Alone:
    """h11 without the guard in front of it."""

    def __init__(self, limits: ParserLimits) -> None:
        self._h11 = h11.Connection(h11.SERVER)
        self._in_body = False
        self._rest = 0

    def receive_data(self, data: bytes) -> None:
        self._h11.receive_data(data)

    def next_event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as exc:
                raise BadRequest(str(exc), status=exc.error_status_hint) from exc
            if event in (h11.NEED_DATA, h11.PAUSED):
                return None
            if isinstance(event, h11.Request):
                chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
                length = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
                self._in_body = chunked or bool(length)
                return RequestHead(
                    event.method, event.target, list(event.headers), event.http_version.decode(),
                    content_length=None if chunked else length,
                )  # fmt: skip
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if self._in_body:
                return EndOfBody(list(event.headers) or None)

    def take_rest(self) -> bytes:
        return b""

    @property
    def buffered(self) -> int:
        return 0


class RefusesNothing(H11Parser):
    def next_event(self) -> Any:
        try:
            return super().next_event()
        except BadRequest:
            return None


class SaysAlways400(H11Parser):
    def next_event(self) -> Any:
        try:
            return super().next_event()
        except BadRequest as exc:
            raise BadRequest(exc.message) from exc


class JudgesByTheFirstPiece(H11Parser):
    """Refuses what does not come in one piece."""

    def receive_data(self, data: bytes) -> None:
        if self.buffered and len(data) == 1:
            data = b"\0"
        super().receive_data(data)


class TakesHalfABodyForAWhole(H11Parser):
    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is bytes and len(event) == 4:
            self._remaining = 0
        return event


class KeepsUpperCase(H11Parser):
    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, RequestHead):
            event.headers = [(name.upper(), value) for name, value in event.headers]
        return event


class SwallowsTheNextRequest(H11Parser):
    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, RequestHead) and event.content_length == 0:
            self._buffer.clear()
        return event


LAX_PARSERS = [
    H11Alone, RefusesNothing, SaysAlways400, JudgesByTheFirstPiece, TakesHalfABodyForAWhole, KeepsUpperCase,
    SwallowsTheNextRequest,
]  # fmt: skip


@pytest.mark.parametrize("parser", LAX_PARSERS)
def test_check_parser_catches_a_parser_that(parser: Any) -> None:
    with pytest.raises(AssertionError):
        check_parser(parser)


def test_parser_of_the_core_passes() -> None:
    assert check_parser(create_h11) > 1000


# MemoryConnection


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def test_memory_connection_is_a_client_in_memory() -> None:
    async def test() -> None:
        connection = MemoryConnection(app)
        connection.feed(REQUESTS[0])
        assert connection.received.endswith(b"\r\n\r\nhello")
        connection.after(1000)
        assert (connection.ended, connection.closed) == (True, False)
        connection.feed_eof()
        await connection.wait_until(lambda: connection.closed)

    asyncio.run(test())


# Servers


def get(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), 5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
        return data


def test_server_runs_within_its_context() -> None:
    with TestServer(app) as server:
        assert server.is_running
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert get(server.host, server.port).endswith(b"hello")
    assert not server.is_running


def test_servers_run_beside_each_other() -> None:
    with TestServer(app) as one, TestServer(app) as two:
        assert one.port != two.port
        assert get(one.host, one.port).endswith(b"hello")
        assert get(two.host, two.port).endswith(b"hello")


def test_server_that_cannot_start_raises_where_it_was_started() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no")

    server = TestServer(fails)
    with pytest.raises(LifespanError):
        server.start()
    assert not server.is_running


def test_server_that_takes_too_long_is_given_up() -> None:
    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.Event().wait()

    server = TestServer(hangs)
    with pytest.raises(TimeoutError):
        server.start(timeout=0.1)


def test_server_starts_once() -> None:
    with TestServer(app) as server, pytest.raises(RuntimeError):
        server.start()


def test_server_that_was_never_started_can_be_stopped() -> None:
    TestServer(app).stop()


def test_server_that_was_never_started_has_no_address() -> None:
    with pytest.raises(RuntimeError):
        TestServer(app).port  # noqa: B018


def test_settings_are_those_of_the_configuration() -> None:
    with pytest.raises(ConfigError):
        TestServer(app, prot=1)


def test_server_is_an_async_context_manager() -> None:
    async def test() -> None:
        async with TestServer(app) as server:
            assert (await asyncio.to_thread(get, server.host, server.port)).endswith(b"hello")

    asyncio.run(test())


def test_serve_runs_on_the_loop_of_the_test() -> None:
    loops: list[Any] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await app(scope, receive, send)

    async def test() -> None:
        async with serve(notes) as info:
            host, _, port = info.urls[0].removeprefix("http://").rpartition(":")
            assert (await asyncio.to_thread(get, host, int(port))).endswith(b"hello")
        assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(test())


def test_serve_raises_what_keeps_it_from_starting() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no")

    async def test() -> None:
        with pytest.raises(LifespanError):
            async with serve(fails):
                raise AssertionError("reached")

    asyncio.run(test())


def test_serve_that_is_cancelled_while_it_starts_leaves_nothing_behind() -> None:
    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.Event().wait()

    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), serve(hangs):
                raise AssertionError("reached")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(test())


def test_proxy_leads_each_connection_to_the_next_server_and_stays_with_it() -> None:
    def naming(name: bytes) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
                await send({"type": "http.response.body", "body": name})

        return app

    with (
        TestServer(naming(b"a")) as one,
        TestServer(naming(b"b")) as two,
        RoundRobinTestProxy([one, two]) as proxy,
        socket.create_connection((proxy.host, proxy.port), 60) as first,
        socket.create_connection((proxy.host, proxy.port), 60) as second,
    ):
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"
        assert proxy.is_running
        names = []
        for client in (first, second, first, second):
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            data = b""
            while not data.endswith((b"\r\n\r\na", b"\r\n\r\nb")):
                data += client.recv(65536)
            names.append(data[-1:])
        assert sorted(names[:2]) == [b"a", b"b"]
        assert names[2:] == names[:2]
        assert get(proxy.host, proxy.port)[-1:] == b"a"
    assert not proxy.is_running


def test_proxy_needs_servers_that_run() -> None:
    with pytest.raises(ValueError, match="needs servers"):
        RoundRobinTestProxy([])
    with pytest.raises(RuntimeError):
        RoundRobinTestProxy([TestServer(app)]).start()


def test_fixture_starts_servers(pounce_server: Any) -> None:
    one, two = pounce_server(app), pounce_server(app, server_header="two")
    assert b"server: pounce" in get(one.host, one.port)
    assert b"server: two" in get(two.host, two.port)
