"""The Priority field (RFC 9218 4): how urgent an answer is, and whether it is of use in pieces.

Which stream sends next is for the wires to decide; what clients and applications say about it is read here.
"""

import re

from pounce.contract.head import Headers

__all__ = ["DEFAULT", "Priority", "parse_priority", "priority_of"]


type Priority = tuple[int, bool]
"""Urgency from 0, the most urgent, to 7, and whether the answer is incremental: useful in pieces."""

DEFAULT: Priority = (3, False)

VALUE_MAX = 1024
"""Bytes of a value that is looked at: nobody has so much to say about it, and 64 KiB would take 25 ms."""

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

# By urgency, then whether it is incremental. Tuples, which threads need not count: see `pounce.immortal`.
_PRIORITIES = tuple(((urgency, False), (urgency, True)) for urgency in range(8))


def parse_priority(value: bytes, base: Priority = DEFAULT) -> Priority:
    """The priority that a field value says.

    Parameters that are missing, unknown or out of range are those of `base`, and so are all of a value that is no
    dictionary (RFC 8941 4.2: "the entire field MUST be ignored"), or that has more than `VALUE_MAX` bytes.
    """
    if value[:2] == b"u=" and b"0" <= value[2:3] <= b"7":
        # What browsers and curl send.
        rest = value[3:]
        if rest == b", i" or rest == b",i":
            return _PRIORITIES[value[2] - 48][1]
        if not rest:
            return _PRIORITIES[value[2] - 48][base[1]]
    if len(value) > VALUE_MAX:
        return base
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
    return (
        int(urgency) if urgency is not None and len(urgency) == 1 and b"0" <= urgency <= b"7" else base[0],
        incremental != b"?0" if incremental in (None, b"?1", b"?0") else base[1],
    )


def priority_of(headers: Headers) -> Priority:
    """The priority that a request asks for."""
    priority = DEFAULT
    for name, value in headers:
        if name == b"priority":
            # Lines of a dictionary are one: a later member replaces an earlier one.
            priority = parse_priority(value, priority)
    return priority
