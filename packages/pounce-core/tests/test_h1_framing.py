"""The rules of RFC 9112 that decide where a message ends, row by row."""

import pytest

from pounce.contract.head import AnswerFields
from pounce.errors import BadRequest
from pounce.h1.encode import chunk_head, encode_head, status_line
from pounce.h1.framing import (
    ADD_LENGTH,
    CHUNKED,
    CLOSE,
    FORBIDDEN_TRAILERS,
    LENGTH,
    NONE,
    answer_framing,
    chunk_line,
    content_length,
    request_head,
    transfer_encoding,
)


@pytest.mark.parametrize(
    ("method", "version", "status", "has_length", "more", "expected"),
    [
        (b"HEAD", "1.1", 200, False, False, NONE),
        (b"HEAD", "1.1", 200, True, True, NONE),
        (b"HEAD", "1.0", 200, False, True, NONE),
        (b"GET", "1.1", 204, False, False, NONE),
        (b"GET", "1.1", 304, True, False, NONE),
        (b"GET", "1.1", 200, True, False, LENGTH),
        (b"GET", "1.1", 200, True, True, LENGTH),
        (b"GET", "1.0", 200, True, True, LENGTH),
        (b"GET", "1.1", 200, False, False, ADD_LENGTH),
        (b"GET", "1.0", 404, False, False, ADD_LENGTH),
        (b"GET", "1.1", 200, False, True, CHUNKED),
        (b"POST", "1.1", 500, False, True, CHUNKED),
        (b"GET", "1.0", 200, False, True, CLOSE),
    ],
)
def test_how_the_end_of_an_answer_is_marked(
    method: bytes, version: str, status: int, has_length: bool, more: bool, expected: int
) -> None:
    assert answer_framing(method, version, status, has_length, more) is expected


@pytest.mark.parametrize(("value", "expected"), [(b"0", 0), (b"5", 5), (b"0005", 5), (b"9" * 19, 10**19 - 1)])
def test_content_length_is_a_row_of_digits(value: bytes, expected: int) -> None:
    assert content_length([value]) == expected


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"+1"],
        [b"-1"],
        [b"1_0"],
        [b"0x1"],
        [b"1 "],
        [b" 1"],
        [b"1\n"],
        [b"1,1"],
        [b"1" * 20],
        [b"\xb2"],
        [b"1"] * 2,
    ],
)
def test_what_is_no_content_length(values: list[bytes]) -> None:
    with pytest.raises(BadRequest) as caught:
        content_length(values)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" chunked\t"])
def test_chunked_is_the_one_coding(value: bytes) -> None:
    assert transfer_encoding([value], False)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([b"gzip"], 400),
        ([b"identity"], 400),
        ([b"gzip, chunked"], 501),
        ([b"gzip;level=9, x, chunked"], 501),
        ([b"gzip", b"chunked"], 501),
        ([b"chunked, gzip"], 400),
        ([b"chunked", b"gzip"], 400),
        ([b"chunked, gzip, chunked"], 400),
        ([b"gzip;, chunked"], 400),
        ([b"chunked"] * 2, 400),
        ([b"chunked,chunked"], 400),
        ([b"chunked,"], 400),
        ([b",chunked"], 400),
        ([b""], 400),
        ([b"chunked;q=1"], 400),
        ([b"chunked\n"], 400),
    ],
)
def test_other_codings_are_refused_with_501_only_where_the_end_of_the_body_is_known(
    values: list[bytes], status: int
) -> None:
    with pytest.raises(BadRequest) as caught:
        transfer_encoding(values, False)
    assert caught.value.status == status


def test_http_1_0_knows_no_transfer_coding() -> None:
    with pytest.raises(BadRequest):
        transfer_encoding([b"chunked"], True)


@pytest.mark.parametrize(
    ("line", "size"),
    [(b"0", 0), (b"a", 10), (b"A", 10), (b"00ff", 255), (b"f" * 16, 2**64 - 1), (b'1;a;b=c;d="e f"', 1)],
)
def test_the_first_line_of_a_chunk(line: bytes, size: int) -> None:
    assert chunk_line(line, 0)[0] == size


@pytest.mark.parametrize(
    "line", [b"", b"g", b"+1", b"-1", b"0x1", b"1_0", b"1 ", b" 1", b"1;", b"1 ;a", b"1; a", b"1;a=", b"1\n", b"0" * 17]
)
def test_what_is_no_first_line_of_a_chunk(line: bytes) -> None:
    with pytest.raises(BadRequest):
        chunk_line(line, 0)


@pytest.mark.parametrize("name", ["content-length", "transfer-encoding", "host", "authorization", "set-cookie", "te"])
def test_fields_that_no_trailer_may_be(name: str) -> None:
    """RFC 9110 6.5.1"""
    assert name.encode() in FORBIDDEN_TRAILERS


@pytest.mark.parametrize(
    ("fields", "upgrade", "expect", "keep_alive"),
    [
        ([], None, False, True),
        ([(b"connection", b"close")], None, False, False),
        ([(b"connection", b"upgrade"), (b"upgrade", b"WebSocket")], b"websocket", False, True),
        ([(b"connection", b"upgrade"), (b"upgrade", b"a, b")], b"a", False, True),
        ([(b"upgrade", b"a")], None, False, True),
        ([(b"connection", b"upgrade"), (b"upgrade", b"a"), (b"content-length", b"1")], None, False, True),
        ([(b"expect", b"100-continue")], None, False, True),
        ([(b"expect", b"100-continue"), (b"content-length", b"1")], None, True, True),
    ],
)
def test_what_is_read_off_the_fields(
    fields: list[tuple[bytes, bytes]], upgrade: bytes | None, expect: bool, keep_alive: bool
) -> None:
    head = request_head(b"GET", b"/", b"1.1", [(b"host", b"a"), *fields])
    assert (head.upgrade, head.expect_continue, head.keep_alive) == (upgrade, expect, keep_alive)


@pytest.mark.parametrize("status", [200, 204, 404, 503])
def test_a_status_line_has_its_phrase(status: int) -> None:
    assert status_line(status).startswith(b"HTTP/1.1 %d " % status)
    assert len(status_line(status)) > len(b"HTTP/1.1 200 \r\n")


def test_a_status_without_a_phrase_has_an_empty_one() -> None:
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


def test_the_size_of_a_chunk_is_hexadecimal() -> None:
    assert [chunk_head(1), chunk_head(255), chunk_head(65_536)] == [b"1\r\n", b"ff\r\n", b"10000\r\n"]


def test_heads_that_differ_are_not_mixed_up() -> None:
    fields = [AnswerFields(given) for given in ([(b"a", b"1")], [(b"a", b"2")], [(b"a", b"1"), (b"b", b"2")], [])]
    for _ in range(2):
        for status in (200, 201):
            for headers in fields:
                expected = status_line(status) + b"".join(b"%b: %b\r\n" % field for field in headers)
                assert encode_head(status, headers).data == expected


def test_fields_that_another_wire_has_encoded_are_encoded_anew() -> None:
    headers = AnswerFields([(b"a", b"1")])
    headers.encoded = b"another wire's"
    assert encode_head(200, headers).data == b"HTTP/1.1 200 OK\r\na: 1\r\n"


def test_the_connection_field_of_an_application_is_a_wish() -> None:
    head = encode_head(200, [(b"connection", b"x, Close"), (b"content-length", b"1")])
    assert (head.closes, head.has_length) == (True, True)
    assert b"connection" not in head.data
