"""Stream and Exchange: the two halves of one request, and the contract between wires and the core.

A Stream is to an Exchange what an asyncio Transport is to an asyncio Protocol, one level up. The wire implements
the Stream (it turns calls into bytes), the core implements the Exchange (it turns events into ASGI messages).

Rules, each of which prevents a real bug:

1. `start` carries the first piece of the body: the head is held until then, so a one-piece answer is one write.
2. A stream never calls its exchange from inside one of its own methods; it uses the next turn of the loop. The
   other direction may be immediate: an eager application can answer inside `data_received`.
3. Writes are corked while bytes are being received, and the cork is bounded.
4. Framing belongs to the wire, meaning to the exchange.
5. One reader per connection: "is the client still there" is `stream_lost`, never a second read.
6. The exchange binds itself (`stream.exchange = self`) first thing in its constructor.
7. A stream that raises from one of its methods has failed: the exchange resets it, and tells `service.stream_failed()`.
   So what goes wrong with one request costs no other.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from pounce.contract.head import Headers, RequestHead
from pounce.contract.turns import Share, Turns

__all__ = ["Body", "Completed", "ConnectionInfo", "Exchange", "FileRange", "Headers", "RunsApp", "Stream"]


@dataclass(frozen=True, slots=True)
class FileRange:
    """`count` bytes of the open file `fd` from `offset`; the descriptor stays the exchange's.

    It must stay open until the stream is writable again or lost.
    """

    fd: int
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


type Body = bytes | FileRange


def unmapped(host: str) -> str:
    """An address, or the IPv4 address that is mapped into it (RFC 4291 2.5.5.2): dual-stack sockets have it like that,
    and whoever compares addresses would take one client for two."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


class ConnectionInfo:
    """What is known of the connection under a stream; built once for each connection."""

    __slots__ = ("alpn", "bound", "id", "local", "peer", "proxy", "scheme", "scope", "share", "tls")

    peer: tuple[str, int] | None
    """Address and port of the client, behind a proxy if the PROXY protocol says so; None where it has none (Unix
    sockets). An IPv4 client has an IPv4 address, whatever the socket that it arrived at."""
    local: tuple[str, int | None] | None
    """Address and port it arrived at, or the path of a Unix socket and None."""
    scheme: str
    """`"https"` over TLS, with us or with the proxy, else `"http"`."""
    alpn: str | None
    """Protocol negotiated by TLS ALPN (RFC 7301), when there was one."""
    tls: dict[str, object] | None
    """The ASGI `tls` extension of this connection, None without TLS."""
    proxy: dict[str, object] | None
    """The ASGI extension `pounce.proxy`: what a proxy has said by the PROXY protocol, None without."""
    id: int
    """Number of the connection within its worker, from 1."""
    bound: int | str | None
    """Port or path of the bind that it arrived at, whatever a proxy says of `local`."""
    share: Share
    """What the connection may still have done in this turn of the loop, by all of its streams together."""
    scope: dict[str, Any] | None
    """What the ASGI scopes of its requests begin with, once it had one. For the request core alone."""

    def __init__(
        self,
        id: int = 0,
        peer: tuple[str, int] | None = None,
        local: tuple[str, int | None] | None = None,
        scheme: str = "http",
        alpn: str | None = None,
        tls: dict[str, object] | None = None,
        share: Share | None = None,
    ) -> None:
        self.id = id
        self.scope = None
        if peer is not None and ":" in peer[0]:
            peer = unmapped(peer[0]), peer[1]
        self.peer = peer
        self.bound = None
        if local is not None:
            if local[1] is None:
                self.bound = local[0]
            else:
                self.bound = local[1]
                if ":" in local[0]:
                    local = unmapped(local[0]), local[1]
        self.local = local
        self.scheme = scheme
        self.alpn = alpn
        self.tls = tls
        self.proxy = None
        self.share = share if share is not None else Share(Turns())


