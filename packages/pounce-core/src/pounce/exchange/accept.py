"""What a client accepts: fields with qualities (RFC 9110 12.4.2)."""

import re
from collections.abc import Iterable

__all__ = ["Qualities", "preferred_type", "qualities"]

# RFC 9110 12.4.2: weight = OWS ";" OWS "q=" qvalue; qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_WEIGHT = rb"[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*"
_member = re.compile(rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:" + _WEIGHT + rb")?", re.IGNORECASE).fullmatch
# RFC 9110 12.5.1, without parameters of the type, which no answer of ours has.
_range = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:" + _WEIGHT + rb")?", re.IGNORECASE
).fullmatch
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
            found.setdefault(match[1].lower(), float(match[2]) if match[2] else 1.0)
    return Qualities(found)


def preferred_type(headers: Iterable[tuple[bytes, bytes]], offered: tuple[bytes, ...]) -> bytes:
    """The media type that the client likes best (RFC 9110 12.5.1); between equals the one it names, then the first.

    A client that says nothing, or accepts none of them, gets the first.
    """
    accepted = b",".join(value for name, value in headers if name == b"accept")[:ACCEPT_MAX]
    found: dict[bytes, float] = {}
    for member in accepted.split(b","):
        match = _range(member)
        if match is not None:
            found.setdefault(match[1].lower(), float(match[2]) if match[2] else 1.0)
    best, chosen = (0.0, 0), offered[0]
    for kind in offered:
        # The most specific range decides.
        for precedence, name in ((2, kind), (1, kind.partition(b"/")[0] + b"/*"), (0, b"*/*")):
            if name in found:
                if (found[name], precedence) > best and found[name] > 0.0:
                    best, chosen = (found[name], precedence), kind
                break
    return chosen
