"""The Priority field (RFC 9218 4, 8; RFC 8941)."""

import pytest

from pounce.exchange.priority import DEFAULT, parse_priority, priority_of

VALUES = {
    b"": (3, False),
    b"u=0": (0, False),
    b"u=7, i": (7, True),
    b"u=7,i": (7, True),
    b"i": (3, True),
    b"i, u=1": (1, True),
    b" u=1 ": (1, False),
    b"u=1\t,\ti": (1, True),
    b"i=?0, u=7": (7, False),
    b"i=?1": (3, True),
    b"u=1;a=b, i;x": (1, True),
    b"u=1; x=1": (1, False),
    b"u=1,u=5": (5, False),
    # Unknown members, of every type.
    b"x=1,u=2": (2, False),
    b"ui=1": (3, False),
    b'x="a, u=0", u=1': (1, False),
    b'x="a\\", u=0, y=\\"", i': (3, True),
    b"*a=b/c:d, u=1": (1, False),
    b"x=:YQ==:, u=1": (1, False),
    b"x=-1.5, u=1": (1, False),
    # Of the wrong type, or out of range.
    b"u=8": (3, False),
    b"u=1, u=9": (3, False),
    b"u=-1": (3, False),
    b"u=01": (3, False),
    b"u=1.5": (3, False),
    b"u=a": (3, False),
    b"u, i": (3, True),
    b"i=1": (3, False),
    # No dictionary.
    b"\xff": (3, False),
    b"u=1,": (3, False),
    b",u=1": (3, False),
    b"u = 1": (3, False),
    b"u=1 i": (3, False),
    b"u=1, I": (3, False),
    b'u=1, x="': (3, False),
}


@pytest.mark.parametrize("value", VALUES)
def test_priority_field(value: bytes) -> None:
    assert parse_priority(value) == VALUES[value]


@pytest.mark.parametrize(
    ("value", "priority"),
    [(b"", (6, True)), (b"u=0", (0, True)), (b"i=?0", (6, False)), (b"u=9", (6, True)), (b"u=0,", (6, True))],
)
def test_what_an_answer_does_not_say_stays_as_the_client_wished(value: bytes, priority: tuple[int, bool]) -> None:
    assert parse_priority(value, (6, True)) == priority


def test_several_fields_are_one_dictionary() -> None:
    fields = [(b"priority", b"u=1, i"), (b"a", b"u=7"), (b"priority", b"u=2")]
    assert priority_of(fields) == (2, True)


def test_request_without_the_field() -> None:
    assert priority_of([(b"host", b"a")]) is DEFAULT
