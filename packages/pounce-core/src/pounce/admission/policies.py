"""Policies: which limit a request is under, and whose bucket it takes from."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from urllib.parse import unquote

from pounce.admission.peers import key_of
from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.stream import Stream
from pounce.errors import ConfigError
from pounce.exchange.scope import split_target
from pounce.net.networks import Networks

__all__ = ["Policies", "Policy"]

KNOWN_MAX = 1024
"""Targets and addresses of which is remembered what was found."""
TARGET_MAX = 256
"""Bytes of a target that is remembered."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_route = re.compile(r"(?:([A-Z|]+)[ ]+)?(/\S*)[ ]+(?:(off)|([0-9]+(?:\.[0-9]+)?)/([smhd])(?:[ ]+([0-9]+))?)").fullmatch
_field = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


@dataclass(frozen=True, slots=True)
class Policy:
    """One limit."""

    name: str
    rate: float
    """Requests a second."""
    burst: int
    prefix: str
    """Of the keys of its buckets."""
    period: float
    """Seconds in which a token comes."""
    span: float
    """Seconds in which an empty bucket fills."""
    told: bytes
    """The value of RateLimit-Policy."""
    quoted: bytes
    """Its name as a string of structured fields (RFC 9651 3.3.3)."""

    @classmethod
    def of(cls, name: str, rate: float, burst: int, prefix: str = "") -> Policy:
        quoted = b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", name.encode("ascii", "replace"))
        span = burst / rate
        return cls(name, rate, burst, prefix, 1 / rate, span, b"%b;q=%d;w=%d" % (quoted, burst, ceil(span)), quoted)


class Policies:
    """Of one worker."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `ConfigError`."""
        self.default = Policy.of("default", config.rate_limit_requests_per_second, config.rate_limit_burst)
        routes = [_parse_route(text) for text in config.rate_limit_routes]
        exempt = [(None, _pattern(path, "rate_limit_exempt_paths"), None) for path in config.rate_limit_exempt_paths]
        self._routes = (*exempt, *routes)
        self._found: dict[tuple[bytes, bytes], Policy | None] = {}
        self._exempt = Networks(config.rate_limit_exempt, "rate_limit_exempt", ("localhost", "unix"))
        self._has_exempt = bool(self._exempt)
        self._key_of_field = _key_of(config.rate_limit_key)
        self._clients: dict[str, str] = {}
        self.are_simple = not (self._routes or self._has_exempt or self._key_of_field)
        """There is one policy, and every client is known by its address."""

    def of(self, head: RequestHead) -> Policy | None:
        """The policy for a request by its method and path; None where there is none."""
        if not self._routes:
            return self.default
        known = head.method, head.target
        try:
            return self._found[known]
        except KeyError:
            pass
        names = {head.method.decode("ascii", "replace")}
        if head.method == b"HEAD" or (head.method == b"CONNECT" and head.upgrade is not None):
            # What asks for a WebSocket is a GET of HTTP/1.1, and a CONNECT of the later ones.
            names.add("GET")
        path = unquote(split_target(head.target)[0].decode("ascii", "replace"))
        policy: Policy | None = self.default
        for methods, matches, found in self._routes:
            if (methods is None or not methods.isdisjoint(names)) and matches(path):
                policy = found
                break
        if head.upgrade is None and len(head.target) <= TARGET_MAX:
            if len(self._found) >= KNOWN_MAX:
                self._found.clear()
            self._found[known] = policy
        return policy

    def client_of(self, head: RequestHead, stream: Stream) -> str | None:
        """The key of the one who asks; None for one who is exempt."""
        peer = stream.connection.peer if head.origin is None else head.origin.peer
        if self._has_exempt and self._exempt.has(peer):
            return None
        if self._key_of_field is not None:
            key = self._key_of_field(head)
            if key is not None:
                return key
        return self.key_of(peer)

    def key_of(self, peer: tuple[str, int] | None) -> str:
        """The key of an address; None is that of Unix sockets."""
        if peer is None:
            return "unix"
        host = peer[0]
        return host if ":" not in host else self._clients.get(host) or self._network_of(host)

    def _network_of(self, host: str) -> str:
        """The /64 of an IPv6 address: what one customer has, who may use any address in it."""
        key = key_of(host)
        if len(self._clients) >= KNOWN_MAX:
            self._clients.clear()
        self._clients[host] = key
        return key


type _Route = tuple[frozenset[str] | None, Callable[[str], object], Policy | None]


def _parse_route(text: str) -> _Route:
    """`POST|PUT /login 5/m 10`: methods, pattern, rate, burst. Raises `ConfigError`."""
    match = _route(text.strip())
    if match is None or not (match[3] or float(match[4])) or not int(match[6] or 1):
        raise ConfigError(
            f"rate_limit_routes must be [METHOD|METHOD] /path rate/unit [burst], or off (got {text!r})",
            hint="For example 'POST /login 5/m', 'GET|POST /api/* 50/s 100' or '/static/* off'; units are s, m, h, d.",
        )
    methods = frozenset(match[1].split("|")) if match[1] else None
    policy = None
    if not match[3]:
        amount = float(match[4])
        burst = int(match[6]) if match[6] else max(ceil(amount), 1)
        name = f"{match[1]} {match[2]}" if match[1] else match[2]
        policy = Policy.of(name, amount / UNITS[match[5]], burst, f"{name} ")
    return methods, _pattern(match[2], "rate_limit_routes"), policy


def _pattern(text: str, setting: str) -> Callable[[str], object]:
    """What matches paths: `*` is anything without a slash, `**`, and `*` at the end, anything. Raises `ConfigError`."""
    if not text.startswith("/"):
        raise ConfigError(f"{setting} must have paths that begin with / (got {text!r})")
    if text.endswith("*"):
        text = text.rstrip("*") + "**"
    parts = re.split(r"(\*+)", text)
    found = "".join("[^/]*" if part == "*" else ".*" if part.startswith("*") else re.escape(part) for part in parts)
    return re.compile(found, re.DOTALL).fullmatch


def _key_of(setting: str) -> Callable[[RequestHead], str | None] | None:
    """What finds the key of a request by a field; None where its client's address is the key. Raises `ConfigError`."""
    if setting == "client":
        return None
    kind, _, name = setting.partition(":")
    if kind not in ("header", "cookie") or _field(name) is None:
        raise ConfigError(
            f"rate_limit_key must be client, header:NAME or cookie:NAME (got {setting!r})",
            hint="For example header:x-api-key.",
        )
    wanted = name.encode()
    if kind == "header":
        wanted = wanted.lower()

        def of_header(head: RequestHead) -> str | None:
            for field, value in head.headers:
                if field == wanted:
                    return _hashed(value)
            return None

        return of_header

    def of_cookie(head: RequestHead) -> str | None:
        for field, value in head.headers:
            if field == b"cookie":
                for pair in value.split(b";"):
                    cookie, equals, content = pair.partition(b"=")
                    if equals and cookie.strip(b" \t") == wanted:
                        return _hashed(content)
        return None

    return of_cookie


def _hashed(value: bytes) -> str | None:
    """Of one length, however long the value, and nobody who sees keys can use them."""
    value = value.strip(b' \t"')
    return "#" + blake2b(value, digest_size=16).hexdigest() if value else None
