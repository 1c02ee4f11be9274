"""Intake: leads connections to their wire, up to the limit. Acceptor: an intake that takes them from a listening socket
itself, and survives running out of descriptors."""

import asyncio
import errno
import logging
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pounce.contract.turns import Share
from pounce.errors import BadRequest
from pounce.h1.turned_away import TurnedAway
from pounce.net.bind import Listener
from pounce.net.opening import Opener
from pounce.net.proxy_protocol import ProxyHeader, ProxyPolicy
from pounce.net.sniff import WireChooser, WireTable

if TYPE_CHECKING:
    from pounce.exchange.service import Service
    from pounce.net.tls import ServerTLS
    from pounce.plugin import Wire

__all__ = ["Acceptor", "Intake", "Listening"]

log = logging.getLogger("pounce.net")

BATCH = 64
"""Connections taken from a socket before others get a turn."""
SERVED_AT_ONCE = 16
"""The same where their first requests are served as they are taken: as many as the loop takes events at a time."""
NO_TIMEOUT = 86_400.0
"""Seconds that TLS may take to close. By itself it would cut what is on its way to a slow peer after 30; see
`Connection.write_deadline`."""
PAUSE = 0.5
"""Seconds without accepting when descriptors or memory have run out."""
# The peer went away between its handshake and our accept; the next one is not concerned (accept(2)).
GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

OVERLOADED = BadRequest(
    "There are too many connections",
    status=503,
    code="POUNCE_LIMIT_CONNECTIONS",
    hint="The limit is max_connections.",
)


class NoRoom(Exception):
    """The setting `limit` has no room for another connection; `error` says so."""

    def __init__(self, limit: str, error: BadRequest) -> None:
        super().__init__(limit)
        self.limit = limit
        self.error = error


class Listening:
    """A listening socket, of which connections are taken without anything that is done in vain."""

    def __init__(self, sock: socket.socket) -> None:
        self.accept_fd: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]
        """accept(2): a descriptor, and the address of its peer. Raises `OSError` as that does."""
        # Plain numbers: `accept()` of Python's sockets looks up the names of all three for each connection.
        self._kind = int(sock.family), int(sock.type), sock.proto
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.more = poll.poll
        """With 0: there is another one. To be told so takes a small part of what it takes the kernel to find that there
        is none to accept."""

    def accept(self) -> tuple[socket.socket, Any] | None:
        """The next connection, and the address of its peer; None when there is none. Raises `OSError` when none can be
        taken."""
        while True:
            try:
                fd, peer = self.accept_fd()
            except BlockingIOError, InterruptedError:
                return None
            except OSError as exc:
                if exc.errno in GONE:
                    continue
                raise
            return self.socket_of(fd), peer

    def socket_of(self, fd: int) -> socket.socket:
        """The socket of a descriptor that was accepted."""
        return socket.socket(*self._kind, fileno=fd)


def report_failure(exc: OSError) -> None:
    """Log why a listening socket gave no connection."""
    if exc.errno in _EXHAUSTED:
        log.error("Cannot accept connections: %s; trying again in %g s", exc.strerror, PAUSE)
    else:
        log.error("Accepting failed", exc_info=exc)


