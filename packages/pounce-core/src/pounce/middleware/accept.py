"""What a client accepts: fields with qualities (RFC 9110 12.4.2)."""

import re
from collections.abc import Iterable

__all__ = ["Qualities", "qualities"]

# RFC 9110 12.4.2: weight = OWS ";" OWS "q=" qvalue; qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_member = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?", re.IGNORECASE
).fullmatch


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
