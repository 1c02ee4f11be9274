"""The permessage-deflate extension (RFC 7692): what is agreed on, and both directions of it."""

import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from pounce.errors import BadRequest
from pounce_ws.violation import Violation

__all__ = ["Agreement", "Deflater", "Inflater", "negotiate", "parse_extensions"]

NAME = "permessage-deflate"
INFLATE_PART = 65536
"""Bytes that are inflated at once."""
MEMORY_LEVEL = 5
"""Of zlib; with a window of 12 bits a deflater takes 32 KiB, where the default would be 256 KiB."""
TAIL = b"\x00\x00\xff\xff"
"""RFC 7692 7.2.1: the end of a flushed block, which messages are sent without."""

# RFC 6455 9.1, RFC 7230 3.2.6: a quoted value "MUST conform to the 'token' ABNF" when it is unquoted.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_extension = re.compile(rf'[ \t]*({_TOKEN})((?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|"{_TOKEN}"))?)*)[ \t]*')
_parameter = re.compile(rf'({_TOKEN})(?:[ \t]*=[ \t]*"?({_TOKEN})"?)?')
_window_bits = re.compile(r"[89]|1[0-5]").fullmatch

type Parameters = list[tuple[str, str | None]]


def parse_extensions(values: Iterable[bytes]) -> list[tuple[str, Parameters]]:
    """The extensions that the values of Sec-WebSocket-Extensions offer, in their order.

    Raises `BadRequest`: RFC 6455 9.1 lets nobody accept what does not conform to the grammar.
    """
    offers: list[tuple[str, Parameters]] = []
    for value in values:
        text = value.decode("latin-1")
        at = 0
        while at < len(text):
            if text[at] in ", \t":
                # RFC 9110 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
                at += 1
                continue
            match = _extension.match(text, at)
            if match is None or (match.end() < len(text) and text[match.end()] != ","):
                raise BadRequest("Sec-WebSocket-Extensions is malformed", code="POUNCE_WS_BAD_EXTENSIONS")
            offers.append((match[1], [(found[1], found[2]) for found in _parameter.finditer(match[2])]))
            at = match.end() + 1
    return offers


