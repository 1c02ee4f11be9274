"""`Upgrade: h2c` (RFC 7540 3.2): a request of HTTP/1.1 that becomes stream 1 of HTTP/2, or is answered as it came."""

import asyncio
import base64
from typing import Any

import pytest
from h2_peer import Peer, answer, hang, in_loop, request, say

from pounce.exchange.service import Service
from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce_h2.frames import ACK, PREFACE, SETTING, ErrorCode, Kind, Setting, frame, settings_frame
from pounce_h2.plugin import plugin

BEGIN = PREFACE + settings_frame({}) + frame(Kind.SETTINGS, ACK, 0)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: Upgrade\r\n\r\n"


def encoded(settings: dict[int, int]) -> bytes:
    payload = b"".join(SETTING.pack(*item) for item in settings.items())
    return base64.urlsafe_b64encode(payload).rstrip(b"=")


def h2c(
    *fields: bytes,
    line: bytes = b"GET /path?q HTTP/1.1",
    connection: bytes = b"Upgrade, HTTP2-Settings",
    settings: bytes | None = b"",
) -> bytes:
    """A request that asks for the change."""
    own = [b"Host: example.org", b"Connection: " + connection, b"Upgrade: h2c"]
    if settings is not None:
        own.append(b"HTTP2-Settings: " + settings)
    return b"\r\n".join((line, *own, *fields, b"", b""))


class UpgradePeer(Peer):
    """A client that begins in HTTP/1.1; once `switched()`, its frames are read as those of other peers."""

    def __init__(self, app: Any, *, upgrade: bool = True, service: Service | None = None, **config: Any) -> None:
        config = {"date_header": False, "server_header": "", "plugin_settings": {"h2": {"upgrade": upgrade}}} | config
        MemoryConnection.__init__(self, app, registry=Registry.of(h1, plugin), service=service, **config)
        self._switched = False

    def switched(self) -> bool:
        """The server has changed to HTTP/2."""
        at = self.received.find(SWITCHED)
        if at >= 0 and not self._switched:
            self._switched = True
            self.expect_frames(at + len(SWITCHED))
        return self._switched


async def settled(peer: UpgradePeer, data: bytes) -> UpgradePeer:
    peer.feed(data)
    await peer.settle()
    return peer


@in_loop
async def test_request_is_answered_on_stream_1() -> None:
    peer = await settled(UpgradePeer(answer), h2c())
    assert peer.switched()
    first, *_ = peer.take_frames()
    # RFC 7540 3.2: "The first HTTP/2 frame sent by the server MUST be a server connection preface"
    assert (first.kind, first.flags) == (Kind.SETTINGS, 0)
    assert peer.head(1)[b":status"] == b"200"
    assert (peer.body(1), peer.ended(1)) == (b"/path", True)
    await settled(peer, BEGIN)
    peer.headers(3, request(path=b"/next"))
    await peer.settle()
    assert (peer.body(3), peer.failed) == (b"/next", None)


@in_loop
async def test_application_sees_the_request_without_what_asked_for_the_change() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await say(send)

    await settled(UpgradePeer(app), h2c(b"X-A: 1"))
    (scope,) = scopes
    assert (scope["http_version"], scope["method"], scope["path"], scope["query_string"]) == ("2", "GET", "/path", b"q")
    assert scope["headers"] == [(b"host", b"example.org"), (b"x-a", b"1")]
    assert scope["client"] == ("192.0.2.1", 50000)


@in_loop
async def test_every_split_means_the_same() -> None:
    data = h2c() + BEGIN
    service = UpgradePeer(answer).service
    for at in range(1, len(data)):
        peer = UpgradePeer(None, service=service)
        peer.feed(data[:at])
        peer.feed(data[at:])
        await peer.wait_until(lambda peer=peer: peer.switched() and peer.ended(1))
        assert (peer.body(1), peer.failed) == (b"/path", None), at
        peer.lose()


