"""DirectTLS: asyncio's TLS on the server's own loop, with a shorter way for what nearly every event is.

Theory of operation. Handshakes, ends, pauses, errors and whatever waits for a peer are asyncio's: `SSLProtocol` is a
state machine for all of it, and stays the base class. But it has two transports, and for each request it reads until
OpenSSL raises that there is no more, and looks several times at buffers that are empty. So while a connection is open
and nothing waits, the loop calls `read_ready()`, which reads the socket, decrypts and calls the protocol; and
`write_pieces()` encrypts and writes to it. What does not fit goes the way of asyncio.

OpenSSL takes from the buffer before it no more than the record that it is about to give (`read_ahead` is off). So once
that buffer is empty there is nothing to be had, and it need not be asked, which would raise.

What is read is decrypted in pieces of little more than a record. OpenSSL goes through all that it is given until there
is content; a peer that sends records without any would have the loop for as long as that takes. Where there is hardly
any content the turn ends, and the next ones are short.

It stands on what asyncio has below its documented surface in CPython 3.14, as the loop does.
"""

import os
import socket
from asyncio import sslproto, trsock
from collections.abc import Iterable, Sequence
from typing import Any

from pounce.net.direct_transport import DirectTransport

__all__ = ["DirectTLS"]

protocol_base: Any = sslproto.SSLProtocol
transport_base: Any = sslproto._SSLProtocolTransport
WRAPPED: Any = sslproto.SSLProtocolState.WRAPPED
AGAIN: Any = sslproto.SSLAgainErrors

RECORD = 16_384
"""Bytes of a record (RFC 8446 5.1), of which OpenSSL gives one at a time."""
SHORT = 2048
"""Bytes that are not worth a record of their own."""
RECV_MAX = 20_480
"""Bytes read at once: a whole record is among them if there is one."""
TURN_MAX = 102_400
"""Bytes read in one turn. With the part of a record from before they are less than `LONG_READ`."""
RECV_MIN = 2048
"""Bytes read in one turn of a peer that sends much for little."""
LITTLE = 4
"""One byte of content in more than so many is little. Records may have none: an update of keys (RFC 8446 4.6.3) is 27
bytes, and takes some fifty microseconds."""
RECORDS_MAX = 128
"""Records with content that are decrypted at once. Those that are worth the work are not a tenth as many in one read,
but they may be of a single byte."""
OUTGOING_MAX = 1_048_576
"""Encrypted bytes that the peer has not taken, from which on nothing is read: it might be what answers it."""


class Below(DirectTransport):
    """The transport of what is encrypted."""

    __slots__ = ()

    def __init__(self, loop: Any, sock: socket.socket, protocol: Any, peer: Any) -> None:
        super().__init__(loop, sock.fileno(), (0, 0, 0), protocol, peer, None)
        self._shown = trsock.TransportSocket(sock)

    def begin_reading(self) -> None:
        self._add_reader(self._sock_fd, None)

    def _add_reader(self, fd: int, callback: Any) -> None:
        if self.is_reading():
            self._loop.read_directly(fd, self._protocol.read_ready)


class Above(transport_base):  # type: ignore[misc]
    """The transport that protocols see."""

    takes_pieces = True
    """Nobody need join what is written together."""

    def write(self, data: Any) -> None:
        if type(data) is bytes and data:
            self._ssl_protocol.write_pieces((data,))
        else:
            super().write(data)

    def writelines(self, list_of_data: Any) -> None:
        if pieces := _without_short_ones(list_of_data):
            self._ssl_protocol.write_pieces(pieces)


def _without_short_ones(pieces: Iterable[bytes]) -> list[bytes]:
    """The same bytes in pieces that are worth a record; short ones go with what follows them."""
    found = []
    held = b""
    for piece in pieces:
        held += piece
        if len(held) >= SHORT:
            found.append(held)
            held = b""
    if held:
        found.append(held)
    return found


