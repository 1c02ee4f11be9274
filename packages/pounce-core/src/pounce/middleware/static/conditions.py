"""Conditional requests and ranges: what a client asks of the representation that is there (RFC 9110 13 and 14)."""

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

__all__ = ["RANGES_MAX", "Fields", "Validators", "Verdict", "byte_ranges", "judge"]

RANGES_MAX = 10
"""Ranges of one request that are served; a request for more gets the whole (RFC 9110 14.2 allows that, 17.15 why)."""
STRONG_AFTER = 60
"""Seconds after a change from which its time tells it from all others."""

# RFC 9110 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_tag = re.compile(rb'[ \t]*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*)?(?:,|\Z)').match
# RFC 9110 5.6.7: IMF-fixdate, and the two that are obsolete; no other form, and no second date behind it.
_TIME = rb"\d\d:\d\d:\d\d"
_DAY, _MONTH = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_date = re.compile(
    rb"%b, \d\d %b \d{4} %b GMT|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d\d-%b-\d\d %b GMT|%b %b [ \d]\d %b \d{4}"
    % (_DAY, _MONTH, _TIME, _MONTH, _TIME, _DAY, _MONTH, _TIME)
).fullmatch
# RFC 9110 14.1.1: range-set = 1#range-spec
_range = re.compile(rb"(\d{0,19})-(\d{0,19})").fullmatch

type Span = tuple[int, int]
"""First byte and the one after the last."""


class Validators(NamedTuple):
    """Of the selected representation."""

    etag: bytes
    """A strong one, with its quotes."""
    modified: int
    """Unix time in whole seconds."""


class Fields(NamedTuple):
    """The conditional fields of a request; None where there is no such field."""

    if_match: bytes | None = None
    if_none_match: bytes | None = None
    if_modified_since: bytes | None = None
    if_unmodified_since: bytes | None = None
    if_range: bytes | None = None
    range: bytes | None = None

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Fields:
        """Of a request's fields, whose names are in lower case; lists that were split are put together."""
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _NAMES:
                found[name] = found[name] + b", " + value if name in found else value
        return cls(*(found.get(name) for name in _NAMES)) if found else NONE


_NAMES = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range")
NONE = Fields()


class Verdict(NamedTuple):
    """What a GET or HEAD is answered with."""

    status: int
    """200, 206, 304, 412 or 416."""
    spans: tuple[Span, ...] = ()
    """The ranges of a 206."""


WHOLE = Verdict(200)


def judge(fields: Fields, validators: Validators, size: int, method: str, now: float) -> Verdict:
    """Evaluate the preconditions in their order (RFC 9110 13.2.2), then the range; `now` is the Unix time."""
    if fields is NONE:
        return WHOLE
    if fields.if_match is not None:
        # RFC 9110 13.1.1: strong comparison
        if not _matches(fields.if_match, validators.etag, weakly=False):
            return Verdict(412)
    elif fields.if_unmodified_since is not None:
        since = _seconds(fields.if_unmodified_since)
        if since is not None and validators.modified > since:
            return Verdict(412)
    if fields.if_none_match is not None:
        # RFC 9110 13.1.2: weak comparison
        if _matches(fields.if_none_match, validators.etag, weakly=True):
            return Verdict(304)
    elif fields.if_modified_since is not None:
        since = _seconds(fields.if_modified_since)
        if since is not None and validators.modified <= since:
            return Verdict(304)
    # RFC 9110 14.2: "A server MUST ignore a Range header field received with a request method that is unrecognized or
    # for which range handling is not defined", which it is for GET alone.
    if fields.range is None or method != "GET":
        return WHOLE
    if fields.if_range is not None and not _is_current(fields.if_range, validators, now):
        return WHOLE
    spans = byte_ranges(fields.range, size)
    if spans is None:
        return WHOLE
    return Verdict(206, spans) if spans else Verdict(416)


def _matches(condition: bytes, etag: bytes, *, weakly: bool) -> bool:
    if condition.strip(b" \t") == b"*":
        return True
    at = 0
    while at < len(condition):
        match = _tag(condition, at)
        if match is None:
            # What follows is no entity tag. A precondition that cannot be read is not met.
            return False
        if match[2] == etag and (weakly or match[1] is None):
            return True
        at = match.end()
    return False


def _is_current(if_range: bytes, validators: Validators, now: float) -> bool:
    """RFC 9110 13.1.5: an entity tag, compared strongly, or the exact date."""
    value = if_range.strip(b" \t")
    if value[:1] == b'"' or value[:2] == b"W/":
        return value == validators.etag
    # RFC 9110 8.8.2.2: a date is a strong validator when the file cannot have changed twice in its second.
    return _seconds(value) == validators.modified and now - validators.modified >= STRONG_AFTER


def _seconds(date: bytes) -> int | None:
    """Unix time of an HTTP date in any of its three formats (RFC 9110 5.6.7); None for what is none: it is ignored."""
    if _date(date.strip(b" \t")) is None:
        return None
    try:
        moment = parsedate_to_datetime(date.decode("ascii"))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError, OverflowError, UnicodeDecodeError:
        return None


def byte_ranges(value: bytes, size: int) -> tuple[Span, ...] | None:
    """What of `size` bytes a Range field asks for, in its order, those that touch put together.

    Empty when none can be satisfied (RFC 9110 15.5.17); None when the field is to be ignored: another unit than bytes,
    not valid (14.2), or more than `RANGES_MAX` ranges.
    """
    unit, equals, ranges = value.partition(b"=")
    if not equals or unit.strip(b" \t").lower() != b"bytes":
        return None
    spans: list[Span] = []
    specs = [spec for part in ranges.split(b",") if (spec := part.strip(b" \t"))]
    if not specs or len(specs) > RANGES_MAX:
        return None
    for spec in specs:
        match = _range(spec)
        if match is None or spec == b"-":
            return None
        first, last = match.groups()
        if not first:
            count = min(int(last), size)
            begin, end = size - count, size
        else:
            begin, end = int(first), min(int(last) + 1, size) if last else size
            if last and int(last) < int(first):
                return None
        if begin < end:
            spans.append((begin, end))
    return _put_together(spans)


def _put_together(spans: list[Span]) -> tuple[Span, ...]:
    """RFC 9110 14.2 lets a server coalesce ranges that overlap or touch; each stays where the first of them stood."""
    merged: list[Span] = []
    for begin, end in spans:
        for index, (other_begin, other_end) in enumerate(merged):
            if begin <= other_end and other_begin <= end:
                begin, end = min(begin, other_begin), max(end, other_end)
                merged[index] = (begin, end)
                # It may touch others now.
                rest = [span for at, span in enumerate(merged) if at != index]
                if any(begin <= their_end and their_begin <= end for their_begin, their_end in rest):
                    return _put_together(merged)
                break
        else:
            merged.append((begin, end))
    return tuple(merged)
