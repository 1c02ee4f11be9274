"""Priorities of answers (RFC 9218): urgency 0 to 7, and whether an answer is of use in parts."""

import re
from typing import NamedTuple

from pounce.plugin import Headers

__all__ = ["DEFAULT", "Priority", "parse_priority", "priority_of"]


class Priority(NamedTuple):
    """Lower urgency leaves first; incremental answers of the same urgency share the way."""

    urgency: int
    incremental: bool


DEFAULT = Priority(3, False)
_urgency = re.compile(rb"(?:^|,)[ \t]*u=([0-7])[ \t]*(?=$|[,;])").search
_incremental = re.compile(rb"(?:^|,)[ \t]*i(?:=\?([01]))?[ \t]*(?=$|[,;])").search


def parse_priority(value: bytes) -> Priority:
    """The value of a Priority field or a PRIORITY_UPDATE frame; what it does not say, or says wrongly, is default."""
    urgency, incremental = _urgency(value), _incremental(value)
    return Priority(
        int(urgency[1]) if urgency is not None else DEFAULT.urgency,
        incremental is not None and incremental[1] != b"0",
    )


def priority_of(headers: Headers) -> Priority:
    """The priority that a request asks for."""
    for name, value in headers:
        if name == b"priority":
            return parse_priority(value)
    return DEFAULT