@in_loop
async def test_bytes_one_by_one_mean_the_same() -> None:
    peer = UpgradePeer(answer)
    for octet in h2c() + BEGIN:
        peer.feed(bytes((octet,)))
    await peer.settle()
    assert peer.switched()
    assert (peer.body(1), peer.failed) == (b"/path", None)


@in_loop
async def test_settings_hold_before_the_preface() -> None:
    settings = encoded({Setting.INITIAL_WINDOW_SIZE: 3})
    peer = await settled(UpgradePeer(answer), h2c(settings=settings))
    assert peer.switched()
    assert peer.body(1) == b"/pa"
    await settled(peer, BEGIN)
    assert peer.body(1) == b"/pa"
    peer.open_window(1, 10)
    await peer.settle()
    assert (peer.body(1), peer.ended(1)) == (b"/path", True)


@in_loop
async def test_settings_of_the_request_are_not_acknowledged() -> None:
    # RFC 7540 3.2.1: "explicit acknowledgement of these SETTINGS parameters is not necessary"
    peer = await settled(UpgradePeer(answer), h2c(settings=encoded({Setting.HEADER_TABLE_SIZE: 0})))
    assert peer.switched()
    assert [found.flags for found in peer.of(Kind.SETTINGS)] == [0]
    await settled(peer, BEGIN)
    assert [found.flags for found in peer.of(Kind.SETTINGS)] == [0, ACK]


@in_loop
async def test_head_is_answered_without_a_body() -> None:
    peer = await settled(UpgradePeer(answer), h2c(line=b"HEAD / HTTP/1.1"))
    assert peer.switched()
    assert (peer.body(1), peer.head(1)[b"content-length"], peer.ended(1)) == (b"", b"1", True)


@in_loop
async def test_target_in_absolute_form() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await say(send)

    peer = await settled(UpgradePeer(app), h2c(line=b"GET http://example.org/x HTTP/1.1"))
    assert (peer.switched(), seen) == (True, ["/x"])