class Stream(Protocol):
    """The outgoing half of one request; a wire implements it. No method waits, none calls the exchange back."""

    connection: ConnectionInfo
    """Of the connection that it is on: the same object for all its streams."""
    writable: bool
    """When False, wait for `Exchange.resume_writing()`. After the last piece False means that bytes are still on
    their way; `resume_writing()` follows when the last one has left."""
    sends_files: bool
    """`start` and `write` take a `FileRange`."""
    has_trailers: bool
    """`trailers` reaches the peer."""

    @property
    def exchange(self) -> Exchange | None:
        """Bound by the exchange's constructor, before the application can run; a plain attribute will do. None before
        that, and once the wire has nothing more to tell it."""

    @exchange.setter
    def exchange(self, exchange: Exchange) -> None: ...

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        """The head of the answer and the first piece of its body; `more` False ends the answer."""

    def write(self, body: Body, more: bool) -> None:
        """A further piece; `more` False ends the answer. After `tunnel`: bytes as they are."""

    def inform(self, status: int, headers: Headers) -> None:
        """An interim answer: any 1xx but 101 (RFC 9110 15.2)."""

    def tunnel(self, headers: Headers) -> None:
        """Accept the upgrade: from here on bytes pass both ways as they are."""

    def trailers(self, headers: Headers) -> None:
        """The trailer section (RFC 9110 6.5), which ends the answer."""

    def consumed(self, count: int) -> None:
        """The application took `count` bytes of the request body: room for as many more."""

    def reset(self) -> None:
        """Give up this stream, visibly for the peer, and no other stream of the connection."""


class Exchange(Protocol):
    """The incoming half of one request; the core implements it, wires call it."""

    def data_received(self, data: bytes) -> None:
        """A piece of the body, never empty; after `tunnel`, bytes as they came."""

    def eof_received(self, trailers: Headers | None = None) -> None:
        """The body is complete. Not called for a request without a body (`content_length` 0)."""

    def half_closed(self) -> None:
        """The peer ended its sending half after a complete request; it may be gone, or wait for the answer.

        Only where a wire cannot tell the two apart (a TCP FIN under HTTP/1.1).
        """

    def resume_writing(self) -> None:
        """The stream is writable again."""

    def stream_lost(self, exc: Exception | None) -> None:
        """Nothing more will arrive: the peer is gone.

        A `BadRequest` says that the peer broke a rule or missed a deadline in mid-request; then the stream still
        takes an answer, and the exchange gives one unless it has begun another.
        """


class Completed(Protocol):
    """What an observer sees of a request, or of what an upgrade opened.

    The access log reads more, where it is there: `first_byte`, the `time.monotonic()` at which an answer has begun that
    was not over then; `answer_fields`, its `Headers`; `trace_id`, 32 hexadecimal digits. Each may be None or missing.
    """

    @property
    def head(self) -> RequestHead:
        """The request."""

    @property
    def stream(self) -> Stream:
        """By which it was answered; its `connection` says who has asked."""

    @property
    def status(self) -> int:
        """0: no answer was begun."""

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body; after an upgrade, of everything."""

    @property
    def started(self) -> float:
        """Its `time.monotonic()`."""

    @property
    def queued(self) -> float:
        """Seconds that it has waited for its application to start, since `started`."""

    @property
    def broken(self) -> bool:
        """It did not reach its end."""

    @property
    def close_code(self) -> int | None:
        """How a WebSocket was closed (RFC 6455 7.4); None while it is open, and for everything else."""


class RunsApp(Protocol):
    """An exchange with an application of its own, which `Service.call_app` starts.

    What it gives that application to await is awaited on other loops, too: on those of other workers, and in threads
    that the application makes. `pounce.exchange.crossing` has the two lines that each such method begins with.
    """

    def run(self, app: Callable[..., Any]) -> Coroutine[Any, Any, None]:
        """Run an application to its end and settle what it leaves behind."""
