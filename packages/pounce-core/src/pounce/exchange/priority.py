"""The Priority field (RFC 9218 4): how urgent an answer is, and whether it is of use in pieces.

Which stream sends next is for the wires to decide; what clients and applications say about it is read here.
"""

import re
from typing import NamedTuple

from pounce.exchange.head import Headers

__all__ = ["DEFAULT", "Priority", "parse_priority", "priority_of"]


class Priority(NamedTuple):
    """Urgency from 0, the most urgent, to 7; an incremental answer is useful in pieces."""

    urgency: int = 3
    incremental: bool = False


DEFAULT = Priority()

# RFC 8941 3.2, 3.3: a member of a dictionary, with its parameters. Inner lists, which no parameter is, are left out.
_KEY = r"[a-z*][a-z0-9_\-.*]*+"
_ITEM = (
    r"(?:-?[0-9]{1,15}(?:\.[0-9]{1,3})?"
    r'|"(?:[ !#-\[\]-~]|\\["\\])*+"'
    r"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*+"
    r"|:[A-Za-z0-9+/=]*+:"
    r"|\?[01])"
)
_member = re.compile(f"({_KEY})(?:=({_ITEM}))?(?:; *+{_KEY}(?:={_ITEM})?)*+".encode()).match
_comma = re.compile(rb"[ \t]*,[ \t]*").match

# What browsers and curl send.
_COMMON = {
    f"u={urgency}{incremental}".encode(): Priority(urgency, bool(incremental))
    for urgency in range(8)
    for incremental in ("", ", i", ",i")
} | {b"i": Priority(incremental=True)}


def parse_priority(value: bytes, base: Priority = DEFAULT) -> Priority:
    """The priority that a field value says.

    Parameters that are missing, unknown or out of range are those of `base`, and so are all of a value that is no
    dictionary (RFC 8941 4.2: "the entire field MUST be ignored").
    """
    if base is DEFAULT:
        found = _COMMON.get(value)
        if found is not None:
            return found
    members: dict[bytes, bytes | None] = {}
    value = value.strip(b" ")
    at, end = 0, len(value)
    while at < end:
        member = _member(value, at)
        if member is None:
            return base
        # The last one of a name counts.
        members[member[1]] = member[2]
        at = member.end()
        if at < end:
            comma = _comma(value, at)
            if comma is None or comma.end() == end:
                return base
            at = comma.end()
    urgency, incremental = members.get(b"u"), members.get(b"i", b"")
    return Priority(
        int(urgency) if urgency is not None and len(urgency) == 1 and b"0" <= urgency <= b"7" else base.urgency,
        incremental != b"?0" if incremental in (None, b"?1", b"?0") else base.incremental,
    )


def priority_of(headers: Headers) -> Priority:
    """The priority that a request asks for."""
    priority = DEFAULT
    for name, value in headers:
        if name == b"priority":
            # Lines of a dictionary are one: a later member replaces an earlier one.
            priority = parse_priority(value, priority)
    return priority
