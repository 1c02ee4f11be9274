"""Connection: what every wire over TCP needs and none should write again.

Corked writes, back-pressure, a share of each turn of the loop, deadlines as numbers, and a place in the worker's set
of connections. Nothing here knows a protocol. A worker's ticker looks at `deadline` and `write_deadline` of each
connection a few times a second, so that no request costs a timer.

What a peer sends makes work, and how much of it is done in one turn is bounded (`contract/turns.py`): a wire takes
steps from `share` for what it reads. When none is left and there is more, it keeps what it has not looked at and calls
`park()`. Then nothing is read until `next_turn()` goes on. So the end of what the peer sends is never met before what
came ahead of it; nor is a deadline, which stands still while it is us who keep its bytes waiting.

It is long and one thing: reading, writing, waiting and ending act on the same transport, and each changes what the
others may do. What knows only a socket is in `net/delivery.py`, and what outlives the transport in `net/linger.py`.
"""

import asyncio
import functools
import os
import socket
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, cast

from pounce.contract.stream import ConnectionInfo
from pounce.contract.turns import STEPS, Share
from pounce.contract.wire import Service
from pounce.net.connection_info import connection_info
from pounce.net.delivery import (
    LINGER_TIMEOUT,
    acknowledged,
    has_queued,
    is_full,
    leave_to_kernel,
    queued,
    reset_when_closed,
    second_descriptor,
    undelivered,
)
from pounce.net.linger import LINGER_MAX, go_on
from pounce.net.proxy_protocol import ProxyHeader

__all__ = [
    "CORK_LIMIT",
    "LINGER_MAX",
    "Connection",
    "ForeignConnection",
    "WireFailed",
    "without_base",
]

CORK_LIMIT = 16384
"""Bytes that are gathered into one write at the most."""
GATHERED = 8192
"""Bytes of several pieces from which on it takes longer to join them than to hand them over one by one."""
TLS_GATHERED = 32_768
"""The same where each of them may be a record, above TLS other than our own, or is written by itself."""
RECV_MAX = 65536
"""Bytes read at once."""
TLS_RECV_MAX = 262_144
"""The same of what TLS connections send."""
TLS_RECORD = 16_384
"""Bytes of a record (RFC 8446 5.1), of which OpenSSL gives one at a time."""
LONG_READ = 131_072
"""Bytes in one piece after which others have their turn. asyncio reads less than that; uvloop, where a client fills its
256,000 bytes, would go on at once with the next as many."""
LAST_STEPS = 512
"""Steps that are taken at once when a peer has ended TLS: afterwards nothing can be sent to it."""
POSTPONE_MIN = 0.25
"""Seconds in which bytes waited for their turn, from which on deadlines are moved."""

REST_MIN = 16_384
"""Bytes that the kernel brings to the peer by itself once a connection is closed: an answer or so. For more than that
somebody goes on watching it."""


# Who reads from the socket: the transport; the connection itself, at the moment or when it is resumed; nobody any more.
BY_TRANSPORT, READING, PAUSED, ENDED = range(4)


class WireFailed(Exception):
    """An OSError that a wire let escape. asyncio would take it for the network's and say nothing."""


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Connection) -> Any:
        self._ended_by_peer = True
        if self.lingering:
            return False
        try:
            return method(self)
        except OSError as exc:
            raise WireFailed(str(exc)) from exc

    @functools.wraps(method)
    def call_with(self: Connection, data: bytes) -> Any:
        if self.lingering:
            self.linger_over(len(data))
            return
        if not self.share.waits:
            self.share.left = STEPS
        try:
            method(self, data)
        except OSError as exc:
            raise WireFailed(str(exc)) from exc
        if len(data) > LONG_READ and self.transport.is_reading():
            self.rest()

    return call_with if method.__name__ == "data_received" else call


def _ends(method: Callable[[Any, Exception | None], None]) -> Callable[[Any, Exception | None], None]:
    @functools.wraps(method)
    def call(self: Connection, exc: Exception | None) -> None:
        try:
            method(self, exc)
        finally:
            if self in self.service.connections:
                # It has raised, or does not call the base: what it still sends must not go to whoever has the
                # descriptor next.
                Connection.connection_lost(self, exc)

    return call


