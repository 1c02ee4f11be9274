"""RFC 9110 7.8: a connection that goes over to another protocol, here one that is raw bytes both ways."""

import asyncio
import logging
from typing import Any

import pytest
from tests.conformance.rfc9112_support import Gated, Noting, Peer, connect, get, in_loop, parser, path_app, post

from pounce.contract.head import Headers, RequestHead
from pounce.contract.stream import Exchange, Stream
from pounce.exchange.service import Service
from pounce.plugin import API_VERSION, Plugin, Upgrade

__all__ = ["parser"]


class RawTunnel:
    """An exchange that accepts the upgrade and keeps what it is told."""

    def __init__(self, service: Service, head: RequestHead, stream: Stream, *, take: bool = True) -> None:
        stream.exchange = self
        self.head, self.stream, self.take = head, stream, take
        self.received = bytearray()
        self.ended = self.lost = False
        self.resumed = 0
        stream.tunnel([(b"x-tunnel", b"raw")])

    def data_received(self, data: bytes) -> None:
        assert data
        self.received += data
        if self.take:
            self.stream.consumed(len(data))

    def eof_received(self, trailers: Headers | None = None) -> None:
        self.ended = True

    def half_closed(self) -> None:
        raise AssertionError("a tunnel has no answer to wait for")

    def resume_writing(self) -> None:
        self.resumed += 1

    def stream_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Tunnels:
    """A plugin for the token `raw` that keeps its tunnels."""

    def __init__(self, *, take: bool = True) -> None:
        self.opened: list[RawTunnel] = []
        self._take = take
        self.plugin = Plugin(name="raw", api=API_VERSION, upgrades=(Upgrade(token=b"raw", open=self._open),))

    def _open(self, service: Service, head: RequestHead, stream: Stream) -> Exchange:
        self.opened.append(RawTunnel(service, head, stream, take=self._take))
        return self.opened[-1]


HANDSHAKE = get("/tunnel", "Connection: Upgrade", "Upgrade: raw")


async def opened(parser: str, *, take: bool = True, after: bytes = b"") -> tuple[Peer, RawTunnel]:
    """A connection that has just been upgraded; `after` comes with the handshake."""
    tunnels = Tunnels(take=take)
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(HANDSHAKE + after)
    await peer.settle()
    assert len(tunnels.opened) == 1
    return peer, tunnels.opened[0]


@in_loop
async def test_the_answer_to_an_upgrade_is_101_with_the_protocol(parser: str) -> None:
    peer, tunnel = await opened(parser)
    answer = await peer.answer()
    assert answer.status == 101
    assert answer.headers == {"upgrade": "raw", "connection": "Upgrade", "x-tunnel": "raw"}
    assert (tunnel.head.target, tunnel.head.upgrade) == (b"/tunnel", b"raw")


@pytest.mark.parametrize("connection", ["upgrade", "Upgrade", "keep-alive, Upgrade", "x,UPGRADE,y"])
@pytest.mark.parametrize("upgrade", ["raw", "RAW", "Raw"])
@in_loop
async def test_tokens_are_compared_without_case(connection: str, upgrade: str, parser: str) -> None:
    tunnels = Tunnels()
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(get("/", f"Connection: {connection}", f"Upgrade: {upgrade}"))
    assert (await peer.answer()).status == 101


@pytest.mark.parametrize(
    "request_",
    [
        get("/x", "Upgrade: raw"),
        get("/x", "Connection: upgrade"),
        get("/x", "Connection: upgrade", "Upgrade: unknown"),
        get("/x", "Connection: upgrade", "Upgrade: TLS/1.3"),
        get("/x", "Connection: upgrade", "Upgrade: raw", version="1.0"),
        get("/x", "Connection: upgraded", "Upgrade: raw"),
        get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ],
)
@in_loop
async def test_an_upgrade_that_is_not_known_or_not_asked_for_properly_is_ignored(request_: bytes, parser: str) -> None:
    tunnels = Tunnels()
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(request_)
    answer = await peer.answer()
    assert (answer.status, answer.body, tunnels.opened) == (200, b"/x", [])


