"""What a client accepts: fields with qualities (RFC 9110 12.4.2)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Qualities", "preferred_type", "qualities"]

# RFC 9110 12.4.2: weight = OWS ";" OWS "q=" qvalue; qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_WEIGHT = rb"[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*"
_member = re.compile(rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:" + _WEIGHT + rb")?", re.IGNORECASE).fullmatch
_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_type = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_qvalue = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
ACCEPT_MAX = 4096
"""Bytes of an Accept field that are looked at."""


class Qualities:
    """The codings that a client accepts, with their qualities from 0 to 1."""

    __slots__ = ("_by_name", "_others")

    def __init__(self, by_name: dict[bytes, float]) -> None:
        self._by_name = by_name
        # RFC 9110 12.5.3: "*" matches any coding that is not named.
        self._others = by_name.get(b"*", 0.0)

    def of(self, name: bytes) -> float:
        """0 for what is not accepted."""
        found = self._by_name.get(name)
        return self._others if found is None else found

    def names(self, name: bytes) -> bool:
        """Whether the client has said something of this one in particular."""
        return name in self._by_name


def qualities(headers: Iterable[tuple[bytes, bytes]], field: bytes) -> Qualities | None:
    """What the fields of that name say; None when there is none. A member that is not valid is not accepted."""
    values = [value for name, value in headers if name == field]
    if not values:
        return None
    found: dict[bytes, float] = {}
    for member in b",".join(values).split(b","):
        match = _member(member)
        if match is not None:
            name = match[1].lower()
            # RFC 9110 8.4.1.3
            found.setdefault(b"gzip" if name == b"x-gzip" else name, float(match[2]) if match[2] else 1.0)
    return Qualities(found)


def preferred_type(headers: Iterable[tuple[bytes, bytes]], offered: tuple[bytes, ...]) -> bytes:
    """The media type that the client likes best (RFC 9110 12.5.1); between equals the one it names, then the first.

    What is offered may have parameters, and is what a range means that has some of them, and no others. A client that
    says nothing, or accepts none of them, gets the first.
    """
    accepted = b",".join(value for name, value in headers if name == b"accept")[:ACCEPT_MAX]
    ranges = [found for member in accepted.split(b",") if (found := _range(member)) is not None]
    best, chosen = (0.0, (0, 0)), offered[0]
    for kind in offered:
        own = _range(kind)
        assert own is not None
        # The most specific range decides.
        matching = [(each.precedence, each.quality) for each in ranges if each.has(own)]
        if matching:
            precedence, quality = max(matching, key=lambda each: each[0])
            if quality > 0.0 and (quality, precedence) > best:
                best, chosen = (quality, precedence), kind
    return chosen


class Range(NamedTuple):
    """A media range: a type, or all of a kind, with what its parameters must be."""

    kind: bytes
    parameters: frozenset[tuple[bytes, bytes]]
    quality: float

    @property
    def precedence(self) -> tuple[int, int]:
        """Higher is more specific."""
        return 2 - (self.kind == b"*/*") - self.kind.endswith(b"/*"), len(self.parameters)

    def has(self, other: Range) -> bool:
        """Whether a type, which is a range of one, is within it."""
        kinds = (other.kind, other.kind.partition(b"/")[0] + b"/*", b"*/*")
        return self.kind in kinds and self.parameters <= other.parameters


def _range(member: bytes) -> Range | None:
    """A member of an Accept field; None for what is not valid."""
    kind, *rest = (part.strip(b" \t") for part in member.lower().split(b";"))
    if not _type(kind):
        return None
    quality, parameters = 1.0, set()
    for part in filter(None, rest):
        name, _, value = part.partition(b"=")
        if name == b"q":
            # "Recipients SHOULD process any parameter named "q" as weight, regardless of parameter ordering."
            if not _qvalue(value):
                return None
            quality = float(value)
        elif not _token(name) or not value:
            return None
        else:
            parameters.add((name, value.strip(b'"')))
    return Range(kind, frozenset(parameters), quality)