class Connection(asyncio.Protocol):
    """Base class of a connection: a wire overrides what it needs, and calls the base where it says so."""

    __slots__ = (
        "_choked",
        "_cork",
        "_cork_size",
        "_direct",
        "_ended_by_peer",
        "_fd",
        "_held_for",
        "_is_over",
        "_most",
        "_paused",
        "_reads",
        "_rest_is_lost",
        "_resting",
        "_second",
        "_taken",
        "_was_delivered",
        "added",
        "connection",
        "corked",
        "deadline",
        "held_since",
        "lingering",
        "loop",
        "proxied",
        "service",
        "share",
        "transport",
        "wire",
        "writable",
        "write_deadline",
    )

    wire: str
    """Name of the wire, for messages."""
    _is_over: bool
    """There once the end has been told: what is given to each connection takes its time."""

    def __init_subclass__(
        cls, guarded: tuple[str, ...] = ("data_received", "eof_received", "connection_lost")
    ) -> None:
        """`guarded`: the events from which an OSError must not reach asyncio, or behind which the end must be seen to,
        and that do not see to it themselves."""
        super().__init_subclass__()
        for name in guarded:
            if name in cls.__dict__:
                guard = _ends if name == "connection_lost" else _guarded
                setattr(cls, name, guard(cls.__dict__[name]))

    def __init__(self, service: Service, wire: str = "") -> None:
        self.service = service
        """That of the worker, by which a wire opens requests."""
        self.loop = service.loop
        """The worker's event loop, to which everything of the connection belongs."""
        self.wire = wire
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        """Of asyncio, from `connection_made()` on. It is not written to, nor told to read, but by the methods below."""
        self.connection: ConnectionInfo = None  # type: ignore[assignment]
        """What is known of it, from `connection_made()` on."""
        self.proxied: ProxyHeader | None = None
        """What a proxy in front has said by the PROXY protocol."""
        self.writable = True
        """False between `pause_writing()` and `resume_writing()`: more would pile up."""
        self.corked = False
        """What is sent is gathered, until `uncork()`."""
        self.deadline = inf
        """The loop time at which `deadline_passed()` is called; `inf` means never."""
        self.write_deadline = inf
        """The same for `write_deadline_passed()`; set by `wait_for_peer()`."""
        self.share = Share(service.turns)
        """What may still be done in this turn of the loop."""
        self.held_since = 0.0
        """The loop time since when bytes wait for their turn here, 0 while none do."""
        self.lingering = 0
        """Bytes that are still thrown away after the last answer; 0 before that. See `linger()`."""
        self._ended_by_peer = False
        self._held_for = 0.0
        """Seconds that bytes were held, and that deadlines were not moved by."""
        self._paused = False
        """The wire wants nothing read."""
        self._choked = False
        """Nothing is read, for the process holds too much for its peers."""
        self._resting = False
        """Nothing is read until the connection has its turn."""
        self._cork: list[bytes] = []
        self._cork_size = 0
        self._taken = 0
        """What `taken()` was when the wait for the peer began that `write_deadline` ends."""
        self.added = 0
        """Bytes that were written while something waited already; a wire that writes by itself adds its own."""
        self._rest_is_lost = False
        """Nobody sees to what the peer has not got once the transport is gone."""
        self._second: socket.socket | None = None
        """The socket once more, of a TLS connection that is closing: see `pounce.net.linger`."""
        self._was_delivered = False
        """With the last look at a connection that is closing the peer had everything."""
        self._fd = -1
        """The descriptor of a socket that is written to past its transport, else -1."""
        self._direct = False
        """Nothing waits in the transport, which would have to leave first."""
        self._reads = BY_TRANSPORT
        self._most = RECV_MAX
        """Bytes that are read past the transport at once; with 0 `_may_not_read()` is called in place of that."""

    @property
    def settings(self) -> Any:
        """An instance of the `settings` of the plugin that has the wire's name, with what the bind says in place of
        what the server does; None where it has none."""
        return self.service.settings.get(self.wire)

    # Events from the transport; call the base when overriding

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        service = self.service
        if self.connection is None:
            # Else the server's own loop has accepted it, and has seen to all this.
            if hasattr(transport, "max_size"):
                # asyncio allots 256 KiB for every read, whatever comes, which takes far longer than 64 KiB do.
                transport.max_size = RECV_MAX
            _share_tls_buffer(transport, service)
            self._look_who_it_is()
        service.connections.add(self)
        if service.draining:
            # It was accepted just before, and finished its TLS handshake only now.
            self.loop.call_soon(self.drain)

    def _look_who_it_is(self) -> None:
        self.connection = connection_info(self.transport, self.service, self.proxied, self.share)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = self.write_deadline = inf
        self._is_over = True
        fd = self._fd
        # The transport closes it when this returns.
        self.forget_descriptor()
        self.held_since = 0.0
        if fd < 0 or exc is not None or self._rest_is_lost or self._second is not None or has_queued(fd):
            self._leave_rest(exc)
        self.service.connection_closed(self)

    def eof_received(self) -> bool | None:
        self.take_last_turn()
        return None

    def _leave_rest(self, exc: Exception | None) -> None:
        """See to what the peer has not got yet, now that the transport is gone; `exc` is why."""
        second, self._second = self._second, None
        if self._rest_is_lost:
            if second is not None:
                second.close()
            return
        if second is None and exc is None and (sock := self._socket) is not None and (count := undelivered(sock)):
            if count > REST_MIN:
                second = second_descriptor(self.transport)
            else:
                leave_to_kernel(sock, self.service.config.write_timeout)
        if second is not None:
            go_on(self.service, self.wire, second, exc)

    @property
    def _socket(self) -> socket.socket | None:
        """What the transport shows of its socket."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        return sock

    def pause_writing(self) -> None:
        self.writable = False
        self.wait_for_peer()

    def resume_writing(self) -> None:
        self.writable = True
        if not self.transport.is_closing():
            self.write_deadline = inf

    # Reading, and the share of a turn

    def pause_reading(self) -> None:
        """Read no more: somebody has to catch up first."""
        self._paused = True
        if not self._resting and not self._choked:
            self._set_reading(False)

    def resume_reading(self) -> None:
        """Read on, in the connection's next turn if it waits for one."""
        self._paused = False
        if not self._resting and not self._choked:
            self._set_reading(True)

    def choke(self, on: bool) -> None:
        """Read nothing, whoever wants to, or read on: for `max_buffered`, when the process holds too much."""
        if on is not self._choked:
            self._choked = on
            if not self._resting and not self._paused:
                self._set_reading(not on)

    @property
    def buffered(self) -> int:
        """Bytes that are held here for the peer, which it has not taken, and of the peer, which nobody has taken. A
        wire adds what it holds itself."""
        transport = self.transport
        inner = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        size = self._cork_size + transport.get_write_buffer_size()
        # asyncio encrypts ahead of the socket, and does not count what waits there.
        return size if inner is None else size + inner.get_write_buffer_size()

    def _set_reading(self, on: bool) -> None:
        transport = self.transport
        if transport.is_closing():
            return
        if self._reads != BY_TRANSPORT:
            self._set_reading_directly(on)
        elif on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def pass_transport(self) -> None:
        """Do as after `write_past_transport()` and `read_past_transport()`; for `connection_made()`."""
        transport: Any = self.transport
        try:
            fd = transport.direct_fd
        except AttributeError:
            fd = -1
        if fd < 0 or self._resting or self._paused or self._choked or transport._buffer or transport._closing:
            self.write_past_transport()
            self.read_past_transport()
            return
        self._fd = fd
        self._direct = True
        self._reads = READING
        # As `take_reading()` does.
        transport._paused = True
        self.loop.read_directly(fd, self._read_ready)  # type: ignore[attr-defined]

    def read_past_transport(self) -> None:
        """Read from the socket itself from now on, which takes less time; for wires that call `write_past_transport()`.

        Such a wire pauses and resumes by the methods here alone. Without effect where it cannot be done: over TLS, and
        on other loops than the server's own.
        """
        if self._fd >= 0 and hasattr(self.loop, "read_directly"):
            if self._resting or self._paused or self._choked or self.transport.is_closing():
                self.transport.pause_reading()
                self._reads = PAUSED
            else:
                self._reads = READING
                self.loop.take_reading(self.transport, self._fd, self._read_ready)  # type: ignore[attr-defined]

    def read_by_transport(self) -> None:
        """Leave reading to the transport again."""
        reads = self._reads
        if reads != BY_TRANSPORT:
            if reads == READING:
                self._set_reading_directly(False)
            self._reads = BY_TRANSPORT
            if not self._resting and not self._paused and not self._choked and reads != ENDED:
                self.transport.resume_reading()

    def _set_reading_directly(self, on: bool) -> None:
        loop: Any = self.loop
        if on and self._reads == PAUSED:
            self._reads = READING
            loop.read_directly(self._fd, self._read_ready)
        elif not on and self._reads == READING:
            self._reads = PAUSED
            loop.stop_reading(self._fd)

    def _read_ready(self) -> None:
        """What asyncio's transports do with what has come."""
        try:
            data = os.read(self._fd, self._most)
        except BlockingIOError, InterruptedError:
            return
        except OSError:
            # The connection is gone, and all that was to be sent.
            self._rest_is_lost = True
            self.transport.abort()
            return
        try:
            if data:
                self.data_received(data)
            elif self._most:
                self._end_received()
            else:
                self._may_not_read()
        except SystemExit, KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - it goes where asyncio has it go
            self.failed("data_received" if data else "eof_received", exc)

    def _may_not_read(self) -> None:
        """There is something to read, and `_most` is 0."""

    def _end_received(self) -> None:
        self._set_reading_directly(False)
        self._reads = ENDED
        if not self.eof_received():
            self.transport.close()

    def failed(self, name: str, exc: BaseException) -> None:
        """An event has raised, which ends the connection."""
        context = {"exception": exc, "transport": self.transport, "protocol": self}
        self.loop.call_exception_handler({"message": f"Fatal error: protocol.{name}() call failed."} | context)
        self._rest_is_lost = True
        self.transport.abort()

    def park(self) -> None:
        """The share of this turn is used up, and bytes are left here: `next_turn()` goes on with them."""
        if not self.held_since:
            self.held_since = self.loop.time()
        self.rest()

    def rest(self) -> None:
        """Read nothing more in this turn of the loop."""
        if not self._resting:
            self._resting = True
            if not self._paused and not self._choked:
                self._set_reading(False)
            self.share.later(self._have_turn)

    def next_turn(self) -> None:
        """Go on with what was left when `park()` was called, with a new share; a wire that parks overrides it."""

    def _have_turn(self) -> None:
        if not self._resting:
            return
        self._resting = False
        if self._is_gone():
            return
        if self.held_since:
            now = self.loop.time()
            self._held_for += now - self.held_since
            self.held_since = 0.0
            if self._held_for >= POSTPONE_MIN:
                self.postpone(self._held_for)
                self._held_for = 0.0
            try:
                self.next_turn()
            except Exception:  # noqa: BLE001 - after `data_received` asyncio closes the connection for it, but not here
                self.service.connection_failed(self)
                return
        if not self._resting and not self._paused and not self._choked:
            self._set_reading(True)

    def _is_gone(self) -> bool:
        """Nothing that has arrived can be answered any more."""
        return self.transport.is_closing()

    def take_last_turn(self) -> None:
        """The peer has ended TLS, which asyncio ends too when this event is over: go on now, for the last time."""
        if self.held_since:
            self.share.left = LAST_STEPS
            self._have_turn()

    # Writing

    def write_past_transport(self) -> None:
        """Write to the socket itself from now on, while the transport's buffer is empty: that takes less time.

        For wires that write by the methods below, and never to the transport. Without effect where it cannot be done:
        over TLS, and on other loops than asyncio's.
        """
        fd = getattr(self.transport, "direct_fd", None)
        if fd is not None:
            self._fd = fd
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and self.connection.tls is None and isinstance(self.loop, asyncio.SelectorEventLoop):
            self._fd = sock.fileno()

    def forget_descriptor(self) -> None:
        """Nothing is written here any more: the number may be another's before long."""
        self._fd = -1
        self._direct = False

    def send(self, data: bytes) -> None:
        """Write `data`; while the connection is corked it is gathered with what follows."""
        if self.corked:
            self._cork.append(data)
            self._cork_size = size = self._cork_size + len(data)
            if size >= CORK_LIMIT:
                self.flush()
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Write to the socket itself where nothing waits in the transport, to the transport what that leaves over."""
        if self._direct or (self._fd >= 0 and not self.transport.get_write_buffer_size()):
            try:
                sent = os.write(self._fd, data)
            except OSError:
                # The transport will meet the same, and knows what to do.
                sent = 0
            if sent == len(data):
                self._direct = True
                return
            self._direct = False
            data = data[sent:]
        self.transport.write(data)

    def write_pieces(self, pieces: Sequence[bytes], size: int) -> None:
        """Write several pieces, of that many bytes together, as one; they are not gathered with others."""
        if size < GATHERED or (size < TLS_GATHERED and self._fd < 0 and not hasattr(self.transport, "takes_pieces")):
            self._write(b"".join(pieces))
        elif self._direct or (self._fd >= 0 and not self.transport.get_write_buffer_size()):
            try:
                sent = os.writev(self._fd, pieces)
            except OSError:
                # As above; or they are too many.
                sent = 0
            self._direct = sent == size
            if not self._direct:
                self.transport.write(b"".join(pieces)[sent:])
        else:
            self.transport.writelines(pieces)

    def send_pieces(self, *pieces: bytes) -> None:
        """Write several pieces as one."""
        if self.corked:
            for piece in pieces:
                self.send(piece)
        else:
            self.write_pieces(pieces, sum(map(len, pieces)))

    def send_file_at_once(self, fd: int, offset: int, count: int) -> int:
        """Send as much of a file as the kernel takes without waiting, and tell how much that was. What follows is for
        `loop.sendfile()`, which also finds out why it is none."""
        if self._fd < 0 or self._cork or self.transport.get_write_buffer_size():
            return 0
        sent = 0
        try:
            while sent < count and (more := os.sendfile(self._fd, fd, offset + sent, count - sent)):
                sent += more
        except OSError:
            pass
        return sent

    def flush(self) -> None:
        """Hand what is corked to the transport."""
        cork = self._cork
        if cork:
            if not self.writable:
                self.added += self._cork_size
            if len(cork) == 1:
                self._write(cork[0])
            else:
                self.write_pieces(cork, self._cork_size)
            cork.clear()
            self._cork_size = 0

    def uncork(self) -> None:
        """End the gathering of writes."""
        self.corked = False
        if self._cork:
            self.flush()

    def watch_flush(self) -> None:
        """Make `writable` False until the last byte written has left: `resume_writing()` follows then.

        Without bytes in the transport's buffer nothing changes. `unwatch_flush()` restores the usual marks.
        """
        if not self._direct and self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(high=0)

    def unwatch_flush(self) -> None:
        """Pause and resume writing at the usual marks again."""
        self.transport.set_write_buffer_limits()

    def close(self) -> None:
        """Close once everything written has left; a peer that does not take it in time is not waited for.

        Over TLS the peer has a moment to say that it closes too: `deadline_passed()` is called then, which has to call
        `let_go()` as that of this class does.
        """
        if self.transport.is_closing():
            # asyncio's TLS transport forgets its protocol when it is closed again, and cannot even abort then.
            return
        self.flush()
        if self._is_tls:
            self._second = second_descriptor(self.transport)
            # TLS waits for close_notify, which a peer that keeps its connection for later never sends.
            self.deadline = min(self.deadline, self.loop.time() + LINGER_TIMEOUT)
        self.transport.close()
        self.watch_unsent()

    def linger(self, timeout: float = LINGER_TIMEOUT) -> None:
        """Close in a way that lets the peer read the last answer (RFC 9112 9.6): end our half once everything written
        has left, throw away what comes for `timeout` seconds, or until the peer ends its half too, then close.

        The wire gets no further bytes; `deadline` is used for the time, so an own `deadline_passed()` calls the base
        where `lingering` is not 0.
        """
        if self.transport.is_closing():
            return
        self.lingering = LINGER_MAX
        self.flush()
        self.deadline = self.loop.time() + timeout
        if self._ended_by_peer:
            self.close()
            return
        if not self.transport.can_write_eof():
            self.resume_reading()
            self.close()
            return
        try:
            self.transport.write_eof()
        except OSError:
            # The peer is gone already, and the transport has yet to find out.
            self.abort()
            return
        self.watch_unsent()
        self.resume_reading()

    def linger_over(self, count: int) -> None:
        """So many bytes have come after the last answer, or after `close()`, whose TLS a peer may keep busy; one that
        sends too many is broken off."""
        self.lingering = (self.lingering or LINGER_MAX) - count
        if self.lingering <= 0:
            self.lingering = 1
            self.abort()

    def let_go(self) -> None:
        """The peer had its time to end its half as well: close, and wait for no more than that it takes what was
        written."""
        if not self.transport.is_closing():
            self.close()
        elif self.is_delivered():
            # It is TLS, and waits for close_notify. Below it is a transport of which nothing can be told: one that had
            # something while the kernel had nothing has brought it there by the next tick.
            if self._was_delivered:
                self.transport.abort()
            self._was_delivered = True
            self.write_deadline = self.loop.time()

    def end(self) -> None:
        """Time is up, whatever is going on: what the kernel has still leaves, and what it has not is lost, which the
        peer can tell."""
        sock = self._socket if self.transport is not cast(object, self) else None
        if sock is None or self._buffered() or (self._is_tls and is_full(sock)):
            self.abort()
        else:
            self._rest_is_lost = True
            leave_to_kernel(sock, self.service.config.write_timeout)
            self.transport.abort()

    @property
    def _is_tls(self) -> bool:
        """Of asyncio's transports it is the one that cannot be closed by halves."""
        return not self.transport.can_write_eof()

    def is_delivered(self) -> bool:
        """The peer has everything, as far as that can be told."""
        sock = self._socket
        return not self._buffered() and (sock is None or not undelivered(sock))

    def watch_unsent(self) -> None:
        """See to it that the peer takes what is still to leave, now that nothing is written any more."""
        if self.write_deadline == inf and (self._buffered() or self._is_tls):
            self.wait_for_peer()

    def wait_for_peer(self) -> None:
        """From now on something waits for the peer to take it; `write_deadline` is when that is looked at again."""
        self._taken = self.taken()
        self.write_deadline = self.loop.time() + self.service.config.write_timeout

    def taken(self) -> int:
        """A number that grows by one for each byte that the peer takes while something waits for it, as far as that can
        be told."""
        sock = self._socket
        if sock is None:
            return self.added - self._buffered()
        count = acknowledged(sock)
        return count if count is not None else self.added - self._buffered() - queued(sock)

    def _buffered(self) -> int:
        """Bytes that wait in the transport."""
        return self.transport.get_write_buffer_size()

    def hand_over(self, protocol: asyncio.Protocol, wire: str) -> Connection:
        """Put another protocol in the place of this one, which gets no more events; what it is among connections.

        Raises `RuntimeError` for a connection that has ended.
        """
        if getattr(self, "_is_over", False):
            raise RuntimeError("a connection that has ended cannot be handed over")
        self.service.connections.discard(self)
        if isinstance(protocol, Connection):
            protocol.wire = wire
        else:
            protocol = ForeignConnection(self.service, wire, protocol)
        protocol.proxied = self.proxied
        protocol.share = self.share
        self.read_by_transport()
        if self._resting or self._paused or self._choked:
            self._set_reading(True)
        # Whatever it may still be called for, reading is not its business any more.
        self._resting = self._paused = True
        self.held_since = 0.0
        self.forget_descriptor()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if protocol.transport is None:
            raise without_base(protocol)
        return protocol

    def abort(self) -> None:
        """Break the connection off: what the peer has not got is lost, and the peer can tell, as it gets a reset.

        An orderly end would make a part of an answer look like all of it where nothing else marks its end (RFC 9112
        8), and would leave what is in the kernel there for a peer that may never take it. Over TLS there is no
        close_notify either. A Unix socket knows no reset: there the peer sees an end.
        """
        self._rest_is_lost = True
        sock = self._socket
        if sock is not None:
            reset_when_closed(sock)
        self.transport.abort()

    def reset_when_closed(self, on: bool = True) -> None:
        """Make it a reset whatever closes the socket from now on, also the end of the process, or an orderly end again.

        For what has no end but that of the connection, while it is sent: an orderly one would look like the end of the
        document. Over TLS nothing is done, since there an end without close_notify can be told from one with it.
        """
        sock = self._socket
        if sock is not None and not self._is_tls:
            reset_when_closed(sock, on)

    # Events from the worker

    def postpone(self, seconds: float) -> None:
        """For so long bytes of the peer were held here: it is given the time back. A wire with further clocks overrides
        this, and calls the base."""
        self.deadline += seconds

    def deadline_passed(self) -> None:
        """`deadline` lies in the past; called on each tick until that changes, but not while bytes are held that may
        change it. Closes unless overridden."""
        self.deadline = inf
        if self.transport.is_closing() or self.lingering:
            self.deadline = self.loop.time() + LINGER_TIMEOUT if self.lingering else inf
            self.let_go()
        else:
            self.service.log.debug("%s: deadline passed, closing", self.wire)
            self.abort()

    def write_deadline_passed(self) -> None:
        """The peer had `write_timeout` to take what it has to: give it as long again when it did, else give it up."""
        if self.transport.is_closing() and self.is_delivered():
            self.let_go()
        elif self.taken() - self._taken >= self.service.least_taken:
            self.wait_for_peer()
        else:
            self.service.count("write_timeout", "%s: peer takes too little, giving it up", self.wire)
            self.write_deadline = inf
            self.abort()

    def drain(self) -> None:
        """The worker is shutting down: finish what runs, start nothing new, then close."""
        self.close()