@in_loop
async def test_earlier_requests_of_the_connection_are_answered_first() -> None:
    peer = await settled(UpgradePeer(answer), b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n" + h2c() + BEGIN)
    first, _, rest = peer.received.partition(b"\r\n\r\n/first")
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert (rest.startswith(SWITCHED), peer.switched()) == (True, True)
    assert (peer.body(1), peer.failed) == (b"/path", None)


# What is answered over HTTP/1.1

IGNORED = {
    "no HTTP2-Settings": h2c(settings=None),
    "HTTP2-Settings twice": h2c(b"HTTP2-Settings: "),
    "HTTP2-Settings that is no connection option": h2c(connection=b"Upgrade"),
    "a connection option that only looks like it": h2c(connection=b"Upgrade, HTTP2-Settings-x"),
    "Upgrade that is no connection option": h2c(connection=b"HTTP2-Settings"),
    "padding": h2c(settings=encoded({1: 0, 3: 100, 4: 1}) + b"="),
    "the other alphabet": h2c(settings=base64.b64encode(SETTING.pack(3, 0xFFBEFBEF)).rstrip(b"=")),
    "characters of no alphabet": h2c(settings=b"AAMAAABk!!!!"),
    "one character too many": h2c(settings=b"AAMAAABkA"),
    "no multiple of six octets": h2c(settings=base64.urlsafe_b64encode(b"\0\3\0\0\0").rstrip(b"=")),
    "a window above 2^31-1": h2c(settings=encoded({Setting.INITIAL_WINDOW_SIZE: 2**31})),
    "a frame size below the least": h2c(settings=encoded({Setting.MAX_FRAME_SIZE: 1})),
    "ENABLE_PUSH of 2": h2c(settings=encoded({Setting.ENABLE_PUSH: 2})),
    "Connection: close": h2c(connection=b"Upgrade, HTTP2-Settings, close"),
    "HTTP/1.0": h2c(line=b"GET /path?q HTTP/1.0", connection=b"Upgrade, HTTP2-Settings, keep-alive"),
    "a body": h2c(b"Content-Length: 4") + b"body",
    "a chunked body": h2c(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "h2, which is for TLS": h2c().replace(b"Upgrade: h2c", b"Upgrade: h2"),
}


@pytest.mark.parametrize("what", IGNORED)
@in_loop
async def test_request_that_is_not_as_it_must_be_is_answered_over_http_1(what: str) -> None:
    peer = await settled(UpgradePeer(answer), IGNORED[what])
    head, _, body = peer.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"/path"


@in_loop
async def test_field_is_ignored_without_the_setting() -> None:
    peer = await settled(UpgradePeer(answer, upgrade=False), h2c() + h2c(line=b"GET /second HTTP/1.1"))
    assert peer.received.count(b"HTTP/1.1 200 OK") == 2
    assert b"101" not in peer.received


@in_loop
async def test_field_is_ignored_over_tls() -> None:
    peer = UpgradePeer(answer)
    # Read when the connection is made.
    peer.protocol._scheme = "https"
    await settled(peer, h2c())
    assert peer.received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_setting_is_off_unless_asked_for() -> None:
    assert plugin.settings is not None
    assert plugin.settings().upgrade is False


# Abuse


@pytest.mark.parametrize(
    "behind", [b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", bytes(24), b"PRI * HTTP/1.1\r\n\r\n" * 2]
)
@in_loop
async def test_what_follows_the_request_is_nothing_but_http_2(behind: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await say(send)

    peer = await settled(UpgradePeer(app), h2c() + behind)
    assert peer.switched()
    assert peer.failed is ErrorCode.PROTOCOL_ERROR
    assert seen == ["/path"]


@in_loop
async def test_stream_1_is_half_closed() -> None:
    peer = await settled(UpgradePeer(hang), h2c() + BEGIN)
    assert peer.switched()
    peer.data(1, b"x")
    assert peer.resets(1) == [ErrorCode.STREAM_CLOSED]


@in_loop
async def test_stream_1_cannot_be_opened_again() -> None:
    peer = await settled(UpgradePeer(answer), h2c() + BEGIN)
    assert peer.switched()
    peer.headers(1)
    assert peer.failed is ErrorCode.STREAM_CLOSED


@in_loop
async def test_stream_1_can_be_reset() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    peer = await settled(UpgradePeer(app), h2c() + BEGIN)
    assert peer.switched()
    peer.send(Kind.RST_STREAM, 0, 1, bytes(4))
    await asyncio.wait_for(ended.wait(), 60)


@in_loop
async def test_client_that_never_sends_its_preface_is_given_up() -> None:
    peer = await settled(UpgradePeer(answer, keep_alive_timeout=5.0), h2c())
    assert peer.switched()
    peer.after(6)
    await peer.settle()
    assert peer.goaways() == [(1, ErrorCode.NO_ERROR)]
    assert peer.transport.ended


@in_loop
async def test_client_that_leaves_is_noticed() -> None:
    peer = await settled(UpgradePeer(hang), h2c())
    assert len(peer.service.connections) == 1
    peer.lose()
    await peer.settle()
    assert (peer.service.connections, peer.service.tasks) == (set(), {})


@in_loop
async def test_last_request_of_a_connection_is_answered_over_http_1() -> None:
    peer = await settled(UpgradePeer(answer, max_requests_per_connection=1), h2c())
    assert peer.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in peer.received


# Drain


@in_loop
async def test_drain_before_the_preface_lets_the_request_finish() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await say(send, b"done")

    peer = await settled(UpgradePeer(app), h2c())
    assert peer.switched()
    (connection,) = peer.service.connections
    peer.service.draining = True
    connection.drain()
    await peer.settle()
    assert peer.goaways() == [(1, ErrorCode.NO_ERROR)]
    await settled(peer, BEGIN)
    go_on.set()
    await peer.settle()
    assert (peer.body(1), peer.transport.ended, peer.failed) == (b"done", True, None)