class DirectTLS(protocol_base):  # type: ignore[misc]
    """TLS on a connection that an `EpollLoop` serves."""

    # Of asyncio's.
    _app_protocol: Any
    _app_protocol_is_buffer: bool
    _app_reading_paused: bool
    _app_transport: Any
    _app_transport_created: bool
    _app_writing_paused: bool
    _incoming: Any
    _outgoing: Any
    _outgoing_high_water: int
    _ssl_reading_paused: bool
    _ssl_writing_paused: bool
    _sslobj: Any
    _state: Any
    _transport: Any
    _write_backlog: Any
    max_size = 0
    """While it is made, for a buffer that is not used here; then that of a record."""

    def __init__(self, loop: Any, protocol: Any, context: Any, waiter: Any, timeouts: dict[str, Any]) -> None:
        super().__init__(loop, protocol, context, waiter, True, **timeouts)
        self.max_size = RECORD
        self._most = RECV_MAX
        self._is_more = False
        """As much as could be has been read at once."""
        self._fd = -1
        self._set_read_buffer_limits(RECV_MAX)
        self._goes_on = False
        """What is left of the records goes on in another turn, and nothing is read until then."""
        # Without the methods in Python around them.
        raw = self._sslobj._sslobj
        self._decrypt = raw.read
        self._encrypt = raw.write

    def begin(self, below: Below) -> None:
        """Shake hands over this transport."""
        self._fd = below._sock_fd
        self.connection_made(below)
        below.begin_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fd = -1
        super().connection_lost(exc)

    def _get_app_transport(self) -> Any:
        if self._app_transport is None and not self._app_transport_created:
            self._app_transport = Above(self._loop, self)
            self._app_transport_created = True
        return super()._get_app_transport()

    # Reading

    def read_ready(self) -> None:
        """There is something to read. As asyncio's transports do with it."""
        if self._ssl_writing_paused and self._outgoing.pending > OUTGOING_MAX:
            self._ssl_reading_paused = True
            self._transport.pause_reading()
            return
        try:
            data = os.read(self._fd, self._most)
        except BlockingIOError, InterruptedError:
            return
        except OSError as exc:
            self._transport._fatal_error(exc, "Fatal read error on socket transport")
            return
        if not data:
            self._transport._read_ready__on_eof()
            return
        self._is_more = len(data) == self._most
        try:
            self._incoming.write(data)
            if self._state is WRAPPED:
                self._do_read()
            else:
                self.buffer_updated(0)
        except SystemExit, KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - it goes where asyncio has it go
            self._transport._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")

    def _do_read(self) -> None:
        if self._state is not WRAPPED or self._app_reading_paused or self._app_protocol_is_buffer:
            super()._do_read()
            return
        try:
            data, ended = self._decrypted()
            if self._is_more:
                data, ended = self._read_on(data, ended)
            if data:
                self._app_protocol.data_received(data)
            if ended:
                self._call_eof_received()
                self._start_shutdown()
            elif self._incoming.pending and not self._goes_on:
                self._goes_on = True
                self._transport.pause_reading()
                self._loop.call_soon(self._next_turn)
            if self._write_backlog:
                self._do_write()
            elif self._outgoing.pending:
                self._process_outgoing()
            if self._incoming.pending or self._ssl_reading_paused:
                self._control_ssl_reading()
        except Exception as exc:  # noqa: BLE001 - as in asyncio
            self._fatal_error(exc, "Fatal error on SSL protocol")

    def _next_turn(self) -> None:
        self._goes_on = False
        if self._transport is not None:
            self._do_read()
            if not self._goes_on and not self._ssl_reading_paused and self._transport is not None:
                self._transport.resume_reading()

    def _decrypted(self) -> tuple[bytes, bool]:
        """What has come, and whether the peer has ended TLS."""
        incoming, decrypt = self._incoming, self._decrypt
        pieces: list[bytes] = []
        ended = False
        try:
            data: bytes = decrypt(RECORD)
            if not incoming.pending:
                return data, not data
            while data:
                pieces.append(data)
                if not incoming.pending or len(pieces) == RECORDS_MAX:
                    break
                data = decrypt(RECORD)
            ended = not data
        except AGAIN:
            # What is there is no whole record, or was none for the protocol.
            pass
        return b"".join(pieces), ended

    def _read_on(self, data: bytes, ended: bool) -> tuple[bytes, bool]:
        """The same when there is more to read, for as long as that has content, of which there was `data` so far."""
        self._is_more = False
        pieces = [data]
        size = count = self._most
        while not (ended or self._incoming.pending):
            if len(data) * LITTLE < size:
                self._most = RECV_MIN
                break
            self._most = RECV_MAX
            if count >= TURN_MAX:
                break
            try:
                read = os.read(self._fd, RECV_MAX)
            except BlockingIOError, InterruptedError:
                break
            if not read:
                # It is met again.
                break
            self._incoming.write(read)
            data, ended = self._decrypted()
            pieces.append(data)
            size = len(read)
            count += size
            if size < RECV_MAX:
                break
        return b"".join(pieces), ended

    def resume_writing(self) -> None:
        super().resume_writing()
        self._control_ssl_reading()

    # Writing

    def write_pieces(self, pieces: Sequence[bytes]) -> None:
        """Write pieces, at least one and none of them empty, each in records of its own: at once, while nothing waits
        to be encrypted, nor to be sent."""
        at = sent = 0
        if self._state is WRAPPED and not self._write_backlog and not self._ssl_writing_paused:
            try:
                for data in pieces:
                    sent = 0
                    sent = self._encrypt(data)
                    if sent != len(data):
                        break
                    at += 1
                else:
                    self._process_outgoing()
                    return
            except AGAIN:
                pass
            except Exception as exc:  # noqa: BLE001 - as in asyncio
                self._fatal_error(exc, "Fatal error on SSL protocol")
                return
        self._write_appdata((pieces[at][sent:], *pieces[at + 1 :]))

    def _process_outgoing(self) -> None:
        if not self._ssl_writing_paused:
            data = self._outgoing.read()
            if data:
                self._send(data)
            if not (self._write_backlog or self._app_writing_paused) and self._outgoing_high_water:
                return
        self._control_app_writing()

    def _send(self, data: bytes) -> None:
        below = self._transport
        if not below._buffer and not below._conn_lost:
            try:
                sent = os.write(self._fd, data)
            except OSError:
                # The transport will meet the same, and knows what to do.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        below.write(data)