class Agreement(NamedTuple):
    """What both sides will do. The window of the client is bounded only where it offered to let us choose."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    server_bits_asked: bool
    client_max_window_bits: int
    client_bits_offered: bool

    def header(self) -> bytes:
        """The value of Sec-WebSocket-Extensions that says so."""
        value = NAME
        if self.server_no_context_takeover:
            value += "; server_no_context_takeover"
        if self.client_no_context_takeover:
            value += "; client_no_context_takeover"
        if self.server_bits_asked:
            value += f"; server_max_window_bits={self.server_max_window_bits}"
        if self.client_bits_offered:
            value += f"; client_max_window_bits={self.client_max_window_bits}"
        return value.encode()


def negotiate(offers: Iterable[tuple[str, Parameters]], window_bits: int, takeover: bool) -> Agreement | None:
    """The first offer that can be accepted (RFC 7692 5.1, 7.1), with windows of at most `window_bits`."""
    for name, parameters in offers:
        if name == NAME:
            agreement = _accept(parameters, window_bits, takeover)
            if agreement is not None:
                return agreement
    return None


def _accept(parameters: Parameters, window_bits: int, takeover: bool) -> Agreement | None:
    given = dict(parameters)
    if len(given) < len(parameters):
        return None
    server_bits, client_bits = 15, 15
    for name, value in parameters:
        if name == "server_no_context_takeover" or name == "client_no_context_takeover":
            if value is not None:
                return None
        elif name == "server_max_window_bits":
            if value is None or not _window_bits(value):
                return None
            server_bits = int(value)
        elif name == "client_max_window_bits":
            if value is not None:
                if not _window_bits(value):
                    return None
                client_bits = int(value)
        else:
            return None
    if server_bits < 9:
        # zlib cannot deflate with so small a window.
        return None
    client_bits_offered = "client_max_window_bits" in given
    return Agreement(
        server_no_context_takeover=not takeover or "server_no_context_takeover" in given,
        client_no_context_takeover=not takeover or "client_no_context_takeover" in given,
        server_max_window_bits=min(server_bits, window_bits),
        server_bits_asked="server_max_window_bits" in given,
        client_max_window_bits=min(client_bits, window_bits) if client_bits_offered else 15,
        client_bits_offered=client_bits_offered,
    )


class Inflater:
    """Inflates the messages of a client, piece by piece and never beyond a bound.

    What a piece inflates to is given out in parts of up to `INFLATE_PART` bytes; `more` tells that there may be more.
    """

    __slots__ = ("_bits", "_blocks", "_input", "_takeover", "_zlib", "more")

    def __init__(self, agreement: Agreement) -> None:
        # A larger window than was agreed on does no harm, and zlib has none of 8 bits.
        self._bits = -max(agreement.client_max_window_bits, 9)
        self._takeover = not agreement.client_no_context_takeover
        self._zlib: zlib._Decompress | None = None
        self._input = b""
        self._blocks = 0
        """Last blocks in the piece that is inflated."""
        self.more = False

    def inflate(self, data: bytes, room: int) -> bytes:
        """The first part of what a piece of a message inflates to.

        Raises `Violation` when that is more than `room` bytes, of which no more are made, or when it is not deflated.
        """
        self._input = data
        self._blocks = 0
        return self.go_on(room)

    def go_on(self, room: int) -> bytes:
        """The next part, while there is `more`; may be empty. Raises as `inflate()` does."""
        if self._zlib is None:
            self._zlib = zlib.decompressobj(self._bits)
        limit = min(room + 1, INFLATE_PART)
        try:
            result = self._zlib.decompress(self._input, limit)
        except zlib.error:
            raise not_deflated() from None
        if len(result) > room:
            raise Violation(1009, "message is too large when it is inflated")
        if self._zlib.eof:
            # RFC 7692 7.2.3.4: a block with BFINAL, after which the client's deflater begins anew. One for each piece
            # will do: inflaters are dear.
            self._blocks += 1
            if self._blocks > 1:
                raise not_deflated()
            self._input = self._zlib.unused_data
            self._zlib = None
            self.more = bool(self._input)
        else:
            self._input = self._zlib.unconsumed_tail
            self.more = len(result) == limit
        return result

    def end(self, room: int) -> bytes:
        """What is left at the end of a message, when there is no `more`; raises as `inflate()` does."""
        result = b""
        if self._zlib is not None:
            result = self.inflate(TAIL, room)
            while self.more:
                # A few bytes, of which the first may be those of a long run.
                result += self.go_on(room - len(result))
        if not self._takeover:
            self._zlib = None
        return result


def not_deflated() -> Violation:
    return Violation(1007, "message is not deflated")


class Deflater:
    """Deflates the messages of the server."""

    __slots__ = ("_bits", "_takeover", "_zlib")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = -agreement.server_max_window_bits
        self._takeover = not agreement.server_no_context_takeover
        self._zlib: zlib._Compress | None = None

    def deflate(self, data: bytes) -> bytes:
        """The payload of a message, deflated."""
        return self.begin(data) + self.end()

    def begin(self, data: bytes) -> bytes:
        """The first, or next, piece of a message's payload; nothing but the rest of that message may follow."""
        if self._zlib is None:
            self._zlib = zlib.compressobj(wbits=self._bits, memLevel=MEMORY_LEVEL)
        return self._zlib.compress(data)

    def end(self) -> bytes:
        """The last piece of the payload."""
        assert self._zlib is not None
        result = self._zlib.flush(zlib.Z_SYNC_FLUSH)
        if not self._takeover:
            self._zlib = None
        return result[:-4]

    def forget(self) -> None:
        """The message that was begun is not sent: later ones must not refer to it."""
        self._zlib = None