@in_loop
async def test_the_body_of_a_request_is_not_taken_for_bytes_of_the_new_protocol(parser: str) -> None:
    """RFC 9110 7.8: the new protocol begins after the request message. One with a body is not upgraded."""
    tunnels = Tunnels()
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(post(b"body", "/x", "Connection: upgrade", "Upgrade: raw") + get("/y"))
    assert [(answer.status, answer.body) for answer in await peer.answers()] == [(200, b"/x"), (200, b"/y")]
    assert tunnels.opened == []


@in_loop
async def test_bytes_that_come_with_the_handshake_are_kept(parser: str) -> None:
    peer, tunnel = await opened(parser, after=b"early\r\n\r\nbytes")
    peer.feed(b" and late ones")
    await peer.settle()
    assert bytes(tunnel.received) == b"early\r\n\r\nbytes and late ones"


@in_loop
async def test_bytes_that_come_with_the_handshake_come_first(parser: str) -> None:
    tunnels = Tunnels()
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(HANDSHAKE + b"first ")
    peer.feed(b"second")
    await peer.settle()
    assert bytes(tunnels.opened[0].received) == b"first second"


@in_loop
async def test_bytes_that_come_with_the_handshake_come_before_the_end(parser: str) -> None:
    tunnels = Tunnels()
    peer = connect(path_app, parser, tunnels.plugin)
    peer.feed(HANDSHAKE + b"all")
    peer.feed_eof()
    await peer.settle()
    assert (bytes(tunnels.opened[0].received), tunnels.opened[0].ended) == (b"all", True)


@in_loop
async def test_nothing_in_a_tunnel_is_read_as_http(parser: str) -> None:
    peer, tunnel = await opened(parser)
    peer.feed(get("/smuggled"))
    peer.feed(b"\0\xff\n")
    await peer.settle()
    assert bytes(tunnel.received) == get("/smuggled") + b"\0\xff\n"


@in_loop
async def test_bytes_pass_both_ways_as_they_are(parser: str) -> None:
    peer, tunnel = await opened(parser)
    start = len(peer.received)
    for n in range(50):
        peer.feed(b"ping %d\n" % n)
        tunnel.stream.write(b"pong %d\n" % n, True)
    await peer.settle()
    assert bytes(tunnel.received) == b"".join(b"ping %d\n" % n for n in range(50))
    assert peer.received[start:] == b"".join(b"pong %d\n" % n for n in range(50))


@in_loop
async def test_the_end_of_the_tunnel_ends_the_connection_after_its_last_byte(parser: str) -> None:
    peer, tunnel = await opened(parser)
    tunnel.stream.write(b"bye", False)
    await peer.settle()
    assert peer.received.endswith(b"bye")
    assert peer.ended


@in_loop
async def test_a_tunnel_learns_of_an_end_that_came_while_an_earlier_request_was_served(parser: str) -> None:
    tunnels, app = Tunnels(), Gated()
    peer = connect(app, parser, tunnels.plugin)
    peer.feed(get("/first") + HANDSHAKE + b"raw")
    await peer.settle()
    peer.feed_eof()
    await peer.settle()
    app.open("/first")
    await peer.settle()
    assert (bytes(tunnels.opened[0].received), tunnels.opened[0].ended) == (b"raw", True)


@in_loop
async def test_the_peer_can_end_its_half_of_a_tunnel(parser: str) -> None:
    peer, tunnel = await opened(parser)
    peer.feed_eof()
    await peer.settle()
    assert tunnel.ended
    assert not peer.closed
    tunnel.stream.write(b"still here", False)
    await peer.settle()
    assert peer.received.endswith(b"still here")
    assert peer.closed


@in_loop
async def test_a_tunnel_is_told_that_its_peer_is_gone(parser: str) -> None:
    peer, tunnel = await opened(parser)
    peer.lose()
    await peer.settle()
    assert tunnel.lost
    assert not peer.service.connections


@in_loop
async def test_a_tunnel_outlives_the_deadlines_of_requests(parser: str) -> None:
    peer, tunnel = await opened(parser)
    peer.after(100_000.0)
    await peer.settle()
    peer.feed(b"still here")
    await peer.settle()
    assert bytes(tunnel.received) == b"still here"


