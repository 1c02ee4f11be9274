"""RFC 9113, rule by rule: which error what breaks it gets, and how far that error reaches."""

from typing import Any

import pytest
from h2_peer import GET, Peer, answer, echo, hang, in_loop, request, say
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import check_wire
from pounce_h2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    ErrorCode,
    Kind,
    Setting,
    frame,
    settings_frame,
)
from pounce_h2.plugin import plugin

PROTOCOL_ERROR, STREAM_CLOSED = ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED
FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.FLOW_CONTROL_ERROR
BLOCK = b"\x82\x86\x84\x01\x0bexample.org"
"""GET / without any indexing."""
POST = b"\x83\x86\x84\x01\x0bexample.org"
WHOLE = END_HEADERS | END_STREAM
START = PREFACE + settings_frame({})


def head(stream: int, block: bytes = BLOCK, flags: int = WHOLE) -> bytes:
    return frame(Kind.HEADERS, flags, stream, block)


def number(value: int) -> bytes:
    return value.to_bytes(4)


def setting(id: int, value: int) -> bytes:
    return frame(Kind.SETTINGS, 0, 0, id.to_bytes(2) + number(value))


# Connection errors

CONNECTION_ERRORS: dict[str, tuple[bytes, ErrorCode]] = {
    # 4.2
    "a frame above the maximum": (frame(Kind.DATA, 0, 1, bytes(16_385)), FRAME_SIZE_ERROR),
    "an unknown frame above the maximum": (frame(0x42, 0, 0, bytes(16_385)), FRAME_SIZE_ERROR),
    # 4.3, 6.10
    "a block that cannot be decoded": (head(1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "index 0": (head(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "an index that is not in the table": (head(1, b"\xbe"), ErrorCode.COMPRESSION_ERROR),
    "a block that ends in a string": (head(1, b"\x00\x05abc"), ErrorCode.COMPRESSION_ERROR),
    "a table larger than promised": (head(1, b"\x3f\xe2\x1f" + BLOCK), ErrorCode.COMPRESSION_ERROR),
    "a table update after a field": (head(1, b"\x82\x20"), ErrorCode.COMPRESSION_ERROR),
    "bad Huffman code": (head(1, b"\x00\x84\xff\xff\xff\xff\x00"), ErrorCode.COMPRESSION_ERROR),
    "Huffman code padded with zeros": (
        head(1, BLOCK + b"\x00\x01x\x83\x49\x50\x90"), ErrorCode.COMPRESSION_ERROR),
    "Huffman code with an octet of padding": (
        head(1, BLOCK + b"\x00\x01x\x84\x49\x50\x9f\xff"), ErrorCode.COMPRESSION_ERROR),
    "EOS inside a Huffman code": (
        head(1, BLOCK + b"\x00\x01x\x87\xff\xff\xff\xfd\x25\x42\x7f"), ErrorCode.COMPRESSION_ERROR),
    "a name that is not in the table": (head(1, BLOCK + b"\x7f\x80\x01\x01x"), ErrorCode.COMPRESSION_ERROR),
    "an integer of seven octets": (
        head(1, b"\xff\x80\x80\x80\x80\x80\x80" + BLOCK), ErrorCode.COMPRESSION_ERROR),
    "trailers that cannot be decoded": (
        head(1, POST, END_HEADERS) + head(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "a block that cannot be decoded, of a stream that was reset": (
        head(1, POST, END_HEADERS) + frame(Kind.RST_STREAM, 0, 1, number(8)) + head(1, b"\x80"),
        ErrorCode.COMPRESSION_ERROR),
    "another frame inside a block": (
        head(1, BLOCK, END_STREAM) + frame(Kind.PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
    "an unknown frame inside a block": (head(1, BLOCK, END_STREAM) + frame(0x42, 0, 0, b""), PROTOCOL_ERROR),
    "HEADERS inside a block": (head(1, BLOCK, END_STREAM) + head(3), PROTOCOL_ERROR),
    "CONTINUATION of another stream": (
        head(1, BLOCK, END_STREAM) + frame(Kind.CONTINUATION, END_HEADERS, 3, b""), PROTOCOL_ERROR),
    "CONTINUATION of no block": (frame(Kind.CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    "CONTINUATION after a whole block": (
        head(1) + frame(Kind.CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    "CONTINUATION on the connection": (frame(Kind.CONTINUATION, END_HEADERS, 0, b""), PROTOCOL_ERROR),
    # 5.1
    "DATA on an idle stream": (frame(Kind.DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(Kind.RST_STREAM, 0, 1, number(8)), PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (frame(Kind.WINDOW_UPDATE, 0, 1, number(8)), PROTOCOL_ERROR),
    "WINDOW_UPDATE on a stream of ours": (frame(Kind.WINDOW_UPDATE, 0, 2, number(8)), PROTOCOL_ERROR),
    "DATA after the end": (head(1) + frame(Kind.DATA, 0, 1, b"x"), STREAM_CLOSED),
    "HEADERS after the end": (head(1) + head(1), STREAM_CLOSED),
    # 5.1.1
    "an even stream": (head(2), PROTOCOL_ERROR),
    "a lower stream": (head(5) + head(3), PROTOCOL_ERROR),
    "DATA on a stream that was passed over": (head(5) + frame(Kind.DATA, 0, 3, b"x"), PROTOCOL_ERROR),
    # 5.3.1 of RFC 7540, which clients still obey
    "an idle stream that depends on itself": (frame(Kind.PRIORITY, 0, 1, number(1) + b"\x00"), PROTOCOL_ERROR),
    # 6.1
    "DATA on the connection": (frame(Kind.DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "DATA padded beyond its size": (
        head(1, POST, END_HEADERS) + frame(Kind.DATA, PADDED, 1, b"\x05abcd"), PROTOCOL_ERROR),
    "DATA with no pad length": (head(1, POST, END_HEADERS) + frame(Kind.DATA, PADDED, 1), FRAME_SIZE_ERROR),
    # 6.2
    "HEADERS on the connection": (head(0), PROTOCOL_ERROR),
    "HEADERS padded beyond its size": (
        frame(Kind.HEADERS, WHOLE | PADDED, 1, b"\xff" + BLOCK), PROTOCOL_ERROR),
    "HEADERS too short for its priority": (
        frame(Kind.HEADERS, WHOLE | PRIORITY_FLAG, 1, b"\0\0\0"), FRAME_SIZE_ERROR),
    # 6.3
    "PRIORITY on the connection": (frame(Kind.PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "PRIORITY of four octets": (frame(Kind.PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    # 6.4
    "RST_STREAM on the connection": (frame(Kind.RST_STREAM, 0, 0, number(8)), PROTOCOL_ERROR),
    "RST_STREAM of three octets": (head(1) + frame(Kind.RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    # 6.5
    "SETTINGS on a stream": (frame(Kind.SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS that acknowledge and say something": (frame(Kind.SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "SETTINGS of three octets": (frame(Kind.SETTINGS, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "ENABLE_PUSH of 2": (setting(Setting.ENABLE_PUSH, 2), PROTOCOL_ERROR),
    "ENABLE_CONNECT_PROTOCOL of 2": (setting(Setting.ENABLE_CONNECT_PROTOCOL, 2), PROTOCOL_ERROR),
    "NO_RFC7540_PRIORITIES of 2": (setting(Setting.NO_RFC7540_PRIORITIES, 2), PROTOCOL_ERROR),
    "INITIAL_WINDOW_SIZE of 2^31": (setting(Setting.INITIAL_WINDOW_SIZE, 2**31), FLOW_CONTROL_ERROR),
    "MAX_FRAME_SIZE of 16383": (setting(Setting.MAX_FRAME_SIZE, 16_383), PROTOCOL_ERROR),
    "MAX_FRAME_SIZE of 2^24": (setting(Setting.MAX_FRAME_SIZE, 2**24), PROTOCOL_ERROR),
    # 6.6
    "PUSH_PROMISE": (head(1, POST, END_HEADERS) + frame(Kind.PUSH_PROMISE, END_HEADERS, 1, number(2)), PROTOCOL_ERROR),
    # 6.7
    "PING on a stream": (frame(Kind.PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "PING of six octets": (frame(Kind.PING, 0, 0, bytes(6)), FRAME_SIZE_ERROR),
    # 6.8
    "GOAWAY on a stream": (frame(Kind.GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "GOAWAY of seven octets": (frame(Kind.GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    # 6.9
    "WINDOW_UPDATE of three octets": (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of the connection by 0": (frame(Kind.WINDOW_UPDATE, 0, 0, number(0)), PROTOCOL_ERROR),
    "a window of the connection above 2^31-1": (
        frame(Kind.WINDOW_UPDATE, 0, 0, number(2**31 - 1)), FLOW_CONTROL_ERROR),
    # RFC 9218 7.1
    "PRIORITY_UPDATE on a stream": (frame(Kind.PRIORITY_UPDATE, 0, 1, number(1) + b"u=1"), PROTOCOL_ERROR),
    "PRIORITY_UPDATE of three octets": (frame(Kind.PRIORITY_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "PRIORITY_UPDATE of the connection": (frame(Kind.PRIORITY_UPDATE, 0, 0, number(0)), PROTOCOL_ERROR),
    "PRIORITY_UPDATE of a pushed stream": (frame(Kind.PRIORITY_UPDATE, 0, 0, number(2)), PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("split", [False, True], ids=["frame by frame", "octet by octet"])
@pytest.mark.parametrize("what", CONNECTION_ERRORS)
@in_loop
async def test_connection_error(what: str, split: bool) -> None:
    data, code = CONNECTION_ERRORS[what]
    peer = Peer(answer)
    if split:
        for at in range(0, len(data), 1 + len(data) // 1000):
            peer.feed(data[at : at + 1 + len(data) // 1000])
    else:
        # The frame that is wrong comes alone, when what is before it has been served.
        while data:
            size = 9 + int.from_bytes(data[:3])
            peer.feed(data[:size])
            data = data[size:]
    assert peer.failed is code
    assert peer.transport.ended
    peer.feed(head(99))
    peer.after(2.0)
    await peer.settle()
    assert peer.closed
    assert peer.of(Kind.HEADERS, 99) == []


@in_loop
async def test_goaway_names_the_last_request_that_was_looked_at() -> None:
    peer = Peer(answer)
    peer.feed(head(1) + head(7))
    peer.feed(head(9, b"\x80"))
    assert peer.goaways() == [(7, ErrorCode.COMPRESSION_ERROR)]


@in_loop
async def test_running_requests_are_told_of_a_connection_error() -> None:
    peer = Peer(hang)
    peer.feed(head(1) + head(3))
    assert len(peer.service.tasks) == 2
    peer.feed(frame(Kind.PING, 0, 1, bytes(8)))
    await peer.settle()
    assert not peer.service.tasks


# Preface


@in_loop
async def test_server_begins_with_its_settings() -> None:
    peer = Peer(answer, begin=False)
    await peer.settle()
    first = peer.take_frames()[0]
    assert (first.kind, first.flags, first.stream) == (Kind.SETTINGS, 0, 0)
    pairs = [first.payload[at : at + 6] for at in range(0, len(first.payload), 6)]
    assert {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs} == {
        Setting.MAX_CONCURRENT_STREAMS: 100,
        Setting.INITIAL_WINDOW_SIZE: 1_048_576,
        Setting.MAX_FRAME_SIZE: 16_384,
        Setting.MAX_HEADER_LIST_SIZE: 65_536,
        Setting.NO_RFC7540_PRIORITIES: 1,
    }


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"P", PREFACE[:-1] + b"X", b"\x16\x03\x01" + bytes(50)])
@in_loop
async def test_anything_but_the_preface_is_a_connection_error(data: bytes) -> None:
    peer = Peer(answer, begin=False)
    peer.feed(data)
    assert peer.failed is (None if data == b"P" else PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "first", [frame(Kind.PING, 0, 0, bytes(8)), head(1), frame(Kind.SETTINGS, ACK, 0)], ids=["PING", "HEADERS", "ACK"]
)
@in_loop
async def test_first_frame_must_be_settings(first: bytes) -> None:
    peer = Peer(answer, begin=False)
    peer.feed(PREFACE + first)
    assert peer.failed is PROTOCOL_ERROR


@in_loop
async def test_settings_and_pings_are_acknowledged() -> None:
    peer = Peer(answer, begin=False)
    peer.feed(START)
    peer.send(Kind.PING, 0, 0, b"12345678")
    assert [found.flags for found in peer.of(Kind.SETTINGS)] == [0, ACK]
    assert [(found.flags, found.payload) for found in peer.of(Kind.PING)] == [(ACK, b"12345678")]
    peer.send(Kind.PING, ACK, 0, b"12345678")
    assert len(peer.of(Kind.PING)) == 1


# Stream errors: the stream is reset, and the connection goes on

STREAM_ERRORS: dict[str, tuple[bytes, ErrorCode]] = {
    "DATA on a half-closed stream": (head(1) + frame(Kind.DATA, 0, 1, b"x"), STREAM_CLOSED),
    "HEADERS on a half-closed stream": (head(1) + head(1), STREAM_CLOSED),
    "trailers that do not end the stream": (
        head(1, POST, END_HEADERS) + head(1, b"\x00\x01a\x01b", END_HEADERS), PROTOCOL_ERROR),
    "trailers with a pseudo-header field": (head(1, POST, END_HEADERS) + head(1, b"\x82"), PROTOCOL_ERROR),
    "trailers with content-length": (head(1, POST, END_HEADERS) + head(1, b"\x0f\x0d\x010"), PROTOCOL_ERROR),
    "HEADERS that depend on themselves": (
        frame(Kind.HEADERS, WHOLE | PRIORITY_FLAG, 1, number(1) + b"\0" + BLOCK), PROTOCOL_ERROR),
    "PRIORITY of a stream that depends on itself": (
        head(1) + frame(Kind.PRIORITY, 0, 1, number(1) + b"\0"), PROTOCOL_ERROR),
    "PRIORITY of the wrong size": (head(1) + frame(Kind.PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by 0": (head(1) + frame(Kind.WINDOW_UPDATE, 0, 1, number(0)), PROTOCOL_ERROR),
    "a window above 2^31-1": (head(1) + frame(Kind.WINDOW_UPDATE, 0, 1, number(2**31 - 1)), FLOW_CONTROL_ERROR),
    "a body longer than content-length": (
        head(1, POST + b"\x0f\x0d\x011", END_HEADERS) + frame(Kind.DATA, 0, 1, b"xy"), PROTOCOL_ERROR),
    "a body shorter than content-length": (
        head(1, POST + b"\x0f\x0d\x013", END_HEADERS) + frame(Kind.DATA, END_STREAM, 1, b"xy"), PROTOCOL_ERROR),
    "no body with content-length": (head(1, POST + b"\x0f\x0d\x013"), PROTOCOL_ERROR),
    "trailers before content-length is reached": (
        head(1, POST + b"\x0f\x0d\x013", END_HEADERS) + head(1, b"\x00\x01a\x01b"), PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["in one read", "after another"])
@pytest.mark.parametrize("what", STREAM_ERRORS)
@in_loop
async def test_stream_error(what: str, together: bool) -> None:
    data, code = STREAM_ERRORS[what]
    peer = Peer(hang)
    if together:
        peer.feed(data)
        assert peer.service.requests == 0
    else:
        size = 9 + int.from_bytes(data[:3])
        peer.feed(data[:size])
        peer.feed(data[size:])
    assert peer.resets() == [code]
    await peer.settle()
    assert not peer.service.tasks
    peer.feed(head(3) + frame(Kind.RST_STREAM, 0, 3, number(8)))
    assert peer.failed is None


MALFORMED: dict[str, list[tuple[bytes, bytes]]] = {
    "no :method": GET[1:],
    "no :scheme": [GET[0], *GET[2:]],
    "no :path": GET[:3],
    "no authority": [*GET[:2], GET[3]],
    "empty :path": request(path=b""),
    "relative :path": request(path=b"x"),
    "* for GET": request(path=b"*"),
    "a fragment": request(path=b"/#x"),
    "a blank in :path": request(path=b"/a b"),
    "a byte beyond ASCII in :path": request(path=b"/\xc3\xa9"),
    "a control in :path": request(path=b"/a\x01"),
    "a bad method": request(b"GE T"),
    "an empty method": request(b""),
    ":method twice": [*GET, (b":method", b"GET")],
    ":path twice": [*GET, (b":path", b"/")],
    ":scheme twice": [GET[1], *GET],
    "an unknown pseudo-header field": [*GET, (b":test", b"x")],
    "a pseudo-header field of answers": [*GET, (b":status", b"200")],
    ":protocol without CONNECT": [*GET, (b":protocol", b"websocket")],
    "a pseudo-header field at the end": [*GET[:3], (b"a", b"b"), GET[3]],
    "an upper-case name": [*GET, (b"X-Test", b"x")],
    "an empty name": [*GET, (b"", b"x")],
    "a blank in a name": [*GET, (b"x test", b"x")],
    "a colon in a name": [*GET, (b"x:test", b"x")],
    "CR in a value": [*GET, (b"x", b"a\rb")],
    "LF in a value": [*GET, (b"x", b"a\nb")],
    "NUL in a value": [*GET, (b"x", b"a\0b")],
    "a blank before a value": [*GET, (b"x", b" a")],
    "a tab after a value": [*GET, (b"x", b"a\t")],
    "Connection": [*GET, (b"connection", b"close")],
    "Keep-Alive": [*GET, (b"keep-alive", b"5")],
    "Proxy-Connection": [*GET, (b"proxy-connection", b"close")],
    "Transfer-Encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "Upgrade": [*GET, (b"upgrade", b"h2c")],
    "TE with gzip": [*GET, (b"te", b"trailers, gzip")],
    "another Host": [*GET, (b"host", b"other.example")],
    "two Hosts": [*GET, (b"host", b"example.org"), (b"host", b"example.org")],
    "user information": [*GET[:2], (b":authority", b"user@example.org"), GET[3]],
    "a list as authority": [*GET[:2], (b":authority", b"a,b"), GET[3]],
    "a blank in the authority": [*GET[:2], (b":authority", b"a b"), GET[3]],
    "two lengths": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "a signed length": [*GET, (b"content-length", b"+0")],
    "CONNECT with a path": request(b"CONNECT"),
    ":protocol when nothing was offered": [*request(b"CONNECT"), (b":protocol", b"x")],
}


@pytest.mark.parametrize("what", MALFORMED)
@in_loop
async def test_malformed_request_is_reset_and_never_reaches_the_application(what: str) -> None:
    peer = Peer(answer)
    peer.headers(1, MALFORMED[what])
    assert peer.resets() == [PROTOCOL_ERROR]
    assert peer.service.requests == 0
    # Twice, since what is understood of a field block may be remembered.
    peer.headers(3, MALFORMED[what])
    assert peer.resets() == [PROTOCOL_ERROR] * 2
    peer.headers(5)
    assert (peer.failed, peer.body(5)) == (None, b"/")


WELL_FORMED: dict[str, list[tuple[bytes, bytes]]] = {
    "TE: trailers": [*GET, (b"te", b"trailers")],
    "the same Host": [*GET, (b"host", b"EXAMPLE.org")],
    "only Host": [*GET[:2], GET[3], (b"host", b"example.org")],
    "OPTIONS *": request(b"OPTIONS", b"*"),
    "a port": [*GET[:2], (b":authority", b"example.org:8080"), GET[3]],
    "an IPv6 address": [*GET[:2], (b":authority", b"[::1]:80"), GET[3]],
    "an empty value": [*GET, (b"x", b"")],
    "a tab inside a value": [*GET, (b"x", b"a\tb")],
    "bytes above ASCII in a value": [*GET, (b"x", b"\xfc")],
    "another order": [GET[3], GET[1], GET[2], GET[0]],
}


@pytest.mark.parametrize("what", WELL_FORMED)
@in_loop
async def test_request_is_served(what: str) -> None:
    peer = Peer(answer)
    peer.headers(1, WELL_FORMED[what])
    assert peer.head(1)[b":status"] == b"200"


# What is no error


@pytest.mark.parametrize(
    "data",
    [
        frame(0x42, 0xFF, 77, b"whatever"),
        frame(Kind.PRIORITY, 0, 77, number(3) + b"\x10"),
        setting(0x42, 42),
        head(1) + frame(Kind.WINDOW_UPDATE, 0, 1, number(1)),
        head(1) + frame(Kind.RST_STREAM, 0, 1, number(8)),
        head(5) + frame(Kind.RST_STREAM, 0, 3, number(8)),
        frame(Kind.HEADERS, WHOLE | PADDED | PRIORITY_FLAG, 1, b"\x03" + number(3) + b"\x10" + BLOCK + bytes(3)),
        head(1, POST, END_HEADERS) + frame(Kind.DATA, PADDED | END_STREAM, 1, b"\x03abc" + bytes(3)),
        head(1, BLOCK[:3], END_STREAM) + frame(Kind.CONTINUATION, 0, 1, b"")
        + frame(Kind.CONTINUATION, END_HEADERS, 1, BLOCK[3:]),
        frame(Kind.PRIORITY_UPDATE, 0, 0, number(9) + b"u=0"),
        head(1, b"\x20\x3f\xe1\x1f" + BLOCK),
    ],
    ids=[
        "unknown frame", "PRIORITY of an idle stream", "unknown setting", "WINDOW_UPDATE after the end",
        "RST_STREAM after the end", "RST_STREAM of a stream that was passed over", "padding and priority",
        "padded DATA", "CONTINUATION", "PRIORITY_UPDATE of an idle stream", "table updates at the beginning",
    ],
)  # fmt: skip
@in_loop
async def test_this_is_no_error(data: bytes) -> None:
    peer = Peer(echo)
    peer.feed(data)
    await peer.settle()
    peer.feed(head(101))
    await peer.settle()
    assert (peer.failed, peer.resets(), peer.ended(101)) == (None, [], True)


@in_loop
async def test_frames_for_a_stream_that_we_reset_are_ignored() -> None:
    peer = Peer(answer)
    peer.feed(head(1, POST, END_HEADERS))
    peer.after(1.0)
    assert peer.resets(1) == [ErrorCode.NO_ERROR]
    peer.feed(frame(Kind.DATA, 0, 1, b"x") + head(1, b"\x00\x01a\x01b") + frame(Kind.RST_STREAM, 0, 1, number(8)))
    assert (peer.failed, peer.resets()) == (None, [ErrorCode.NO_ERROR])


@pytest.mark.parametrize("then", [frame(Kind.DATA, 0, 1, b"x"), head(1)], ids=["DATA", "HEADERS"])
@in_loop
async def test_frames_for_a_stream_that_the_peer_reset_are_a_stream_error(then: bytes) -> None:
    peer = Peer(hang)
    peer.feed(head(1, POST, END_HEADERS) + frame(Kind.RST_STREAM, 0, 1, number(8)))
    peer.feed(then)
    assert (peer.failed, peer.resets()) == (None, [STREAM_CLOSED])


@in_loop
async def test_answers_use_no_dynamic_table_and_say_so_when_it_becomes_smaller() -> None:
    """RFC 7541 4.2: a reduction "MUST" be signalled "at the beginning of the first header block"."""
    peer = Peer(answer, settings={Setting.HEADER_TABLE_SIZE: 0})
    peer.feed(head(1) + head(3))
    first, second = peer.of(Kind.HEADERS)
    assert (first.payload[:1], second.payload[:1]) == (b"\x20", b"\x88")


@in_loop
async def test_remembered_blocks_follow_the_dynamic_table() -> None:
    """The same octets mean something else once the table has changed."""
    peer = Peer(answer)
    host = b"\x01\x0bexample.org"
    newest = b"\x82\x86\xbe" + host
    peer.feed(head(1, b"\x82\x86\x44\x06/first" + host) + head(3, newest) + head(5, newest))
    peer.feed(head(7, b"\x82\x86\x44\x07/second" + host) + head(9, newest))
    assert [peer.body(stream) for stream in (1, 3, 5, 7, 9)] == [b"/first"] * 3 + [b"/second"] * 2


# A block as many clients send it: indexed fields, the path as a literal that no table keeps, indexed fields.
FIRST = b"\x82\x86\x41\x0bexample.org\x04\x01/\x40\x03x-a\x01b"
BEFORE, AFTER = b"\x82\x86\xbf", b"\xbe"


def with_path(path: bytes, literal: bytes = b"\x04") -> bytes:
    assert len(path) < 127
    return BEFORE + literal + bytes((len(path),)) + path + AFTER


def huffman(text: bytes) -> bytes:
    data: bytes = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    return BEFORE + b"\x04" + bytes((0x80 | len(data),)) + data + AFTER


@in_loop
async def test_blocks_that_differ_in_their_path_alone() -> None:
    """Only the path is read of a block whose other octets are those of one before."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await say(send)

    peer = Peer(app)
    long = b"/" + b"l" * 300
    blocks = [
        FIRST, with_path(b"/1"), with_path(b"/1"), with_path(b"/22"), with_path(b"/3?q=%20", b"\x14"), huffman(b"/4"),
        with_path(b"/5", b"\x05"), BEFORE + b"\x04\x7f\xae\x01" + long + AFTER, huffman(b"/6"), with_path(b"/"),
    ]  # fmt: skip
    peer.feed(b"".join(head(1 + 2 * number, block) for number, block in enumerate(blocks)))
    seen = [scope["raw_path"] + b"?" * bool(scope["query_string"]) + scope["query_string"] for scope in scopes]
    assert seen == [b"/", b"/1", b"/1", b"/22", b"/3?q=%20", b"/4", b"/5", long, b"/6", b"/"]
    assert all(scope["headers"] == [(b"host", b"example.org"), (b"x-a", b"b")] for scope in scopes)
    assert len({id(scope["headers"]) for scope in scopes}) == len(scopes)


@pytest.mark.parametrize("path", [b"", b"x", b"*", b"/a b", b"/#", b"/\x00", b"/\x7f"])
@in_loop
async def test_path_of_such_a_block_is_checked(path: bytes) -> None:
    peer = Peer(answer)
    peer.feed(head(1, FIRST) + head(3, with_path(b"/ok")) + head(5, with_path(path)) + head(7, with_path(b"/after")))
    assert (peer.resets(), peer.service.requests) == ([PROTOCOL_ERROR], 3)
    assert (peer.body(3), peer.body(7)) == (b"/ok", b"/after")


@in_loop
async def test_size_of_such_a_block_is_bounded() -> None:
    peer = Peer(answer, max_header_size=400)
    block = BEFORE + b"\x04\x7f\xad\x01" + b"/" + b"l" * 299 + AFTER
    peer.feed(head(1, FIRST) + head(3, with_path(b"/ok")) + head(5, block) + head(7, with_path(b"/after")))
    assert peer.head(5)[b":status"] == b"431"
    assert (peer.body(7), peer.failed) == (b"/after", None)


@pytest.mark.parametrize(
    "block",
    [
        BEFORE + b"\x04\x05/a", BEFORE + b"\x04\x7f\xff\xff\xff\xff\xff\x01/a", BEFORE + b"\x04",
        BEFORE + b"\x04\x81\x00" + AFTER, BEFORE + b"\x04\x84\xff\xff\xff\xff" + AFTER,
    ],
    ids=["cut off", "length without end", "no string", "padding of zeros", "EOS"],
)  # fmt: skip
@in_loop
async def test_path_of_such_a_block_that_cannot_be_decoded(block: bytes) -> None:
    peer = Peer(answer)
    peer.feed(head(1, FIRST) + head(3, with_path(b"/ok")))
    peer.feed(head(5, block))
    assert (peer.body(3), peer.failed) == (b"/ok", ErrorCode.COMPRESSION_ERROR)


@in_loop
async def test_such_blocks_follow_the_dynamic_table() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, dict(scope["headers"])[b"x-a"])

    peer = Peer(app)
    peer.feed(head(1, FIRST) + head(3, with_path(b"/1")) + head(5, with_path(b"/2")))
    # Two entries more: what was the newest two are others now.
    peer.feed(head(7, b"\x82\x86\x41\x0bexample.net\x04\x01/\x40\x03x-a\x01c"))
    peer.feed(head(9, with_path(b"/1")) + head(11, with_path(b"/2")))
    assert [peer.body(stream) for stream in (3, 5, 9, 11)] == [b"b", b"b", b"c", b"c"]


@in_loop
async def test_a_long_head_goes_on_in_continuation_frames() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-long", b"y" * 40_000)]})
        await send({"type": "http.response.body", "body": b"z"})

    peer = Peer(app)
    peer.feed(head(1))
    kinds = [(found.kind, found.flags) for found in peer.take_frames() if found.stream == 1]
    assert kinds == [
        (Kind.HEADERS, 0), (Kind.CONTINUATION, 0), (Kind.CONTINUATION, END_HEADERS), (Kind.DATA, END_STREAM),
    ]  # fmt: skip


def test_contract_of_wires() -> None:
    """The windows are wide open, since the peer of the kit opens none."""
    begin = PREFACE + setting(Setting.INITIAL_WINDOW_SIZE, 2**24) + frame(Kind.WINDOW_UPDATE, 0, 0, number(2**24))
    upload = head(1, POST, END_HEADERS) + frame(Kind.DATA, END_STREAM, 1, b"body")
    check_wire(plugin.wires[0], [begin + head(1), begin + upload], registry=Registry.of(h1, plugin), multiplexed=True)