def _share_tls_buffer(transport: asyncio.BaseTransport, service: Service) -> None:
    """Have TLS connections of asyncio's loop read into one buffer: each would keep 256 KiB, however idle it is.

    The loop fills the buffer and hands over what is in it at once, before it looks at another connection.
    """
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    if protocol is None or hasattr(protocol, "read_ready"):
        # That of the server's own loop has none.
        return
    if isinstance(service.loop, asyncio.SelectorEventLoop) and hasattr(protocol, "_ssl_buffer_view"):
        view = service.shared.get("tls.buffer")
        if view is None:
            view = service.shared["tls.buffer"] = memoryview(bytearray(TLS_RECV_MAX))
        protocol._ssl_buffer, protocol._ssl_buffer_view = view.obj, view
        protocol.max_size = TLS_RECORD


def without_base(connection: Connection) -> RuntimeError:
    """The error where a wire has left out `connection_made()` of its base class: all that is to come would fail on what
    that sees to."""
    return RuntimeError(f"connection_made() of {type(connection).__name__} does not call that of its base class")


class ForeignConnection(Connection):
    """Gives any `asyncio.Protocol` a place among the connections by passing every event on to it.

    What told that a connection is for this protocol has been read before it was there. So it may have paused the
    transport and yet be due those bytes: they are kept until it reads, which is looked at with every tick.
    """

    __slots__ = ("_first", "protocol")

    def __init__(self, service: Service, wire: str, protocol: asyncio.Protocol) -> None:
        super().__init__(service, wire)
        self.protocol = protocol
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        seen = transport if self.proxied is None else cast(asyncio.Transport, ProxiedTransport(self))
        self.protocol.connection_made(seen)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_reading() and not self._resting:
            self._first += data
            self.service.on_tick.add(self._look)
            return
        if self._first:
            data = self._take_first() + data
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        if self._first:
            self.protocol.data_received(self._take_first())
        return self.protocol.eof_received()

    def _look(self, now: float) -> None:
        if self.transport.is_reading():
            try:
                self.protocol.data_received(self._take_first())
            except Exception as exc:  # noqa: BLE001 - it goes where asyncio has it go
                self.failed("data_received", exc)

    def _take_first(self) -> bytes:
        first, self._first = self._first, b""
        self.service.on_tick.discard(self._look)
        return first

    def pause_writing(self) -> None:
        super().pause_writing()
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_first()
        try:
            self.protocol.connection_lost(exc)
        finally:
            super().connection_lost(exc)

    def drain(self) -> None:
        """Passed on where the protocol has a `drain()`; without one it may go on until the shutdown timeout."""
        drain = getattr(self.protocol, "drain", None)
        if drain is not None:
            drain()


class ProxiedTransport:
    """A transport that tells a foreign protocol the address of the client in place of the proxy's."""

    def __init__(self, connection: Connection) -> None:
        self._transport = connection.transport
        info = connection.connection
        self._addresses = {"peername": info.peer, "sockname": info.local}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._addresses.get(name) or self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
