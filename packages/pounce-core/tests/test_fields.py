"""Header sections of HTTP/2 and HTTP/3, beyond what the tests of both say over their connections."""

import pytest

from pounce.contract.head import Headers, RequestHead
from pounce.errors import BadRequest
from pounce.exchange.fields import KNOWN_MAX, KNOWN_SIZE_MAX, FieldTable, checked_trailers, request_head

PSEUDO = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"example.org"), (b":path", b"/")]


def head_of(fields: Headers, table: FieldTable | None = None) -> RequestHead:
    return request_head(fields, "3", "https", table or FieldTable())


@pytest.mark.parametrize("scheme", [b"http", b"https", b"HTTPS"])
def test_scheme_is_that_of_the_connection_whatever_the_client_says(scheme: bytes) -> None:
    assert head_of([PSEUDO[0], (b":scheme", scheme), *PSEUDO[2:]]).scheme == "https"


@pytest.mark.parametrize("scheme", [b"", b"ftp", b"https ", b"ws"])
def test_another_scheme_is_malformed(scheme: bytes) -> None:
    with pytest.raises(BadRequest, match=":scheme") as caught:
        head_of([PSEUDO[0], (b":scheme", scheme), *PSEUDO[2:]])
    assert (caught.value.status, caught.value.code) == (400, "POUNCE_PARSE_MALFORMED")


def test_what_is_well_formed_and_not_wanted_is_no_malformed_request() -> None:
    with pytest.raises(BadRequest) as caught:
        head_of([(b":method", b"CONNECT"), PSEUDO[2]])
    assert caught.value.status == 501


def test_trailers_have_no_pseudo_header_fields() -> None:
    with pytest.raises(BadRequest):
        checked_trailers([(b":path", b"/")])


# What is kept of fields


def test_plain_field_is_known_the_second_time() -> None:
    table = FieldTable()
    first = head_of([*PSEUDO, (b"accept", b"*/*")], table)
    assert table.known == {(b"accept", b"*/*")}
    assert head_of([*PSEUDO, (b"accept", b"*/*")], table).headers == first.headers


def test_known_field_before_a_pseudo_header_field_is_malformed() -> None:
    table = FieldTable()
    head_of([*PSEUDO, (b"accept", b"*/*")], table)
    with pytest.raises(BadRequest):
        head_of([(b"accept", b"*/*"), *PSEUDO], table)


@pytest.mark.parametrize(
    "field",
    [
        (b"cookie", b"a=1"), (b"authorization", b"x"), (b"proxy-authorization", b"x"), (b"host", b"example.org"),
        (b"content-length", b"1"), (b"te", b"trailers"), (b"expect", b"100-continue"),
    ],
)  # fmt: skip
def test_secrets_and_what_says_something_about_the_request_are_not_kept(field: tuple[bytes, bytes]) -> None:
    table = FieldTable()
    head_of([*PSEUDO, field], table)
    assert not table.known


@pytest.mark.parametrize("field", [(b"x" * 60_000, b"1"), (b"x", b"1" * 60_000)], ids=["name", "value"])
def test_long_field_is_not_kept(field: tuple[bytes, bytes]) -> None:
    table = FieldTable()
    assert field in head_of([*PSEUDO, field], table).headers
    assert not table.known


def test_memory_for_known_fields_is_bounded() -> None:
    table = FieldTable()
    for number in range(3 * KNOWN_MAX):
        head_of([*PSEUDO, (b"x-%d" % number, b"v" * (KNOWN_SIZE_MAX - 10))], table)
    assert len(table.known) <= KNOWN_MAX
