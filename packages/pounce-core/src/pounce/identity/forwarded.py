"""Forwarding: whom a request is from, where proxies stand in between (X-Forwarded-*, and RFC 7239 Forwarded).

A field by which a proxy says whom it speaks for is only as good as who has written it, and a client can write it as
well. So it is believed from peers that are trusted, and taken away from all others: an application that reads it would
believe anybody. Which of the two families is believed is a setting, because a proxy that writes one of them passes the
other on as the client wrote it. That one is taken away too.

The chain of addresses is read from its end. Its last address was written by our peer, and is true if the peer is
trusted; the one before by the proxy that this address names, and is true if that is trusted, and so on. The client is
the last address that is not itself a trusted proxy. `forwarded_for_trusted_hops` counts proxies whose addresses nobody
knows: so many are taken for trusted from the end on. A chain that is shorter than that has not come through all of
them, and the count says nothing of it.

What reads names like CGI (RFC 3875 4.1.18) does not tell `x_forwarded_for` from `x-forwarded-for`: from others such a
twin is taken away as well, and behind trusted proxies every field whose name has an underscore.
"""

import re
from collections.abc import Callable

from pounce.config import ServerConfig
from pounce.contract.head import Headers, Origin, RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.errors import BadRequest
from pounce.exchange.fields import is_forwarding
from pounce.net.networks import Networks, address_of

__all__ = ["Forwarding"]

type Field = tuple[bytes, bytes]
type Node = tuple[str, int]
"""An address, and a port or 0."""

KNOWN_MAX = 256
KNOWN_VALUES_MAX = 1024
NAME_MAX = 64
"""Sets of fields that are remembered, bytes of the values of such a set, and of the name of a field."""
PLAIN, BELIEVED, DROPPED = range(3)
SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_host = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]+)(?::([0-9]{1,5}))?").fullmatch
_prefix = re.compile(rb"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)+").fullmatch
# RFC 7239 4: forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
_pair = re.compile(
    rb"[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    rb"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|\"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)\"))?"
    rb"[ \t]*(,|;|\Z)"
).match


class Forwarding:
    """Reads what proxies say on the connections of one worker. What has been read once is remembered, because a proxy
    says the same of every request of one client."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `ConfigError`."""
        self._networks = Networks(config.trusted_hosts, "trusted_hosts")
        self._hops = config.forwarded_for_trusted_hops
        self._is_rfc7239 = config.forwarded_family == "forwarded"
        self._takes_prefix = config.forwarded_prefix
        self._takes_real_ip = config.forwarded_real_ip
        self._root_path = config.root_path
        believed = (lambda name: name == b"forwarded") if self._is_rfc7239 else _is_x_forwarded
        self._of_trusted = _Kinds(lambda name: BELIEVED if believed(name) else DROPPED if _is_odd(name) else PLAIN)
        self._of_others = _Kinds(lambda name: DROPPED if is_forwarding(name) else PLAIN)
        self._known: dict[tuple[object, ...], _Judged] = {}

    def trusts(self, connection: ConnectionInfo) -> bool:
        """Whether the peer of a connection is believed."""
        return self._networks.has(connection.peer)

    def identify(self, head: RequestHead, connection: ConnectionInfo) -> bool:
        """Make the head what the application is to see, with its `origin`. True when the peer is believed.

        Raises `BadRequest` for a Forwarded field of a trusted peer that cannot be read (RFC 7239 4): where its elements
        end would be a guess.
        """
        if not self._networks.has(connection.peer):
            self.take_away(head, connection)
            return False
        kinds = self._of_trusted
        said = tuple([field for field in head.headers if kinds[field[0]]])
        if not said:
            return True
        key = (said, head.scheme, connection.peer, connection.local)
        judged = self._known.get(key)
        if judged is None:
            judged = self._judge(said, head.scheme, connection)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            if sum([len(value) for _, value in said]) <= KNOWN_VALUES_MAX:
                self._known[key] = judged
        if judged.drops or judged.host is not None:
            kept = [field for field in head.headers if kinds[field[0]] != DROPPED]
            head.headers = kept if judged.host is None else _with_host(kept, judged.host)
        if judged.origin is not None:
            head.scheme = judged.scheme
            head.origin = judged.origin
        return True

    def take_away(self, head: RequestHead, connection: ConnectionInfo) -> None:
        """Make the head of a peer that is not believed what the application is to see."""
        where = head.relayed
        if type(where) is tuple:
            headers = head.headers
            for at in where:
                del headers[at]
            # The places are not theirs any more.
            head.relayed = True
            return
        kinds = self._of_others
        head.headers = [field for field in head.headers if not kinds[field[0]]]

    def _judge(self, said: tuple[Field, ...], scheme: str, connection: ConnectionInfo) -> _Judged:
        believed: dict[bytes, list[bytes]] = {}
        for name, value in said:
            if self._of_trusted[name] == BELIEVED:
                believed.setdefault(name, []).append(value)
        judged = _Judged(sum(map(len, believed.values())) < len(said), scheme)
        if believed:
            told = (
                _Told.of_forwarded(believed)
                if self._is_rfc7239
                else _Told.of_x_forwarded(believed, self._takes_real_ip)
            )
            self._believe(told, judged, connection)
        return judged

    def _believe(self, told: _Told, judged: _Judged, connection: ConnectionInfo) -> None:
        peer, depth = self._client(told.chain)
        scheme = _at(told.schemes, depth)
        host = _at(told.hosts, depth)
        local = connection.local
        if host is not None:
            match = _host(host)
            if match is None or int(match[2] or 0) > 65535:
                raise BadRequest("X-Forwarded-Host is not valid", code="POUNCE_PARSE_BAD_FORWARDED")
            local = (match[1].decode("ascii").strip("[]"), int(match[2]) if match[2] else None)
        if scheme is not None:
            judged.scheme = SCHEMES.get(scheme.lower(), judged.scheme)
        port = _at(told.ports, depth)
        if port is not None and port.isdigit() and len(port) <= 5 and int(port) <= 65535 and local is not None:
            local = (local[0], int(port))
        elif host is not None and local is not None and local[1] is None:
            local = (local[0], 443 if judged.scheme == "https" else 80)
        root_path = self._root_path
        if self._takes_prefix and told.prefix is not None and _prefix(told.prefix) is not None:
            root_path = told.prefix.decode("ascii") + root_path
        judged.host = host
        judged.origin = Origin(peer or connection.peer, local, root_path)

    def _client(self, chain: list[bytes]) -> tuple[Node | None, int]:
        """The client by a chain of addresses, and how many of them, from the end, are believed."""
        nodes: list[Node] = []
        for text in reversed(chain):
            node = _node(text)
            if node is None:
                # Nobody can tell whose proxy that is, so nothing before it is believed.
                break
            nodes.append(node)
        if not nodes:
            return None, 1
        hops = self._hops if len(nodes) >= self._hops else 1
        depth = hops
        while depth < len(nodes) and self._networks.names(nodes[depth - 1][0]):
            depth += 1
        return nodes[depth - 1], depth


