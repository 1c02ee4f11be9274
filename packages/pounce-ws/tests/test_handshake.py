"""The opening handshake (RFC 6455 4.2): who is let in, who is not, and how the application says so."""

import asyncio
import logging
from typing import Any

import pytest
from peer import ACCEPT, KEY, App, Echo, Peer, chosen, in_loop, masked, opened

from pounce.errors import AppError
from pounce.h1.plugin import plugin as h1
from pounce.lifecycle import BufferedCollector
from pounce.observe.events_plugin import plugin as events_plugin
from pounce.registry import Registry
from pounce_ws.plugin import plugin as ws


@in_loop
async def test_accepted_handshake() -> None:
    answer = await Peer(App()).open()
    assert answer[b"upgrade"] == b"websocket"
    assert answer[b"connection"] == b"Upgrade"
    assert answer[b"sec-websocket-accept"] == ACCEPT
    assert answer.all(b"sec-websocket-protocol") == answer.all(b"sec-websocket-extensions") == []


REFUSED = {
    "version missing": ((b"sec-websocket-version", b""), 400, "POUNCE_WS_BAD_VERSION"),
    "version 8": ((b"sec-websocket-version", b"8"), 426, "POUNCE_WS_BAD_VERSION"),
    "version 13 twice": (
        (b"sec-websocket-version", b"13\r\nsec-websocket-version: 13"),
        400,
        "POUNCE_WS_DUPLICATE_FIELD",
    ),
    "key missing": ((b"sec-websocket-key", b""), 400, "POUNCE_WS_BAD_KEY"),
    "key of 15 bytes": ((b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAA"), 400, "POUNCE_WS_BAD_KEY"),
    "key of 17 bytes": ((b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAAA="), 400, "POUNCE_WS_BAD_KEY"),
    "key not base64": ((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25j!Q=="), 400, "POUNCE_WS_BAD_KEY"),
    "key not ASCII": ((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25j\xe9Q=="), 400, "POUNCE_WS_BAD_KEY"),
    "two keys": ((b"sec-websocket-key", KEY + b"\r\nsec-websocket-key: " + KEY), 400, "POUNCE_WS_DUPLICATE_FIELD"),
    "subprotocol not ASCII": ((b"sec-websocket-protocol", b"chat, \xe9"), 400, "POUNCE_WS_BAD_SUBPROTOCOL"),
    "subprotocol with a blank": ((b"sec-websocket-protocol", b"chat room"), 400, "POUNCE_WS_BAD_SUBPROTOCOL"),
    "subprotocol twice": ((b"sec-websocket-protocol", b"chat, chat"), 400, "POUNCE_WS_BAD_SUBPROTOCOL"),
    "extension malformed": ((b"sec-websocket-extensions", b"permessage-deflate; ="), 400, "POUNCE_WS_BAD_EXTENSIONS"),
    "extension not ASCII": ((b"sec-websocket-extensions", b"\xe9"), 400, "POUNCE_WS_BAD_EXTENSIONS"),
}


@pytest.mark.parametrize(("field", "status", "code"), REFUSED.values(), ids=REFUSED)
@in_loop
async def test_wrong_handshakes_are_refused_before_the_application(
    field: tuple[bytes, bytes], status: int, code: str
) -> None:
    app = App()
    peer = Peer(app)
    answer = await peer.handshake(field)
    assert (answer.status, answer[b"x-pounce-error-code"].decode()) == (status, code)
    assert app.scope is None
    # The connection can still be used.
    peer.connection.transport.received.clear()
    assert (await peer.handshake()).status == 101


@in_loop
async def test_426_names_the_version_and_the_protocol() -> None:
    answer = await Peer(App()).handshake((b"sec-websocket-version", b"7"))
    assert answer[b"sec-websocket-version"] == b"13"
    assert answer[b"upgrade"] == b"websocket"


@in_loop
async def test_other_methods_are_refused() -> None:
    answer = await Peer(App()).handshake(method=b"POST")
    assert answer.status == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"https://example.org", 101),
        (b"HTTPS://EXAMPLE.org", 101),
        (b"", 101),
        (b"https://example.org.evil.example", 403),
        (b"https://example.org:8443", 403),
        (b"http://example.org", 403),
        (b"null", 403),
        (b"\xff\xe9", 403),
    ],
)
@in_loop
async def test_only_pages_of_listed_origins_may_connect(origin: bytes, status: int) -> None:
    peer = Peer(App(), websocket_origins=["https://example.org", "https://other.example"])
    assert (await peer.handshake((b"origin", origin))).status == status


@in_loop
async def test_scope() -> None:
    app = App()
    peer = Peer(app, root_path="/api")
    await peer.open((b"sec-websocket-protocol", b"chat, superchat"), path=b"/room%20%C3%BC?who=me")
    scope = app.scope
    assert {key: scope[key] for key in ("type", "scheme", "http_version", "path", "root_path", "query_string")} == {
        "type": "websocket",
        "scheme": "ws",
        "http_version": "1.1",
        "path": "/api/room ü",
        "root_path": "/api",
        "query_string": b"who=me",
    }
    assert scope["subprotocols"] == ["chat", "superchat"]
    assert "method" not in scope
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert {"websocket.http.response", "pounce.worker"} <= scope["extensions"].keys()
    assert not any(name.startswith("http.") for name in scope["extensions"])
    assert (b"sec-websocket-version", b"13") in scope["headers"]


@in_loop
async def test_scheme_is_wss_over_tls() -> None:
    app = App()
    peer = Peer(app)
    protocol: Any = peer.connection.protocol
    protocol.connection.scheme = protocol._scheme = "https"
    await peer.open()
    assert app.scope["scheme"] == "wss"


@in_loop
async def test_headers_of_the_application_are_sent() -> None:
    cookies = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-more", b"yes")]
    answer = await Peer(App(headers=cookies)).open()
    assert answer.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert answer[b"x-more"] == b"yes"
    assert answer[b"server"] == b"pounce"
    assert len(answer.all(b"date")) == 1


@in_loop
async def test_subprotocol_is_chosen_from_the_offer() -> None:
    answer = await Peer(App(subprotocol="b")).open((b"sec-websocket-protocol", b"a,b , c"))
    assert answer[b"sec-websocket-protocol"] == b"b"


@pytest.mark.parametrize(
    "accept",
    [
        {"subprotocol": "d"},
        {"subprotocol": "é"},
        {"headers": [(b"sec-websocket-protocol", b"a")]},
        {"headers": [(b"Sec-WebSocket-Extensions", b"x")]},
        {"headers": [(b"connection", b"close")]},
        {"headers": [(b"x", b"a\r\nset-cookie: b")]},
    ],
    ids=str,
)
@in_loop
async def test_what_may_not_be_accepted_is_an_error_of_the_application(
    accept: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(**accept)
    answer = await Peer(app).handshake((b"sec-websocket-protocol", b"a, b"))
    assert answer.status == 500
    assert isinstance(app.error, AppError)


# Denial


def answers(*messages: dict[str, Any], then: Any = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        for message in messages:
            await send(message)
        if then is not None:
            await then(receive, send)

    return app


@in_loop
async def test_close_before_accept_is_403() -> None:
    peer = Peer(answers({"type": "websocket.close", "code": 4000}))
    assert (await peer.handshake()).status == 403


@in_loop
async def test_denial_response_has_status_headers_and_body_of_the_application() -> None:
    peer = Peer(
        answers(
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]},
            {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"are you?"},
        )
    )
    answer = await peer.handshake()
    await peer.settle()
    assert (answer.status, answer[b"www-authenticate"]) == (401, b"Basic")
    assert b"who " in peer.connection.received
    assert peer.connection.received.endswith(b"are you?\r\n0\r\n\r\n")
    # The next request of the connection may be accepted.
    peer.service.app = Echo()
    peer.connection.transport.received.clear()
    await peer.open()


@in_loop
async def test_head_of_a_denial_leaves_though_its_body_is_late() -> None:
    async def wait(receive: Any, send: Any) -> None:
        await receive()
        await receive()

    peer = Peer(answers({"type": "websocket.http.response.start", "status": 404}, then=wait))
    answered = asyncio.ensure_future(peer.handshake())
    await peer.settle()
    assert peer.connection.received == b""
    peer.service.tick(0.0)
    assert (await answered).status == 404
    peer.connection.lose()


@in_loop
async def test_application_that_waits_after_a_denial_is_told_the_end_once() -> None:
    told: list[Any] = []

    async def wait(receive: Any, send: Any) -> None:
        told.append(await receive())

    peer = Peer(
        answers(
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.http.response.body", "body": b""},
            then=wait,
        )
    )
    await peer.handshake()
    await peer.settle()
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@in_loop
async def test_message_after_a_denial_is_out_of_order() -> None:
    raised: list[BaseException] = []

    async def more(receive: Any, send: Any) -> None:
        try:
            await send({"type": "websocket.accept"})
        except AppError as exc:
            raised.append(exc)

    peer = Peer(answers({"type": "websocket.close"}, then=more))
    assert (await peer.handshake()).status == 403
    assert len(raised) == 1


@in_loop
async def test_application_that_raises_in_a_denial_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(receive: Any, send: Any) -> None:
        raise RuntimeError("on purpose")

    peer = Peer(answers({"type": "websocket.http.response.start", "status": 200}, then=fail))
    assert (await peer.handshake()).status == 500


@pytest.mark.parametrize("fails", [False, True])
@in_loop
async def test_application_that_neither_accepts_nor_denies_is_500(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if fails:
            raise RuntimeError("on purpose")

    assert (await Peer(app).handshake()).status == 500
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("how", ["lose", "feed_eof"])
@in_loop
async def test_client_that_goes_before_the_answer_is_a_disconnect(how: str) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.extend([await receive(), await receive()])

    peer = Peer(app)
    waiting = asyncio.ensure_future(peer.handshake())
    await peer.settle()
    getattr(peer.connection, how)()
    await peer.settle()
    waiting.cancel()
    assert [message["type"] for message in told] == ["websocket.connect", "websocket.disconnect"]
    assert peer.connection.closed


# Observed


@in_loop
async def test_answer_has_the_id_that_the_application_is_told_accepted_or_not() -> None:
    app = App()
    answer = await Peer(app, request_id=True).open()
    assert answer[b"x-request-id"].decode() == app.scope["extensions"]["request_id"]
    refused = await Peer(App(), request_id=True).handshake((b"sec-websocket-version", b"1"))
    assert len(refused[b"x-request-id"]) == 32
    own = App(headers=[(b"x-request-id", b"own")])
    assert (await Peer(own, request_id=True).open()).all(b"x-request-id") == [b"own"]


@in_loop
async def test_access_log_has_a_line_for_the_handshake_and_one_for_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    peer = Peer(Echo(), access_log=True)
    await peer.open(path=b"/chat")
    (first,) = [record.getMessage() for record in caplog.records]
    assert '"GET /chat HTTP/1.1" 101 0 ' in first
    peer.send(masked(1, b"hello"), masked(8, b"\x03\xe9"))
    await peer.settle()
    second = caplog.records[-1].getMessage()
    assert '"GET /chat HTTP/1.1" 101 11 ' in second
    assert second.endswith("(closed 1001)")
    assert len(caplog.records) == 2


@in_loop
async def test_access_log_has_one_line_for_a_handshake_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    await Peer(App(), access_log=True).handshake((b"sec-websocket-version", b"1"))
    (record,) = caplog.records
    assert " 426 " in record.getMessage()
    assert "closed" not in record.getMessage()


@in_loop
async def test_connections_messages_and_bytes_are_counted() -> None:
    peer = await opened(Echo())
    data = masked(1, b"hello") + masked(9, b"ping")
    peer.send(data)
    await peer.next(2)
    peer.connection.after(0)
    counts = peer.service.counts
    assert {name: counts[name] for name in counts if name.startswith("websocket")} == {
        "websocket_connections": 1,
        "websocket_messages_received": 1,
        "websocket_messages_sent": 1,
        "websocket_bytes_received": len(data),
        "websocket_bytes_sent": 13,
    }
    assert peer.service.gauges["websocket_open"] == 1
    peer.connection.lose()
    await peer.settle()
    peer.connection.after(0)
    assert (peer.service.gauges["websocket_open"], counts["websocket_messages_received"]) == (0, 1)


@in_loop
async def test_a_client_that_leaves_before_it_is_accepted_is_a_request_for_collectors() -> None:
    events = BufferedCollector()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    registry = Registry.of(h1, ws, events_plugin)
    peer = Peer(app, registry=registry, lifecycle_collector=events)
    waiting = asyncio.ensure_future(peer.handshake())
    await peer.connection.wait_until(lambda: bool(peer.service.tasks))
    peer.connection.lose()
    await peer.settle()
    waiting.cancel()
    kinds = [type(event).__name__ for event in events.flush()]
    assert kinds == [
        "ConnectionOpened",
        "RequestStarted",
        "ClientDisconnected",
        "ResponseCompleted",
        "ConnectionCompleted",
    ]


def limited(peer: Peer) -> Any:
    """The places of its server."""
    return peer.service.concurrency.gate  # type: ignore[union-attr]


@in_loop
async def test_websocket_has_a_place_among_the_requests_while_it_is_open_where_that_is_asked_for(wire: str) -> None:
    peer = await opened(Echo(), limit_concurrency=1, limit_concurrency_websockets=True)
    assert limited(peer).running == 1
    peer.connection.lose()
    await peer.connection.wait_until(lambda: limited(peer).running == 0)


@in_loop
async def test_websocket_for_which_there_is_no_place_is_told_to_come_again(wire: str) -> None:
    app = App()
    peer = chosen[0](app, limit_concurrency=1, limit_concurrency_websockets=True)
    assert limited(peer).enter()
    answer = await peer.handshake()
    assert (answer.status, answer[b"x-pounce-error-code"]) == (503, b"POUNCE_LIMIT_REQUESTS")
    assert answer[b"retry-after"] == b"5"
    assert app.scope is None


@in_loop
async def test_websocket_needs_no_place_by_itself(wire: str) -> None:
    peer = await opened(Echo(), limit_concurrency=1)
    assert limited(peer).running == 0
