"""The judges: four readers of the same bytes, what each says, and how far they may differ.

`pounce_says` runs one of our parsers over a stream; what it says must not depend on how the stream was cut.
`h11_says` and `httptools_says` read one request from the start of some bytes. The comparison walks the stream with
our boundaries: every request begins, for everybody, where the one before ended for us, so that a judge who puts an
end elsewhere disagrees at that request, and none can lose its way after a harmless difference.

Every difference that is meant is in two places. `httptools_reads` and `h11_reads` spare the others what they are known
to refuse or to put in other words though we accept it; the `STRICTER` tables name the refusals of ours that others do
not share. Whatever is in neither is a finding.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import h11
import httptools

from pounce.contract.head import RequestHead
from pounce.errors import BadRequest
from pounce.h1.h11_parser import H11Parser
from pounce.plugin import EndOfBody, Parser, ParserLimits
from pounce_h1fast import parser as h1fast
from pounce_h1fast.parser import FastParser, LineTable

FUZZ_SECONDS = float(os.environ.get("POUNCE_FUZZ", "0"))
"""How long a long run takes; 0 for the short one of every day."""

LIMITS = ParserLimits(max_header_size=4096, max_headers=40)
TIGHT = ParserLimits(max_header_size=256, max_headers=4)

TALLY: Counter[tuple[str, str]] = Counter()
"""How often each judge said what."""
CASES: Counter[str] = Counter()
"""How many streams each rule was held against."""


class Said(NamedTuple):
    """A request as a judge understood it, as far as it went."""

    method: bytes
    target: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    end: int | None = None
    """Where in the stream it ends; None while it has not."""
    derived: tuple[object, ...] = ()
    """What our own parsers conclude: the other judges leave it empty."""


class Verdict(NamedTuple):
    """What one of our parsers said about a stream."""

    requests: tuple[Said, ...]
    error: BadRequest | None
    unread: int
    """Bytes that no event has covered; 0 after an error."""

    @property
    def meaning(self) -> tuple[object, ...]:
        """What must be the same for every way to cut the stream, and for both of our parsers."""
        why = None if self.error is None else (self.error.status, self.error.code)
        return self.requests, why, bool(self.unread)

    @property
    def next_start(self) -> int:
        """Where the first request starts that is not complete."""
        return max((said.end for said in self.requests if said.end is not None), default=0)


def fast_says(data: bytes, cuts: Iterable[int] = (), limits: ParserLimits = LIMITS) -> Verdict:
    cuts = list(cuts)
    verdict = pounce_says(FastParser, data, cuts, limits, in_one_step=True)
    apart = pounce_says(FastParser, data, cuts, limits)
    assert apart.meaning == verdict.meaning, f"{data!r} cut at {cuts}: in one step {verdict}, in two {apart}"
    _count("h1fast", verdict)
    return verdict


def guarded_h11_says(data: bytes, cuts: Iterable[int] = (), limits: ParserLimits = LIMITS) -> Verdict:
    verdict = pounce_says(H11Parser, data, cuts, limits)
    _count("h11 with our guard", verdict)
    return verdict


def pounce_says(
    create: Callable[[ParserLimits], Parser],
    data: bytes,
    cuts: Iterable[int] = (),
    limits: ParserLimits = LIMITS,
    in_one_step: bool = False,
) -> Verdict:
    """With `in_one_step` what comes between requests is given to `first_event()`."""
    reader = create(limits)
    requests: list[Said] = []
    fed = 0
    for piece in pieces(data, cuts):
        first: Any = None
        if in_one_step and not reader.buffered and (not requests or requests[-1].end is not None):
            first = reader.first_event  # type: ignore[attr-defined]
        else:
            reader.receive_data(piece)
        fed += len(piece)
        while True:
            try:
                event = reader.next_event() if first is None else first(piece)
                first = None
            except BadRequest as error:
                return Verdict(tuple(requests), error, 0)
            if event is None:
                break
            if isinstance(event, RequestHead):
                said = Said(event.method, event.target, event.version, tuple(event.headers), derived=_derived(event))
                requests.append(said)
                # An application may do as it likes with its list: nobody else must notice.
                event.headers.append((b"x-scribble", b"by the application"))
                if event.content_length == 0:
                    requests[-1] = said._replace(end=fed - reader.buffered)
            elif isinstance(event, EndOfBody):
                requests[-1] = requests[-1]._replace(trailers=tuple(event.trailers or ()), end=fed - reader.buffered)
            else:
                assert type(event) is bytes and event, f"a piece of body is {event!r}"
                requests[-1] = requests[-1]._replace(body=requests[-1].body + event)
    in_body = bool(requests) and requests[-1].end is None
    return Verdict(tuple(requests), None, 1 if in_body else reader.buffered)


@contextmanager
def empty_table() -> Iterator[None]:
    """Inside, parsers of this thread get a table of lines that has seen nothing."""
    used, h1fast._tables.lines = h1fast._tables.lines, LineTable()
    try:
        yield
    finally:
        h1fast._tables.lines = used


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """`data` cut at the given offsets; no piece is empty."""
    at = 0
    for cut in sorted({cut for cut in cuts if 0 < cut < len(data)}):
        yield data[at:cut]
        at = cut
    if data[at:]:
        yield data[at:]


def _derived(head: RequestHead) -> tuple[object, ...]:
    return head.scheme, head.upgrade, head.content_length, head.expect_continue, head.keep_alive


class Reading(NamedTuple):
    """What a foreign judge read at the start of some bytes."""

    said: Said | None
    error: str | None


def h11_says(data: bytes) -> Reading:
    """h11 itself, without our guard."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    said: Said | None = None
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return Reading(said, str(error))
        if isinstance(event, h11.Request):
            headers = tuple((name.lower(), value) for name, value in event.headers.raw_items())
            said = Said(event.method, event.target, event.http_version.decode(), headers)
        elif isinstance(event, h11.Data):
            assert said is not None
            said = said._replace(body=said.body + bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert said is not None
            end = len(data) - len(connection.trailing_data[0])
            return Reading(said._replace(trailers=tuple(event.headers), end=end), None)
        else:
            return Reading(said, None)


class _Collector:
    """Callbacks of httptools for one message."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.in_head = True
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp leaves the blanks at the end, which RFC 9112 5.1 says to exclude; Node strips them afterwards too.
        (self.headers if self.in_head else self.trailers).append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def httptools_says(data: bytes) -> Reading:
    """llhttp, the parser of Node, in its strict mode. It is fed byte by byte, which shows where a message ends."""
    seen = _Collector()
    parser = httptools.HttpRequestParser(seen)
    error: str | None = None
    end: int | None = None
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            # "The rest is another protocol": the request itself is complete.
            pass
        except httptools.HttpParserError as exc:
            error = str(exc)
            break
        if seen.complete:
            end = at + 1
            break
    if seen.in_head:
        return Reading(None, error)
    version = parser.get_http_version()
    trailers = tuple(seen.trailers)
    return Reading(Said(parser.get_method(), seen.url, version, tuple(seen.headers), seen.body, trailers, end), error)


# RFC 9110 9.1: "Additional methods, outside the scope of this specification, have been specified for use in HTTP";
# a method is any token, but llhttp knows these only.
LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND"
    b" UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK"
    b" UNLINK SOURCE QUERY".split()
)


def httptools_reads(data: bytes, ours: Said) -> Reading:
    """What httptools says about the request that starts `data` once it is spared what it is known to refuse.

    Only that is rewritten, and put back in the answer, so that everything else is still compared.
    """
    lead = _empty_lines(data)
    head_end = data.index(b"\r\n\r\n", lead) + 4
    line, line_end, fields = data[lead:head_end].partition(b"\r\n")
    sent_method, _, rest = line.partition(b" ")
    method = sent_method if sent_method in LLHTTP_METHODS else b"POST"
    # RFC 9110 2.5: a recipient "SHOULD process the message as if it were in the highest minor version within that major
    # version to which the recipient is conformant". llhttp refuses HTTP/1.2.
    if ours.version == "1.1":
        rest = rest[:-1] + b"1"
    # RFC 9112 5: field-line = field-name ":" OWS field-value OWS, where OWS may be tabs. llhttp refuses a tab after
    # the last transfer coding.
    fields = _blanks_after_chunked(rb"\1", line_end + fields)
    # RFC 9110 7.8: "the client cannot begin using an upgraded protocol on the connection until it has completely sent
    # the request message". httptools ends the message before its body; so we hide the field from it.
    fields = _upgrade_field(rb"\1x-grade:", fields)
    spared = data[:lead] + method + b" " + rest + fields
    said, error = httptools_says(spared + data[head_end:])
    if said is None:
        return Reading(None, error)
    headers = tuple((b"upgrade" if name == b"x-grade" else name, value) for name, value in said.headers)
    said = said._replace(headers=headers)
    if said.method == method:
        said = said._replace(method=sent_method)
    if said.end is not None:
        said = said._replace(end=said.end + head_end - len(spared))
    return Reading(said, error)


_blanks_after_chunked = re.compile(rb"(\r\ntransfer-encoding:[ \t]*chunked)[ \t]+(?=\r\n)", re.IGNORECASE).sub
_upgrade_field = re.compile(rb"(\r\n)upgrade:", re.IGNORECASE).sub


def _empty_lines(data: bytes) -> int:
    """Where the request line is."""
    at = 0
    while data.startswith(b"\r\n", at):
        at += 2
    return at


def h11_reads(data: bytes, ours: Said) -> Reading:
    """What h11 says about the request that starts `data`, where it is known to differ put as we put it."""
    # RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
    # line (CRLF) received prior to the request-line". h11 refuses it.
    lead = _empty_lines(data)
    said, error = h11_says(data[lead:])
    if said is None:
        return Reading(None, error)
    if ours.version == "1.1" and said.version[:2] == "1.":
        # RFC 9110 2.5, as above: h11 accepts HTTP/1.2, and reports it as that.
        said = said._replace(version="1.1")
    # RFC 9112 7: "All transfer-coding names are case-insensitive". h11 reports them in lower case.
    as_sent = dict(ours.headers).get(b"transfer-encoding")
    if as_sent is not None and (b"transfer-encoding", as_sent.lower()) in said.headers:
        at = said.headers.index((b"transfer-encoding", as_sent.lower()))
        said = said._replace(headers=(*said.headers[:at], (b"transfer-encoding", as_sent), *said.headers[at + 1 :]))
    return Reading(said._replace(end=said.end + lead) if said.end is not None else said, error)


# What we refuse and another judge may accept: the code of our refusal, and the sentence that allows or demands it.
# A refusal with a code that is not here must be shared.
STRICTER = {
    "BAD_TARGET": "RFC 9112 3.2: each form of target belongs to certain methods; 3.2.1 to 3.2.4 know no fragment.",
    "BAD_HOST": 'RFC 9112 3.2: 400 for a Host "with an invalid field value"; 3.2.2: the authority of the target.',
    "NO_HOST": 'RFC 9112 3.2: 400 for "any HTTP/1.1 request message that lacks a Host header field".',
    "BAD_EXPECT": "RFC 9110 10.1.1: 417 for an expectation other than 100-continue.",
    "CONNECT": "RFC 9110 9.3.6: an origin server may not implement CONNECT.",
    "BAD_VERSION": "RFC 9110 15.6.6: 505 for a major version that is not served.",
    "BAD_LINE_END": "RFC 9112 2.2: a recipient MAY recognise a single LF as a line terminator; we do not.",
    "BAD_TRANSFER_ENCODING": "RFC 9112 6.1: Transfer-Encoding in HTTP/1.0 has faulty framing.",
    "BAD_TRAILER": "RFC 9110 6.5.1: no fields in trailers that framing, routing or authentication need.",
    "BAD_CHUNK": 'RFC 9112 7.1.1: a recipient "ought to limit the total length of chunk extensions".',
    "CHUNK_OVERHEAD": "RFC 9112 7.1.1, as above.",
    "TARGET_TOO_LONG": "RFC 9112 3: 414 for a request-target longer than the server wishes to parse.",
    "HEADERS_TOO_LARGE": "RFC 6585 5: 431 for header fields that are too large.",
    "TOO_MANY_HEADERS": "RFC 6585 5, as above.",
}
STRICTER_THAN_H11 = STRICTER | {
    "METHOD_TOO_LONG": "RFC 9112 3: 501 for a method longer than any that is implemented.",
    "BAD_HEADER": "RFC 9112 5.2: obs-fold MUST be rejected or replaced; RFC 9110 5.5: controls are invalid. h11"
    " unfolds, and takes controls but NUL in values.",
    "BAD_CHUNK": "RFC 9112 7.1.1: chunk-ext is tokens and quoted strings. h11 takes anything after the semicolon,"
    " blanks before the CRLF, and sizes of up to 20 digits.",
    "BAD_CONTENT_LENGTH": "RFC 9110 8.6: a list of equal numbers MAY be rejected or replaced. h11 replaces it.",
    "DUPLICATE_CONTENT_LENGTH": "RFC 9110 8.6, as above.",
    "SMUGGLING_CL_TE": "RFC 9112 6.1: a server MAY reject Content-Length together with Transfer-Encoding.",
}
STRICTER_THAN_HTTPTOOLS = STRICTER | {
    "MALFORMED_REQUEST_LINE": "RFC 9112 3: single spaces. llhttp takes several, HTTP/0.9, and empty lines of bare LF.",
    "BAD_CONTENT_LENGTH": 'RFC 9110 8.6: "prevent parsing errors due to integer conversion overflows". We refuse 20'
    " digits, llhttp what does not fit in 64 bits.",
    "DUPLICATE_HOST": 'RFC 9112 3.2: 400 for "more than one Host header field line"; llhttp leaves it to Node.',
    "UNKNOWN_TRANSFER_CODING": "RFC 9112 6.1: 501 for a coding not understood; llhttp takes any before chunked.",
}


def compare(
    data: bytes,
    verdict: Verdict,
    judge: str,
    reads: Callable[[bytes, Said], Reading],
    says: Callable[[bytes], Reading],
    stricter: dict[str, str],
) -> None:
    """Hold what we accepted and refused against another judge. Raises `AssertionError`."""
    start = 0
    for ours in verdict.requests:
        read = reads(data[start:], ours)
        theirs = read.said
        where = f"{judge}, request at {start} of {data!r}: we say {ours}, they say {read}"
        assert theirs is not None, where
        assert (theirs.method, theirs.target, theirs.version) == (ours.method, ours.target, ours.version), where
        assert theirs.headers == ours.headers, where
        if ours.end is None:
            assert theirs.body.startswith(ours.body), where
            assert verdict.error is not None or theirs.end is None, f"we want more, they do not: {where}"
            break
        assert read.error is None, where
        assert theirs.end is not None and start + theirs.end == ours.end, where
        assert theirs.body == ours.body, where
        assert theirs.trailers == ours.trailers, where
        start = ours.end
        TALLY[judge, "requests accepted"] += 1
    if verdict.error is not None:
        # A refusal in a body is about a request that was compared above, a refusal of a head about one that was not.
        in_body = bool(verdict.requests) and verdict.requests[-1].end is None
        rest = data[verdict.next_start :]
        read = reads(rest, verdict.requests[-1]) if in_body else says(rest)
        if read.error is not None:
            TALLY[judge, "refused with us"] += 1
        elif read.said is None or read.said.end is None:
            TALLY[judge, "waited where we refused"] += 1
        else:
            TALLY[judge, "accepted what we refused"] += 1
            TALLY[judge, f"  {verdict.error.code}"] += 1
            assert verdict.error.code.removeprefix("POUNCE_PARSE_") in stricter, (
                f"{judge} accepts what we refuse ({verdict.error.code}, {verdict.error}): {read.said} in {data!r}"
            )


def compare_with_h11(data: bytes, verdict: Verdict) -> None:
    compare(data, verdict, "h11", h11_reads, h11_says, STRICTER_THAN_H11)


def compare_with_httptools(data: bytes, verdict: Verdict) -> None:
    compare(data, verdict, "httptools", httptools_reads, httptools_says, STRICTER_THAN_HTTPTOOLS)


def _count(judge: str, verdict: Verdict) -> None:
    outcome = "streams refused" if verdict.error else "streams unfinished" if verdict.unread else "streams accepted"
    TALLY[judge, outcome] += 1
    TALLY[judge, "requests accepted"] += sum(said.end is not None for said in verdict.requests)
    if verdict.error is not None:
        TALLY[judge, f"  {verdict.error.code} {verdict.error.status}"] += 1


def report() -> Iterator[str]:
    """The tally, line by line."""
    for rule, count in sorted(CASES.items()):
        yield f"{count:9,} cases: {rule}"
    for judge in dict.fromkeys(judge for judge, _ in sorted(TALLY)):
        yield judge
        for outcome in sorted(what for who, what in TALLY if who == judge):
            yield f"{TALLY[judge, outcome]:9,} {outcome}"
