"""RequestHead: what a wire knows about a request before its body; and what is said of an answer before its own."""

from typing import Any, cast

__all__ = [
    "BODILESS",
    "GET",
    "UNREADABLE",
    "AnswerFields",
    "ExtendedFields",
    "Headers",
    "Origin",
    "RequestHead",
    "extended",
    "unreadable_head",
]

type Headers = list[tuple[bytes, bytes]]

UNREADABLE = b"-"
"""Target of a head that could not be read; no other has it."""
GET = b"GET"
"""Of nearly all requests: whoever gives a head this very object saves others a comparison."""
BODILESS = frozenset((204, 205, 304))
"""RFC 9110 6.4.1: answers with these have no content; 15.3.6: nor have 205 ones."""


class AnswerFields(list[tuple[bytes, bytes]]):
    """The fields of an answer, checked and complete. Many answers may share them, so they are never changed.

    `encoded` is for the wire that sends them: what it made of them, to be had again for the next answer.
    """

    __slots__ = ("by_name", "encoded", "left_for")

    def __init__(self, fields: Headers) -> None:
        super().__init__(fields)
        self.encoded: Any = None
        self.left_for = 0
        """Status of an answer with them that compression leaves as it is."""
        self.by_name: dict[bytes, bytes] | None = None
        """The same once somebody has looked for a name; see `names()`."""

    def names(self) -> dict[bytes, bytes]:
        """The fields by their names, in lower case; the last one of those with the same."""
        by_name = self.by_name
        if by_name is None:
            by_name = self.by_name = dict(self)
        return by_name


class ExtendedFields(list[tuple[bytes, bytes]]):
    """The fields of an answer that shares all but the last of them with others, such as all but the id of its request.

    A wire may take what it has made of `shared`, and encode `own` alone: those say nothing of framing, of the
    connection, or of anything else that a wire looks at. `extended()` makes them.
    """

    __slots__ = ("own", "shared")

    shared: AnswerFields
    own: Headers


def extended(fields: AnswerFields | ExtendedFields, own: Headers) -> ExtendedFields:
    """The same fields, and behind them those of an answer's own, which it may have some of already."""
    if type(fields) is ExtendedFields:
        shared, own = fields.shared, fields.own + own
    else:
        shared = cast(AnswerFields, fields)
    # No constructor of ours: one in Python takes several times as long where the class is one of lists.
    made = ExtendedFields(shared)
    made += own
    made.shared = shared
    made.own = own
    return made


class Origin:
    """Whom one request is from, and under which path, where that is not what its connection says.

    A proxy has told it, or a protocol that carries requests of several clients on one connection (SCGI, FastCGI).
    """

    __slots__ = ("local", "peer", "root_path")

    peer: tuple[str, int] | None
    """Address and port of the client; port 0 where only the address is known."""
    local: tuple[str, int | None] | None
    """Host or address, and port, that the client has asked."""
    root_path: str
    """The path that the application is mounted under (ASGI `root_path`)."""

    def __init__(self, peer: tuple[str, int] | None, local: tuple[str, int | None] | None, root_path: str = "") -> None:
        self.peer = peer
        self.local = local
        self.root_path = root_path


class RequestHead:
    """Method, target and fields of one request; built by a parser or a wire for `Service.open()`, and changed by nobody
    else: there by what proxies say, in its fields, scheme, origin and extensions.

    The derived fields are filled by whoever builds the head, so that nobody scans the headers again.
    """

    __slots__ = (
        "content_length",
        "expect_continue",
        "extensions",
        "headers",
        "keep_alive",
        "method",
        "origin",
        "relayed",
        "scheme",
        "target",
        "upgrade",
        "version",
    )

    method: bytes
    """As sent, case-sensitive (RFC 9110 9.1): `b"GET"`."""
    target: bytes
    """The request target as sent: origin-form, absolute-form, authority-form or `b"*"` (RFC 9112 3.2)."""
    headers: Headers
    """Names in lower case, in the order received; `:authority` appears as host."""
    version: str
    """`"1.0"`, `"1.1"`, `"2"` or `"3"`."""
    scheme: str
    """`"http"` or `"https"`: how the bytes arrived."""
    upgrade: bytes | None
    """Lower-case token of Upgrade (RFC 9110 7.8) or `:protocol` (RFC 8441), None for a plain request."""
    content_length: int | None
    """Bytes of the body: 0 means there is none, None that only its end will tell."""
    expect_continue: bool
    """The peer waits for 100 (Continue) before it sends the body (RFC 9110 10.1.1)."""
    keep_alive: bool
    """HTTP/1: the connection may be used again (RFC 9112 9.3). True elsewhere."""
    extensions: dict[str, object] | None
    """What the wire adds to the `extensions` of the ASGI scope, by name; None where it adds nothing."""
    origin: Origin | None
    """None where the connection tells whom the request is from."""
    relayed: bool | tuple[int, ...]
    """There is a field by which a proxy says whom it speaks for, not yet believed or taken away. Who knows their places
    in `headers` may give these, the last one first."""

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        version: str,
        scheme: str = "http",
        upgrade: bytes | None = None,
        content_length: int | None = 0,
        expect_continue: bool = False,
        keep_alive: bool = True,
        extensions: dict[str, object] | None = None,
        origin: Origin | None = None,
        relayed: bool | tuple[int, ...] = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.scheme = scheme
        self.upgrade = upgrade
        self.content_length = content_length
        self.expect_continue = expect_continue
        self.keep_alive = keep_alive
        self.extensions = extensions
        self.origin = origin
        self.relayed = relayed

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} HTTP/{self.version}>"


def unreadable_head(version: str, scheme: str) -> RequestHead:
    """Stands for a head that could not be read, in the answer to it and in the log."""
    return RequestHead(UNREADABLE, UNREADABLE, [], version, scheme, keep_alive=False)