@in_loop
async def test_a_tunnel_that_does_not_take_its_bytes_holds_the_peer_back(parser: str) -> None:
    peer, tunnel = await opened(parser, take=False)
    for _ in range(40):
        peer.feed(b"." * 10_000)
    await peer.settle()
    assert peer.paused
    held = len(tunnel.received)
    assert held < 200_000
    tunnel.take = True
    tunnel.stream.consumed(held)
    await peer.settle()
    assert len(tunnel.received) == 400_000
    assert not peer.paused


@in_loop
async def test_a_tunnel_is_told_when_its_peer_reads_slowly(parser: str) -> None:
    peer, tunnel = await opened(parser)
    assert tunnel.stream.writable
    peer.transport.stall()
    tunnel.stream.write(b"." * 100_000, True)
    assert not tunnel.stream.writable
    resumed = tunnel.resumed
    peer.transport.unstall()
    await peer.settle()
    assert tunnel.stream.writable
    assert tunnel.resumed == resumed + 1


@in_loop
async def test_a_peer_that_never_reads_its_tunnel_is_given_up(parser: str) -> None:
    peer, tunnel = await opened(parser)
    peer.transport.stall()
    tunnel.stream.write(b"." * 100_000, True)
    peer.after(29.0)
    assert not tunnel.lost
    peer.after(31.0)
    await peer.settle()
    assert tunnel.lost


@in_loop
async def test_an_upgrade_waits_for_the_answers_before_it(parser: str) -> None:
    app, tunnels = Gated(), Tunnels()
    peer = connect(app, parser, tunnels.plugin)
    peer.feed(get("/1") + HANDSHAKE + b"bytes")
    await peer.settle()
    assert tunnels.opened == []
    app.open("/1")
    answers = await peer.answers()
    assert [answer.status for answer in answers] == [200, 101]
    assert bytes(tunnels.opened[0].received) == b"bytes"


@pytest.mark.parametrize("behind", [b"", get("/1")], ids=["alone", "pipelined"])
@in_loop
async def test_an_upgrade_that_fails_ends_its_connection_and_no_other(
    behind: bytes, parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(service: Service, head: RequestHead, stream: Stream) -> Exchange:
        raise RuntimeError("broken on purpose")

    broken = Plugin(name="raw", api=API_VERSION, upgrades=(Upgrade(token=b"raw", open=fail),))
    app = Gated()
    peer = connect(app, parser, broken)
    peer.feed(behind + HANDSHAKE)
    app.open("/1")
    await peer.settle()
    assert peer.closed
    assert "broken on purpose" in caplog.text
    assert peer.service.counts["plugin_error"] == 1


@in_loop
async def test_a_tunnel_that_fails_on_the_bytes_of_the_handshake_ends_its_connection(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(RawTunnel):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("broken on purpose")

    broken = Plugin(name="raw", api=API_VERSION, upgrades=(Upgrade(token=b"raw", open=Failing),))
    peer = connect(path_app, parser, broken)
    peer.feed(HANDSHAKE + b"early")
    await peer.settle()
    assert peer.closed
    assert "broken on purpose" in caplog.text


# WebSocket without its plugin

WEBSOCKET = get(
    "/chat",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@in_loop
async def test_a_websocket_handshake_without_the_plugin_is_refused_with_one_line_in_the_log(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Noting()
    peer = connect(app, parser)
    with caplog.at_level(logging.INFO):
        peer.feed(WEBSOCKET)
        answer = await peer.answer()
        assert (answer.status, answer.headers["x-pounce-error-code"]) == (400, "POUNCE_WS_NOT_INSTALLED")
        peer.feed(WEBSOCKET)
        assert len(await peer.answers()) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "pip install pounce-ws" in caplog.text
    assert app.seen == []


@in_loop
async def test_a_426_answer_carries_its_upgrade_and_the_connection_option(parser: str) -> None:
    """RFC 9110 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option" """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        headers = [(b"upgrade", b"raw"), (b"connection", b"upgrade")]
        await send({"type": "http.response.start", "status": 426, "headers": headers})
        await send({"type": "http.response.body", "body": b"use raw"})

    peer = connect(app, parser)
    peer.feed(get() + get("/", "Connection: close"))
    kept, last = await peer.answers()
    assert (kept.status, kept.headers["upgrade"], kept.headers["connection"]) == (426, "raw", "upgrade")
    assert last.headers["upgrade"] == "raw"
    assert sorted(option.strip() for option in last.headers["connection"].split(",")) == ["close", "upgrade"]