class Intake:
    """Takes the connections of one worker that came in over one listener, whoever accepted them."""

    def __init__(
        self, service: Service, listener: Listener, table: WireTable, named: Wire | None, tls: ServerTLS | None
    ) -> None:
        self._service = service
        self._loop = service.loop
        self._sock = listener.sock
        self._tcp = not listener.is_unix
        self._table = table
        self._named = named
        self._tls = tls
        self._alpn = table.alpn
        self._speaks_http = "http/1.1" in table.default.alpn
        self._proxies = ProxyPolicy.of(service.config, listener.bind)
        self._peers = service.peers
        self._too_many = OVERLOADED
        if self._peers is not None:
            from pounce.admission.peers import TOO_MANY

            self._too_many = TOO_MANY
        self._opener: Opener | None = None
        if tls is None and self._proxies is None and hasattr(service.loop, "read_directly"):
            uncount = self._peers.closed if self._peers is not None else _nothing
            self._opener = Opener(service, cast(Any, service.loop), listener.sock, table, named, uncount)
        self._inherits_nodelay: bool | None = None
        """Connections have TCP_NODELAY from their listening socket; None until the first one has shown it."""
        if self._tcp:
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.handshakes: set[asyncio.Task[None]] = set()
        """Connections that were accepted and are not yet handed to their wire."""
        if self._speaks_http:
            # It is imported when the first connection is made: better now than when descriptors have run out.
            table.default.connect(service)

    def start(self) -> None:
        """Connections may come from now on."""

    def stop(self) -> None:
        """The worker drains; what still comes is told so."""

    def abort(self) -> None:
        """Give up connections that are still in their handshake; call after `stop()`."""
        for task in self.handshakes:
            task.cancel()

    def take(self, sock: socket.socket, peer: Any = None) -> None:
        """Serve an accepted connection, or turn it away; call on the worker's loop. `peer` is its address, where that
        is known."""
        if peer is None and (self._opener is not None or self._peers is not None):
            peer = _peer_of(sock)
        if self._opener is not None:
            self._take_fd(self._opener, sock.detach(), peer)
            return
        sock.setblocking(False)
        if self._tcp and not self._inherits_nodelay:
            self._set_nodelay(sock)
        try:
            share = self._admit(peer)
        except NoRoom as full:
            self._turn_away(sock, full)
            return
        begun: list[asyncio.Task[None]] = []
        task = self._loop.create_task(self._connect(sock, share, begun))
        begun.append(task)
        self.handshakes.add(task)
        task.add_done_callback(self.handshakes.discard)

    def _take_fd(self, opener: Opener, fd: int, peer: Any) -> None:
        """The same by the descriptor, which is enough for nearly all that the server's own loop does with it."""
        os.set_blocking(fd, False)
        if self._tcp and not self._inherits_nodelay:
            sock = opener.socket_of(fd)
            self._set_nodelay(sock)
            sock.detach()
        try:
            share = self._admit(peer)
        except NoRoom as full:
            self._turn_away(opener.socket_of(fd), full)
            return
        opener.open(fd, peer, share)

    def _admit(self, peer: Any) -> Share | None:
        """Count a connection for its address, where that is known and counts. Raises `NoRoom`."""
        limit = self._service.max_connections
        if limit and len(self._service.connections) + len(self.handshakes) >= limit:
            raise NoRoom("max_connections", OVERLOADED)
        return self._enter(peer, None) if self._peers is not None and self._proxies is None else None

    def _set_nodelay(self, sock: socket.socket) -> None:
        if self._inherits_nodelay is None:
            self._inherits_nodelay = bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _enter(self, peer: Any, proxied: ProxyHeader | None) -> Share:
        """Count a connection for its address, by what will be its share: see `Peers.enter()`. Raises `NoRoom`."""
        assert self._peers is not None
        address = None
        if proxied is not None and proxied.peer is not None:
            address = proxied.peer[0]
        elif self._tcp and peer is not None:
            # Else it is gone, which shows before long.
            address = peer[0]
        key = self._peers.enter(address)
        if key is None:
            raise NoRoom("max_connections_per_peer", self._too_many)
        share = Share(self._service.turns)
        self._peers.keep(key, share)
        return share

    def _turn_away(self, sock: socket.socket, full: NoRoom) -> None:
        """Over a limit: say so where the client can read it without a handshake."""
        self._service.count(full.limit, "%s reached, connection turned away", full.limit)
        try:
            if self._tls is None and self._speaks_http:
                self._service.refuse(None, TurnedAway(sock), full.error)
        except OSError:
            # The peer is gone.
            pass
        sock.close()

    async def _connect(self, sock: socket.socket, share: Share | None, begun: list[asyncio.Task[None]]) -> None:
        """`share` is what its address is counted by, where it is counted by now; `begun` holds the task of this:
        `current_task()` does not know tasks that are written in Python, which nest_asyncio puts in."""
        is_open = False

        def opened() -> None:
            # It is among the connections now; it must not count for two until this task has ended.
            nonlocal is_open
            is_open = True
            self.handshakes.difference_update(begun)

        proxied = None
        if self._proxies is not None:
            proxied = await self._proxies.receive(self._service, sock)
            if proxied is None:
                return
            if self._peers is not None:
                try:
                    share = self._enter(_peer_of(sock), proxied)
                except NoRoom as full:
                    self._turn_away(sock, full)
                    return
        chooser = WireChooser(self._service, self._table, self._named, opened, proxied)
        if share is not None:
            chooser.share = share
        try:
            await self._loop.connect_accepted_socket(
                lambda: chooser,
                sock,
                ssl=self._tls.context(self._loop.time(), self._alpn) if self._tls else None,
                ssl_handshake_timeout=self._service.config.tls_handshake_timeout if self._tls else None,
                ssl_shutdown_timeout=NO_TIMEOUT if self._tls else None,
            )
        except (OSError, ssl.SSLError) as exc:
            # The peer's doing: no TLS, no common version, too slow, or gone.
            self._service.count("handshake_error", "Connection failed before it began: %s", exc)
            sock.close()
        else:
            if self._tls is not None:
                self._service.count("tls_handshakes")
        finally:
            if not is_open and self._peers is not None:
                self._peers.closed(chooser.share)


def _nothing(share: Share) -> None:
    pass


def _peer_of(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        # It is gone already.
        return None


class Acceptor(Intake):
    """Accepts for one worker on one listener."""

    def __init__(
        self, service: Service, listener: Listener, table: WireTable, named: Wire | None, tls: ServerTLS | None
    ) -> None:
        super().__init__(service, listener, table, named, tls)
        config = service.config
        self._listening = Listening(listener.sock)
        # Where others accept on the same socket, one that takes all there are leaves them idle.
        most = BATCH if self._opener is None else SERVED_AT_ONCE
        self._batch = most if config.workers == 1 or config.reuseport else 1
        self._resume: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        if hasattr(self._loop, "read_directly"):
            self._loop.read_directly(self._sock.fileno(), self._accept)
        else:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def stop(self) -> None:
        """Accept what clients have already opened, then no more."""
        self._pause()
        while self._accept_one():
            pass
        # Where that ran out of descriptors, there is no later in which to go on.
        self._pause()

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _accept(self) -> None:
        left = self._batch
        while self._accept_one():
            left -= 1
            if not left or not self._listening.more(0):
                return

    def _accept_one(self) -> bool:
        """Take one connection, or one that is gone already; False when there is none, or none can be taken now."""
        try:
            fd, peer = self._listening.accept_fd()
        except BlockingIOError, InterruptedError:
            return False
        except OSError as exc:
            if exc.errno in GONE:
                return True
            self._service.count("accept_error")
            report_failure(exc)
            # Out of descriptors, or worse: stop for a moment instead of spinning.
            self._pause()
            self._resume = self._loop.call_later(PAUSE, self.start)
            return False
        try:
            if self._opener is not None:
                self._take_fd(self._opener, fd, peer)
            else:
                self.take(self._listening.socket_of(fd), peer)
        except Exception as exc:  # noqa: BLE001 - logged there
            # Of one connection; the loop must not end for it.
            self._loop.call_exception_handler({"message": "A connection could not be taken", "exception": exc})
        return True
