"""RFC 9114 4.1 to 4.3: which messages are requests."""

import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.conformance.client import Headers
from tests.conformance.h3 import H3Client, literal_section
from tests.conformance.wires import Started, answer, read_body

from pounce_h3.codes import (
    H3_CLOSED_CRITICAL_STREAM,
    H3_FRAME_ERROR,
    H3_FRAME_UNEXPECTED,
    H3_ID_ERROR,
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_MISSING_SETTINGS,
    H3_REQUEST_INCOMPLETE,
    H3_SETTINGS_ERROR,
    H3_STREAM_CREATION_ERROR,
    QPACK_DECODER_STREAM_ERROR,
    QPACK_DECOMPRESSION_FAILED,
    QPACK_ENCODER_STREAM_ERROR,
)
from pounce_h3.frames import frame, varint

Start = Callable[..., Started]

METHOD, SCHEME, AUTHORITY, PATH = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
)
GOOD = [METHOD, SCHEME, AUTHORITY, PATH]


class App:
    """Answers with what it was asked, and knows how often."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/fail":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("on purpose")
        await answer(send, await read_body(receive))


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def client(start: Start, app: App) -> H3Client:
    connected = start(app).connect()
    assert isinstance(connected, H3Client)
    return connected


def headers_frame(fields: Headers) -> bytes:
    return frame(1, literal_section(list(fields)))


MALFORMED = {
    "upper-case name": [*GOOD, (b"X-Name", b"1")],
    "name that is no token": [*GOOD, (b"x name", b"1")],
    "no name": [*GOOD, (b"", b"1")],
    "no method": [SCHEME, AUTHORITY, PATH],
    "method that is no token": [(b":method", b"G T"), SCHEME, AUTHORITY, PATH],
    "no scheme": [METHOD, AUTHORITY, PATH],
    "unknown scheme": [METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH],
    "no path": [METHOD, SCHEME, AUTHORITY],
    "empty path": [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
    "path without a slash": [METHOD, SCHEME, AUTHORITY, (b":path", b"a")],
    "path with a blank": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a b")],
    "path beyond ASCII": [METHOD, SCHEME, AUTHORITY, (b":path", b"/\xc3\xa9")],
    "path with a fragment": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")],
    "asterisk with GET": [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
    "no authority": [METHOD, SCHEME, PATH],
    "empty authority": [METHOD, SCHEME, (b":authority", b""), PATH],
    "authority with userinfo": [METHOD, SCHEME, (b":authority", b"me@example.org"), PATH],
    "authority that differs from host": [*GOOD, (b"host", b"example.net")],
    "host twice": [METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a")],
    "method twice": [METHOD, *GOOD],
    "unknown pseudo-header": [*GOOD, (b":status", b"200")],
    "pseudo-header behind a field": [METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH],
    "pseudo-header behind host": [METHOD, SCHEME, (b"host", b"example.org"), PATH],
    "protocol without CONNECT": [*GOOD, (b":protocol", b"websocket")],
    "CONNECT with a path": [(b":method", b"CONNECT"), AUTHORITY, PATH],
    "connection": [*GOOD, (b"connection", b"close")],
    "keep-alive": [*GOOD, (b"keep-alive", b"timeout=5")],
    "proxy-connection": [*GOOD, (b"proxy-connection", b"close")],
    "transfer-encoding": [*GOOD, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GOOD, (b"upgrade", b"websocket")],
    "te": [*GOOD, (b"te", b"gzip")],
    "line feed in a value": [*GOOD, (b"x-a", b"1\nx-b: 2")],
    "carriage return in a value": [*GOOD, (b"x-a", b"1\r2")],
    "NUL in a value": [*GOOD, (b"x-a", b"1\x002")],
    "blank before a value": [*GOOD, (b"x-a", b" 1")],
    "blank after a value": [*GOOD, (b"x-a", b"1 ")],
    "content-length twice": [*GOOD, (b"content-length", b"0"), (b"content-length", b"0")],
    "content-length that is no number": [*GOOD, (b"content-length", b"+1")],
    "body shorter than content-length": [*GOOD, (b"content-length", b"1")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_a_stream_error(client: H3Client, app: App, fields: Headers) -> None:
    assert client.raw(headers_frame(fields), True).reset() == H3_MESSAGE_ERROR
    assert app.scopes == []


def test_malformed_request_costs_no_other(client: H3Client) -> None:
    client.raw(headers_frame([METHOD]), True).reset()
    assert client.request("GET", "/").status == 200


@pytest.mark.parametrize("length", [b"3", b"5"])
def test_body_of_another_length_than_announced_is_a_stream_error(client: H3Client, length: bytes) -> None:
    request = client.raw(headers_frame([*GOOD, (b"content-length", length)]) + frame(0, b"four"), True)
    assert request.reset() == H3_MESSAGE_ERROR


@pytest.mark.parametrize("field", [(b":path", b"/"), (b"content-length", b"1"), (b"X-A", b"1"), (b"host", b"a")])
def test_bad_trailer_is_a_stream_error(client: H3Client, field: tuple[bytes, bytes]) -> None:
    data = headers_frame(GOOD) + frame(0, b"body") + headers_frame([field])
    assert client.raw(data, True).reset() == H3_MESSAGE_ERROR


def test_stream_that_ends_without_a_request(client: H3Client) -> None:
    assert client.raw(frame(0x21, b"grease"), True).reset() == H3_REQUEST_INCOMPLETE


def test_host_takes_the_place_of_authority(client: H3Client, app: App) -> None:
    client.raw(headers_frame([METHOD, SCHEME, PATH, (b"host", b"example.net")]), True).response()
    assert app.scopes[0]["headers"] == [(b"host", b"example.net")]


def test_cookies_are_joined(client: H3Client, app: App) -> None:
    client.request("GET", "/", [(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2")])
    assert (b"cookie", b"a=1; b=2") in app.scopes[0]["headers"]


def test_every_split_of_a_request_means_the_same(client: H3Client) -> None:
    data = headers_frame([(b":method", b"POST"), SCHEME, AUTHORITY, PATH])
    data += frame(0, b"one") + frame(0x21, b"grease") + frame(0, b"") + frame(0, b"two") + headers_frame([(b"x", b"1")])
    for at in range(1, len(data), 3):
        request = client.raw(data[:at])
        request.send_raw(data[at:], True)
        assert request.response().body == b"onetwo", at


def test_bytes_one_by_one_mean_the_same(client: H3Client) -> None:
    data = headers_frame([(b":method", b"POST"), SCHEME, AUTHORITY, PATH]) + frame(0, b"body")
    request = client.raw(data[:1])
    for at in range(1, len(data)):
        request.send_raw(data[at : at + 1], at == len(data) - 1)
    assert request.response().body == b"body"


def test_too_many_fields_are_answered_431(client: H3Client, app: App) -> None:
    response = client.request("GET", "/", [(b"x-%d" % n, b"1") for n in range(101)])
    assert (response.status, app.scopes) == (431, [])


def test_cookies_are_counted_before_they_are_joined(client: H3Client) -> None:
    assert client.request("GET", "/", [(b"cookie", b"a")] * 101).status == 431


@pytest.mark.parametrize("size", [66_000, 1_000_000])
def test_fields_that_are_too_large_are_answered_431(client: H3Client, size: int) -> None:
    request = client.raw(headers_frame([*GOOD, (b"x-a", b"a" * size)]), True)
    assert request.response().status == 431


def test_connection_goes_on_after_fields_that_are_too_large(client: H3Client) -> None:
    client.raw(headers_frame([*GOOD, (b"x-a", b"a" * 300_000)]), True).response()
    assert client.request("GET", "/").status == 200


def test_too_many_trailers_never_reach_the_application(client: H3Client) -> None:
    trailers = headers_frame([(b"x-%d" % n, b"1") for n in range(101)])
    response = client.raw(headers_frame(GOOD) + frame(0, b"body") + trailers, True).response()
    assert response.status == 431


def test_unknown_expectation_is_answered_417(client: H3Client) -> None:
    assert client.request("GET", "/", [(b"expect", b"tea")]).status == 417


def test_connect_is_answered_501(client: H3Client) -> None:
    assert client.raw(headers_frame([(b":method", b"CONNECT"), AUTHORITY])).response().status == 501


def test_failure_in_mid_answer_breaks_its_stream_alone(client: H3Client) -> None:
    assert client.open("GET", "/fail").reset() == H3_INTERNAL_ERROR
    assert client.request("GET", "/").status == 200


CONNECTION_ERRORS = {
    "DATA before HEADERS": (frame(0, b"x"), H3_FRAME_UNEXPECTED),
    "SETTINGS on a request stream": (frame(4, b""), H3_FRAME_UNEXPECTED),
    "GOAWAY on a request stream": (frame(7, b"\0"), H3_FRAME_UNEXPECTED),
    "PUSH_PROMISE": (headers_frame(GOOD) + frame(5, b"\0"), H3_FRAME_UNEXPECTED),
    "frame of HTTP/2": (frame(2, b""), H3_FRAME_UNEXPECTED),
    "third HEADERS": (headers_frame(GOOD) + headers_frame([(b"x", b"1")]) * 2, H3_FRAME_UNEXPECTED),
    "DATA after trailers": (headers_frame(GOOD) + headers_frame([(b"x", b"1")]) + frame(0, b"x"), H3_FRAME_UNEXPECTED),
    "empty field section": (frame(1, b""), QPACK_DECOMPRESSION_FAILED),
    "static index that is none": (frame(1, b"\0\0\xff\x24"), QPACK_DECOMPRESSION_FAILED),
    "name of a static index that is none": (frame(1, b"\0\0\x5f\x54\0"), QPACK_DECOMPRESSION_FAILED),
    "dynamic index without entries": (frame(1, b"\0\0\x80"), QPACK_DECOMPRESSION_FAILED),
    "index behind the base without entries": (frame(1, b"\0\0\x10"), QPACK_DECOMPRESSION_FAILED),
    "field line that is cut off": (frame(1, b"\0\0\x23ab"), QPACK_DECOMPRESSION_FAILED),
    "end inside a frame": (headers_frame(GOOD) + frame(0, b"four")[:-1], H3_FRAME_ERROR),
    "end inside a frame's head": (headers_frame(GOOD) + b"\0\x40", H3_FRAME_ERROR),
}


@pytest.mark.parametrize(("data", "code"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS)
def test_frame_out_of_place_is_a_connection_error(client: H3Client, data: bytes, code: int) -> None:
    client.raw(data, True)
    assert client.close_code() == code


UNIDIRECTIONAL = {
    "second control stream": (varint(0) + frame(4, b""), False, H3_STREAM_CREATION_ERROR),
    "second encoder stream": (varint(2), False, H3_STREAM_CREATION_ERROR),
    "push stream": (varint(1), False, H3_STREAM_CREATION_ERROR),
}


@pytest.mark.parametrize(("data", "end", "code"), UNIDIRECTIONAL.values(), ids=UNIDIRECTIONAL)
def test_stream_that_must_not_be(client: H3Client, data: bytes, end: bool, code: int) -> None:
    client.request("GET", "/")
    client.raw_unidirectional(data, end)
    assert client.close_code() == code


CONTROL = {
    "DATA": (frame(0, b""), H3_FRAME_UNEXPECTED),
    "HEADERS": (frame(1, b""), H3_FRAME_UNEXPECTED),
    "second SETTINGS": (frame(4, b""), H3_FRAME_UNEXPECTED),
    "CANCEL_PUSH": (frame(3, b"\0"), H3_ID_ERROR),
    "GOAWAY that is no integer": (frame(7, b""), H3_FRAME_ERROR),
    "PRIORITY_UPDATE of what is no request": (frame(0xF0700, b"\x03u=1"), H3_ID_ERROR),
    "PRIORITY_UPDATE of a push": (frame(0xF0701, b"\0u=1"), H3_ID_ERROR),
    "MAX_PUSH_ID that shrinks": (frame(0xD, b"\x05") + frame(0xD, b"\x04"), H3_ID_ERROR),
    "MAX_PUSH_ID with more behind it": (frame(0xD, b"\x05\x05"), H3_FRAME_ERROR),
    "GOAWAY that grows": (frame(7, b"\x04") + frame(7, b"\x05"), H3_ID_ERROR),
    "CANCEL_PUSH that is cut off": (frame(3, b"\x40"), H3_FRAME_ERROR),
}


@pytest.mark.parametrize(("data", "code"), CONTROL.values(), ids=CONTROL)
def test_frame_that_must_not_be_on_the_control_stream(client: H3Client, data: bytes, code: int) -> None:
    control = client.h3._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, data)
    assert client.close_code() == code


@pytest.mark.parametrize("kind", ["_local_control_stream_id", "_local_encoder_stream_id", "_local_decoder_stream_id"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_critical_stream_must_not_end(client: H3Client, kind: str, how: str) -> None:
    stream_id = getattr(client.h3, kind)
    client.request("GET", "/")
    if how == "end":
        client.quic.send_stream_data(stream_id, b"", True)
    else:
        client.quic.reset_stream(stream_id, 0)
    assert client.close_code() == H3_CLOSED_CRITICAL_STREAM


class Silent(H3Client):
    """Sends nothing of its own on the control stream."""

    first = b""

    def flush(self) -> None:
        if hasattr(self, "h3") and not self.connected:
            writes = self.quic._pre_handshake_writes
            control = self.h3._local_control_stream_id
            kept = [write for write in writes if write[0] != control]
            if len(kept) != len(writes):
                assert control is not None
                writes[:] = [(control, varint(0) + self.first, False), *kept]
        super().flush()


SETTINGS = {
    "repeated": (frame(4, b"\x01\x00\x01\x00"), H3_SETTINGS_ERROR),
    "of HTTP/2": (frame(4, b"\x02\x00"), H3_SETTINGS_ERROR),
    "reserved": (frame(4, b"\x00\x00"), H3_SETTINGS_ERROR),
    "cut off": (frame(4, b"\x01"), H3_FRAME_ERROR),
    "not first": (frame(7, b"\0"), H3_MISSING_SETTINGS),
    "neither 0 nor 1": (frame(4, b"\x08\x02"), H3_SETTINGS_ERROR),
}


@pytest.mark.parametrize(("first", "code"), SETTINGS.values(), ids=SETTINGS)
def test_bad_settings_are_a_connection_error(start: Start, app: App, first: bytes, code: int) -> None:
    server = start(app)
    with type("Client", (Silent,), {"first": first})(
        server.server.host, server.server.port, server.certificate.certfile
    ) as client:
        assert client.close_code() == code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("_local_encoder_stream_id", QPACK_ENCODER_STREAM_ERROR),
        ("_local_decoder_stream_id", QPACK_DECODER_STREAM_ERROR),
    ],
)
def test_bad_table_instruction_is_a_connection_error(client: H3Client, kind: str, code: int) -> None:
    client.request("GET", "/")
    client.quic.send_stream_data(getattr(client.h3, kind), b"\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" * 4)
    assert client.close_code() == code


def test_unknown_streams_and_frames_are_ignored(client: H3Client) -> None:
    client.raw_unidirectional(varint(0x21) + b"grease")
    control = client.h3._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, frame(0x21, b"g" * 5000))
    assert client.request("GET", "/").status == 200


def test_push_ids_may_be_repeated(client: H3Client) -> None:
    control = client.h3._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, (frame(0xD, b"\x20") + frame(7, b"\x04")) * 2 + frame(7, b"\x03"))
    assert client.request("GET", "/").status == 200


# Field sections that wait for the table (RFC 9204 2.1.2)


INSERT_PATH = b"\x3f\xe1\x1f" + b"\xc1\x05/late"
"""A table of 4096 bytes, and in it the path /late."""
BLOCKED = frame(1, b"\2\0" + b"\xd4\xd7" + b"\x50\1a" + b"\x80")
"""POST, https, the authority a, and the first entry of the table."""
INSERT_TRAILER = b"\x43x-t\1y"
BLOCKED_TRAILER = frame(1, b"\3\0" + b"\x80")


class Deaf:
    """In place of the client's encoder, which does not know what the tests have encoded."""

    def apply_settings(self, **settings: int) -> bytes:
        return b""

    def feed_decoder(self, data: bytes) -> None: ...


