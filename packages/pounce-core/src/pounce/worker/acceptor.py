"""Intake: leads connections to their wire, up to the limit. Acceptor: an intake that takes them from a listening socket
itself, and survives running out of descriptors."""

import asyncio
import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from pounce.errors import BadRequest
from pounce.h1.turned_away import TurnedAway
from pounce.net.bind import Listener
from pounce.net.proxy_protocol import ProxyHeader, ProxyPolicy
from pounce.net.sniff import WireChooser, WireTable

if TYPE_CHECKING:
    from pounce.exchange.service import Service
    from pounce.net.tls import ServerTLS
    from pounce.plugin import Wire

__all__ = ["Acceptor", "Intake", "accept"]

log = logging.getLogger("pounce.net")

BATCH = 64
"""Connections taken from a socket before others get a turn."""
NO_TIMEOUT = 86_400.0
"""Seconds that TLS may take to close. By itself it would cut what is on its way to a slow peer after 30; see
`Connection.write_deadline`."""
PAUSE = 0.5
"""Seconds without accepting when descriptors or memory have run out."""
# The peer went away between its handshake and our accept; the next one is not concerned (accept(2)).
_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

OVERLOADED = BadRequest(
    "There are too many connections",
    status=503,
    code="POUNCE_LIMIT_CONNECTIONS",
    hint="The limit is max_connections.",
)


def accept(listening: socket.socket) -> socket.socket | None:
    """The next connection of a listening socket, None when there is none. Raises `OSError` when none can be taken."""
    while True:
        try:
            sock, _ = listening.accept()
        except BlockingIOError, InterruptedError:
            return None
        except OSError as exc:
            if exc.errno in _GONE:
                continue
            raise
        return sock


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

    def take(self, sock: socket.socket) -> None:
        """Serve an accepted connection, or turn it away; call on the worker's loop."""
        sock.setblocking(False)
        if self._tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = self._service.max_connections
        if limit and len(self._service.connections) + len(self.handshakes) >= limit:
            self._turn_away(sock, "max_connections", OVERLOADED)
            return
        key = ""
        if self._peers is not None and self._proxies is None:
            found = self._enter(sock, None)
            if found is None:
                return
            key = found
        task = self._loop.create_task(self._connect(sock, key))
        self.handshakes.add(task)
        task.add_done_callback(self.handshakes.discard)

    def _enter(self, sock: socket.socket, proxied: ProxyHeader | None) -> str | None:
        """Count a connection for its address: see `Peers.enter()`. Where there is no room it is turned away."""
        assert self._peers is not None
        address = None
        if proxied is not None and proxied.peer is not None:
            address = proxied.peer[0]
        elif self._tcp:
            try:
                address = sock.getpeername()[0]
            except OSError:
                # It is gone, which shows before long.
                pass
        key = self._peers.enter(address)
        if key is None:
            self._turn_away(sock, "max_connections_per_peer", self._too_many)
        return key

    def _turn_away(self, sock: socket.socket, limit: str, error: BadRequest) -> None:
        """Over a limit: say so where the client can read it without a handshake."""
        self._service.count(limit, "%s reached, connection turned away", limit)
        try:
            if self._tls is None and self._speaks_http:
                self._service.refuse(None, TurnedAway(sock), error)
        except OSError:
            # The peer is gone.
            pass
        sock.close()

    async def _connect(self, sock: socket.socket, key: str) -> None:
        """`key` is what its address is counted by, where it is counted by now."""
        task = asyncio.current_task()
        assert task is not None
        is_open = False

        def opened() -> None:
            # It is among the connections now; it must not count for two until this task has ended.
            nonlocal is_open
            is_open = True
            self.handshakes.discard(task)

        proxied = None
        if self._proxies is not None:
            proxied = await self._proxies.receive(self._service, sock)
            if proxied is None:
                return
            if self._peers is not None:
                found = self._enter(sock, proxied)
                if found is None:
                    return
                key = found
        chooser = WireChooser(self._service, self._table, self._named, opened, proxied)
        if self._peers is not None:
            self._peers.keep(key, chooser.share)
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
        finally:
            if not is_open and self._peers is not None:
                self._peers.closed(chooser.share)


class Acceptor(Intake):
    """Accepts for one worker on one listener."""

    def __init__(
        self, service: Service, listener: Listener, table: WireTable, named: Wire | None, tls: ServerTLS | None
    ) -> None:
        super().__init__(service, listener, table, named, tls)
        config = service.config
        # Where others accept on the same socket, one that takes all there are leaves them idle.
        self._batch = BATCH if config.workers == 1 or config.reuseport else 1
        self._resume: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
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
        for _ in range(self._batch):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Take one connection; False when there is none, or none can be taken now."""
        try:
            sock = accept(self._sock)
        except OSError as exc:
            self._service.count("accept_error")
            report_failure(exc)
            # Out of descriptors, or worse: stop for a moment instead of spinning.
            self._pause()
            self._resume = self._loop.call_later(PAUSE, self.start)
            return False
        if sock is not None:
            self.take(sock)
        return sock is not None