class _Kinds(dict[bytes, int]):
    """What is to be done with fields, by their names: a table of those that were seen."""

    def __init__(self, judge: Callable[[bytes], int]) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, name: bytes) -> int:
        kind = self._judge(name)
        if len(self) < KNOWN_MAX and len(name) <= NAME_MAX:
            self[name] = kind
        return kind


class _Judged:
    """What comes of the fields that a trusted peer has sent."""

    __slots__ = ("drops", "host", "origin", "scheme")

    def __init__(self, drops: bool, scheme: str) -> None:
        self.drops = drops
        """There are fields to take away."""
        self.scheme = scheme
        self.host: bytes | None = None
        self.origin: Origin | None = None


class _Told:
    """What the believed fields say, each list in the order of the proxies."""

    __slots__ = ("chain", "hosts", "ports", "prefix", "schemes")

    def __init__(
        self,
        chain: list[bytes],
        schemes: list[bytes],
        hosts: list[bytes],
        ports: list[bytes],
        prefix: bytes | None = None,
    ) -> None:
        self.chain = chain
        self.schemes = schemes
        self.hosts = hosts
        self.ports = ports
        self.prefix = prefix

    @classmethod
    def of_x_forwarded(cls, said: dict[bytes, list[bytes]], takes_real_ip: bool) -> _Told:
        chain = _list(said, b"x-forwarded-for")
        if not chain and takes_real_ip:
            chain = _list(said, b"x-real-ip")[-1:]
        prefixes = _list(said, b"x-forwarded-prefix")
        return cls(
            chain,
            _list(said, b"x-forwarded-proto"),
            _list(said, b"x-forwarded-host"),
            _list(said, b"x-forwarded-port"),
            prefixes[-1].rstrip(b"/") if prefixes else None,
        )

    @classmethod
    def of_forwarded(cls, said: dict[bytes, list[bytes]]) -> _Told:
        elements = _elements(b", ".join(said.get(b"forwarded", ())))
        return cls(
            [element.get(b"for", b"unknown") for element in elements],
            [element.get(b"proto", b"") for element in elements],
            [element.get(b"host", b"") for element in elements],
            [],
        )


def _is_x_forwarded(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name == b"x-real-ip"


def _is_odd(name: bytes) -> bool:
    """What is not believed behind a trusted proxy either: the other family, and twins of names."""
    return name == b"forwarded" or _is_x_forwarded(name) or name.find(b"_") >= 0


def _list(said: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    """The members of a list that may be spread over several fields (RFC 9110 5.6.1)."""
    return [member for value in said.get(name, ()) for part in value.split(b",") if (member := part.strip(b" \t"))]


def _at(values: list[bytes], depth: int) -> bytes | None:
    """What the proxy said that named the client; a list that is shorter was not written by all of them: its last."""
    if not values:
        return None
    return (values[-depth] if depth <= len(values) else values[-1]) or None


def _elements(text: bytes) -> list[dict[bytes, bytes]]:
    """The elements of Forwarded (RFC 7239 4), each with its parameters by lower-case name. Raises `BadRequest`."""
    elements: list[dict[bytes, bytes]] = []
    element: dict[bytes, bytes] = {}
    at = 0
    while text:
        match = _pair(text, at)
        if match is None:
            raise _bad_forwarded()
        name, token, quoted, end = match.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                # RFC 7239 4: "Each parameter MUST NOT occur more than once per field-value."
                raise _bad_forwarded()
            element[name] = token if token is not None else re.sub(rb"\\(.)", rb"\1", quoted)
        if end != b";":
            if element:
                elements.append(element)
                element = {}
            if end == b"":
                break
        at = match.end()
    return elements


def _bad_forwarded() -> BadRequest:
    return BadRequest("Forwarded is not valid", code="POUNCE_PARSE_BAD_FORWARDED")


def _node(text: bytes) -> Node | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; None for what is no address."""
    try:
        written = text.decode("ascii").strip('"')
    except UnicodeDecodeError:
        return None
    port = "0"
    if written.startswith("["):
        written, bracket, rest = written[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] or port
    elif written.count(":") == 1:
        written, _, port = written.partition(":")
    # A zone (RFC 4007 11) means something on one machine only, and may hold any text.
    address = address_of(written) if "%" not in written else None
    if address is None or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        return None
    return str(address), int(port)


def _with_host(headers: Headers, host: bytes) -> Headers:
    return [(b"host", host), *(field for field in headers if field[0] != b"host")]