@pytest.fixture
def deaf(client: H3Client) -> H3Client:
    client.h3._encoder = cast(Any, Deaf())
    return client


def instruct(client: H3Client, instructions: bytes) -> None:
    stream_id = client.h3._local_encoder_stream_id
    assert stream_id is not None
    client.quic.send_stream_data(stream_id, instructions)
    client.wait_until(lambda: client.quic.get_send_buffer_size() == 0)


def test_request_waits_for_the_table(deaf: H3Client, app: App) -> None:
    request = deaf.raw(BLOCKED + frame(0, b"body"), True)
    instruct(deaf, INSERT_PATH)
    assert request.response().body == b"body"
    assert app.scopes[0]["path"] == "/late"


def test_trailers_wait_for_the_table_after_the_head_has(deaf: H3Client) -> None:
    request = deaf.raw(BLOCKED + frame(0, b"body") + BLOCKED_TRAILER, True)
    instruct(deaf, INSERT_PATH)
    instruct(deaf, INSERT_TRAILER)
    assert request.response().body == b"body"


def test_request_that_waited_too_long_never_reaches_the_application(start: Start, app: App) -> None:
    client = start(app, header_timeout=0.3).connect()
    assert isinstance(client, H3Client)
    client.h3._encoder = cast(Any, Deaf())
    request = client.raw(BLOCKED)
    assert request.response().status == 408
    instruct(client, INSERT_PATH)
    assert client.raw(headers_frame(GOOD), True).response().status == 200
    assert [scope["path"] for scope in app.scopes] == ["/"]


def test_giving_up_requests_that_wait_for_the_table_costs_no_other(deaf: H3Client) -> None:
    for _ in range(2):
        for _ in range(12):
            request = deaf.raw(BLOCKED)
            request.abort()
    assert deaf.raw(headers_frame(GOOD), True).response().status == 200


def test_client_ends_although_its_timer_is_due(client: H3Client) -> None:
    client.raw(headers_frame([*GOOD, (b"x-a", b"a" * 300_000)]), True)
    while (client.quic.get_timer() or 0.0) > time.monotonic():
        pass
    client.close()
    assert client.sock.fileno() == -1
