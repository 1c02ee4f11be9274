"""Listening sockets: opened here and nowhere else, from a configuration.

Names resolve to every address they have; an IPv6 wildcard takes IPv4 as well or does not because the socket is told
so, never by a default of the system; a Unix socket that somebody still answers on is not taken away.

One process may open a socket and another serve it: what travels is the `Bind` and the number of the descriptor, and
`Listener.from_fd()` is the same listener again.
"""

import errno
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pounce.config import ServerConfig, setting_of_bind
from pounce.errors import BindError, ConfigError
from pounce.exchange.own_binds import own_binds
from pounce.net.inherited import adopt, adopt_udp, systemd_sockets
from pounce.net.unix_socket import hint_for, open_unix

__all__ = ["Bind", "Listener", "Passed", "bind_udp", "binds_of", "names_of", "open_listeners", "parse_bind"]

HTTP3 = "h3"
"""The wire that is spoken on the UDP port beside a bind's own."""
UDP_BUFFER = 2 * 1024 * 1024
"""Bytes asked of the kernel for each direction of a UDP socket; it may give less."""
UDP = "udp+"
"""What stands before the wire of a bind whose port is one of UDP."""
HTTP_WIRES = ("h1", "h2", HTTP3)
"""Those that clients know as http and https."""


@dataclass(frozen=True, slots=True)
class Bind:
    """What to listen on: `host` and `port`, the `path` of a Unix socket, or a socket that is already there, by its
    descriptor `fd` or its name in the socket unit of `systemd`."""

    host: str = ""
    port: int = 0
    path: str | None = None
    fd: int | None = None
    systemd: str | None = None
    wires: tuple[str, ...] = ()
    """The protocols that it speaks, by name; empty is all there are. With one all its connections speak that."""
    tls: bool | None = None
    """Whether TLS is spoken; None where a certificate decides."""
    datagrams: bool = False
    """It is a UDP port, on which the wire that it names is spoken."""
    is_quic: bool = False
    """It is one of `quic_bind`, which other binds announce."""
    mode: int | None = None
    """Of a Unix socket's file; None is `uds_permissions`."""
    user: str | None = None
    group: str | None = None
    """Owners of a Unix socket's file, by name or number; None leaves them."""
    proxy_protocol: bool | None = None
    """Whether connections begin with a header of the PROXY protocol; None is the setting's."""
    proxy_protocol_from: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    """Proxies that are believed here, in place of the setting's."""
    settings: tuple[tuple[str, str], ...] = ()
    """Settings for its connections, in place of those of the server, as they are written: of the server, and of the
    plugin whose wire it names alone."""
    serves: tuple[str, ...] = ()
    """The responders that are served here, and nothing else is; empty for what the server is there for."""

    @property
    def has_certificate(self) -> bool:
        """It has one of its own."""
        return any(name == "ssl_certfile" for name, _ in self.settings)

    @property
    def place(self) -> str:
        """Where it is, without the options."""
        if self.path is not None:
            return f"unix:{self.path}"
        if self.fd is not None:
            return f"fd://{self.fd}"
        if self.systemd is not None:
            return f"systemd:{self.systemd}"
        scheme = f"{UDP}{self.wires[0]}://" if self.datagrams else ""
        return f"{scheme}{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def has_proxy_header(self, config: ServerConfig) -> bool:
        """Whether its connections begin with a header of the PROXY protocol."""
        return config.proxy_protocol if self.proxy_protocol is None else self.proxy_protocol


@dataclass(frozen=True, slots=True)
class Passed:
    """A listening socket that a server before this one had opened, and leaves to it."""

    name: str
    """Of its bind, as `names_of` has it."""
    twins: int
    """0 for the bind's own socket; a number that it shares with the other twins that were made together."""
    fd: int
    file: Sequence[int] = (0, 0)
    """Device and inode of a Unix socket that goes with it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it was bound for."""

    sock: socket.socket
    bind: Bind
    owner: int = 0
    """Process that made the file of a Unix socket, and alone removes it; 0 where nobody here has."""
    file: tuple[int, int] = (0, 0)
    """Device and inode of that file."""

    @classmethod
    def from_fd(cls, bind: Bind, fd: int, backlog: int = 2048) -> Self:
        """A listener that another process has opened for `bind`, or another part of this one: it takes the descriptor
        over, and leaves the file of a Unix socket to whoever made it. Raises `BindError` for what is no such socket.
        """
        try:
            return cls(adopt_udp(fd) if bind.datagrams else adopt(fd, backlog), bind)
        except OSError as exc:
            raise _translated(f"descriptor {fd}", exc) from exc

    @property
    def is_unix(self) -> bool:
        """Its clients have no address."""
        return self.sock.family == socket.AF_UNIX

    def url(self, scheme: str) -> str:
        """Where a client finds it, with the real port; `scheme` is that of binds that leave TLS open."""
        address = self.sock.getsockname()
        if self.is_unix:
            return f"unix:{self.bind.path or os.fsdecode(address)}"
        wires = self.bind.wires
        if self.bind.datagrams:
            scheme = UDP + wires[0]
        elif len(wires) == 1 and wires[0] not in HTTP_WIRES:
            scheme = wires[0]
        elif self.bind.tls is not None or self.bind.has_certificate:
            scheme = "http" if self.bind.tls is False else "https"
        host, port = address[:2]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def bound(self) -> int | str:
        """Its port, or the path of a Unix socket: `ConnectionInfo.bound` of its connections."""
        address = self.sock.getsockname()
        return os.fsdecode(address) if self.is_unix else int(address[1])

    @property
    def has_twins(self) -> bool:
        """Whether `twin()` can be."""
        if self.is_unix or self.bind.datagrams:
            return False
        return bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))

    def twin(self, backlog: int) -> Listener:
        """A further socket on the same address, between which the kernel spreads connections; needs `reuseport`.

        Raises `BindError`, always for a Unix socket.
        """
        host, port = "", 0
        try:
            if self.is_unix:
                raise OSError(errno.EOPNOTSUPP, "a Unix socket cannot be shared by port")
            host, port = self.sock.getsockname()[:2]
            dual = self.sock.family == socket.AF_INET6 and not self.sock.getsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
            )
            sock = _listen(self.sock.family, host, port, dual=dual, reuseport=True, backlog=backlog)
            _tune_like(sock, self.sock)
            return Listener(sock, self.bind)
        except OSError as exc:
            raise _translated(f"{host}:{port}", exc) from exc

    def owned(self) -> Listener:
        """The same as that of this process, which removes the file of a Unix socket that was taken over."""
        return replace(self, owner=os.getpid()) if self.file[1] else self

    def close(self) -> None:
        """Close the socket; before that its owner removes the file of a Unix socket, if it is still this one's."""
        path = self.bind.path
        if path is not None and self.owner == os.getpid():
            try:
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == self.file:
                    os.unlink(path)
            except OSError:
                pass
        self.sock.close()


_address = re.compile(
    r"(?:(?P<wire>[a-z][a-z0-9+.-]*)://)?(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]/]*)):(?P<port>\d{1,5})"
).fullmatch


def parse_bind(text: str) -> Bind:
    """`[wire://]host:port`, `udp+wire://host:port`, `unix:/path`, `fd://number` or `systemd:name`, with
    `?option=value&…` where there are any.

    Raises `ConfigError`.
    """
    where, question, written = text.partition("?")
    bind = _parse_place(where, text)
    return replace(bind, **_parse_options(written, bind, text)) if question else bind


def _parse_place(where: str, text: str) -> Bind:
    if where.startswith("unix:") and len(where) > 5:
        return Bind(path=where[5:])
    if re.fullmatch(r"fd://\d{1,9}", where):
        return Bind(fd=int(where[5:]))
    if where.startswith("systemd:"):
        return Bind(systemd=where[8:])
    match = _address(where)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            "bind must be [wire://]host:port, [wire://][ipv6]:port, unix:/path, fd://number or systemd:name "
            f"(got {text!r})",
            hint="For example --bind 127.0.0.1:8000 or --bind unix:/run/app.sock.",
        )
    wire = match["wire"]
    bind = Bind(host=match["ipv6"] or match["host"] or "0.0.0.0", port=int(match["port"]))
    if wire in ("http", "https"):
        return replace(bind, tls=wire == "https")
    if wire is not None and wire.startswith(UDP):
        return replace(bind, wires=(wire.removeprefix(UDP),), datagrams=True)
    return replace(bind, wires=(wire,)) if wire is not None else bind


def _parse_options(written: str, bind: Bind, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    others: dict[str, str] = {}
    for pair in written.split("&"):
        name, _, value = pair.partition("=")
        if name not in _OPTIONS or (name in _OF_UNIX and bind.path is None) or bind.datagrams:
            if name in others:
                raise ConfigError(f"{name} is given twice in bind {text!r}")
            others[name] = value
            continue
        field = _FIELDS.get(name, name)
        allowed, convert = _OPTIONS[name]
        if not re.fullmatch(allowed, value):
            raise ConfigError(f"{name} has a wrong value in bind {text!r}", hint=f"For example {_EXAMPLES[name]}.")
        converted = convert(value)
        # Those that may be repeated are tuples, and add up.
        adds_up = isinstance(converted, tuple)
        if (field in options and not adds_up) or getattr(bind, field) not in (None, ()):
            raise ConfigError(f"{name} is given twice in bind {text!r}")
        options[field] = tuple(dict.fromkeys(options.get(field, ()) + converted)) if adds_up else converted
    # Whether a wire that is named alone has such settings is known when its plugin is looked up.
    has_plugin = len(options.get("wires", bind.wires)) == 1
    for name in others:
        if name in _OPTIONS or not has_plugin:
            try:
                setting_of_bind(name, [key for key in _OPTIONS if bind.path is not None or key not in _OF_UNIX])
            except ConfigError as exc:
                raise ConfigError(f"{exc.message} (got {text!r})", hint=exc.hint) from None
    if others:
        options["settings"] = tuple(others.items())
    return options


def _is_on(value: str) -> bool:
    return value == "on"


_OF_UNIX = ("mode", "user", "group")
_OPTIONS: dict[str, tuple[str, Any]] = {
    "wire": (r"[a-z][a-z0-9+.-]*", lambda value: (value,)),
    "tls": (r"on|off", _is_on),
    "mode": (r"(?:0o?)?[0-7]{3}", lambda value: int(value, 8)),
    "user": (r"[^\s&]+", str),
    "group": (r"[^\s&]+", str),
    "proxy_protocol": (r"on|off", _is_on),
    "proxy_protocol_from": (r"[0-9a-fA-F.:/]+|unix", lambda value: (value,)),
    "trusted_hosts": (r"[0-9a-fA-F.:/]+|unix|localhost|\*", lambda value: (value,)),
}
_FIELDS = {"wire": "wires"}
"""Fields of a bind whose option has another name."""
_EXAMPLES = {
    "wire": "wire=h1",
    "tls": "tls=off",
    "mode": "mode=660",
    "user": "user=www",
    "group": "group=www",
    "proxy_protocol": "proxy_protocol=on",
    "proxy_protocol_from": "proxy_protocol_from=10.0.0.0/8",
    "trusted_hosts": "trusted_hosts=10.0.0.0/8",
}


def binds_of(config: ServerConfig) -> list[Bind]:
    """What a configuration asks to listen on. Raises `ConfigError`."""
    if config.bind:
        binds = [parse_bind(text) for text in config.bind]
    elif config.uds is not None:
        binds = [Bind(path=config.uds)]
    else:
        binds = [Bind(host=config.host, port=config.port)]
    binds += _quic_binds(config)
    binds += _binds_of_endpoints(config, {bind.place for bind in binds if bind.port})
    for bind in binds:
        if config.ipv6 != "dual":
            _check_family(bind, config.ipv6)
        if bind.tls and not (config.uses_tls or bind.has_certificate):
            raise ConfigError(
                "a bind asks for TLS and there is no certificate", hint="Give ssl_certfile and ssl_keyfile."
            )
        if HTTP3 in bind.wires and not bind.is_quic:
            _check_http3(bind, config)
    taken = [(bind.fd, bind.systemd) for bind in binds if bind.fd is not None or bind.systemd is not None]
    if len(set(taken)) < len(taken):
        raise ConfigError("bind has an inherited socket twice", hint="Name each descriptor or socket once.")
    return binds


def _check_family(bind: Bind, ipv6: str) -> None:
    """Raises `ConfigError` for an address of the family that is not to be used."""
    if ipv6 == "off" and ":" in bind.host:
        raise ConfigError(
            f"ipv6 is off, and {bind.host} is an address of IPv6",
            hint="Give an address of IPv4 such as 0.0.0.0, or set ipv6 to dual or only.",
        )
    if ipv6 == "only" and bind.host.replace(".", "").isdecimal():
        raise ConfigError(
            f"ipv6 is only, and {bind.host} is an address of IPv4",
            hint="Give an address of IPv6 such as :: or ::1, or set ipv6 to dual or off.",
        )


def _binds_of_endpoints(config: ServerConfig, taken: set[str]) -> Iterable[Bind]:
    """Those that speak HTTP/1.1 to whoever operates the server. Raises `ConfigError`, also where the place is taken."""
    for text, names in own_binds(config).items():
        setting = "metrics_bind" if text == config.metrics_bind else "introspection_bind"
        try:
            bind = parse_bind(text)
        except ConfigError as exc:
            raise ConfigError(f"{setting}: {exc.message}", hint=exc.hint) from exc
        if bind.place in taken:
            raise ConfigError(
                f"{setting} is {text}, where the server itself listens", hint="Leave it out, or take another port."
            )
        yield replace(
            bind,
            serves=names,
            wires=bind.wires or ("h1",),
            tls=bool(bind.tls),
            proxy_protocol=bool(bind.proxy_protocol),
        )


def _quic_binds(config: ServerConfig) -> Iterable[Bind]:
    """UDP ports for HTTP/3 alone. Raises `ConfigError`."""
    for text in config.quic_bind if config.http3_enabled else ():
        match = _address(text)
        if match is None or match["wire"] is not None:
            raise ConfigError(
                f"quic_bind must be host:port or [ipv6]:port (got {text!r})",
                hint="For example --quic-bind 0.0.0.0:443.",
            )
        yield replace(parse_bind(text), wires=(HTTP3,), datagrams=True, is_quic=True)


def _check_http3(bind: Bind, config: ServerConfig) -> None:
    """Raises `ConfigError` for a bind that names HTTP/3 where it cannot be spoken."""
    if bind.datagrams:
        raise ConfigError(
            f"bind {bind.place} is HTTP/3 alone, which no client finds",
            hint="Name a bind with TLS, and set http3_enabled: it is served on the UDP port of the same number.",
        )
    if not config.http3_enabled:
        raise ConfigError(f"bind {bind.place} names the wire h3, and HTTP/3 is off", hint="Set http3_enabled.")
    if bind.path is not None or bind.tls is False or bind.has_proxy_header(config):
        raise ConfigError(
            f"bind {bind.place} names the wire h3, which it cannot speak",
            hint="HTTP/3 needs a UDP port and TLS, and no proxy that names its clients in front.",
        )


def names_of(binds: Iterable[Bind]) -> dict[int, str]:
    """A name for each bind, by its id: its place, with a number for another one at the same, such as port 0."""
    names: dict[int, str] = {}
    for bind in binds:
        if id(bind) not in names:
            before = sum(name.partition("#")[0] == bind.place for name in names.values())
            names[id(bind)] = f"{bind.place}#{before}" if before else bind.place
    return names


def open_listeners(config: ServerConfig, passed: Sequence[Passed] = ()) -> list[Listener]:
    """Open every socket that the configuration asks for, listening; all or none. What was `passed` for a bind stands
    for it as it is.

    Raises `BindError`, and `ConfigError` for a bind that cannot be understood.
    """
    listeners: list[Listener] = []
    binds = binds_of(config)
    # Where IPv4 has a bind of its own, an IPv6 wildcard leaves it alone.
    ipv4_ports = {bind.port for bind in binds if bind.host == "0.0.0.0" and bind.port}
    names = names_of(binds)
    try:
        for bind in binds:
            there = [each for each in passed if each.name == names[id(bind)] and not each.twins]
            if there:
                listeners += [_taken_over(bind, each, config.backlog) for each in there]
            elif bind.path is not None:
                listeners.append(_open_unix(bind, config))
            elif bind.fd is not None:
                listeners.append(Listener.from_fd(bind, bind.fd, config.backlog))
            elif bind.systemd is not None:
                listeners += [Listener.from_fd(bind, fd, config.backlog) for fd in systemd_sockets(bind.systemd)]
            else:
                listeners += _open_port(bind, config, ipv4_ports)
        for listener in listeners:
            if not listener.is_unix and not listener.bind.datagrams:
                _tune(listener.sock, config)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


_TIMES = (
    ("TCP_KEEPIDLE", "tcp_keep_alive"),
    ("TCP_KEEPALIVE", "tcp_keep_alive"),
    ("TCP_KEEPINTVL", "tcp_keep_alive_interval"),
    ("TCP_KEEPCNT", "tcp_keep_alive_probes"),
)
"""Names of the options, of which systems have some, and the settings."""


def _tune(sock: socket.socket, config: ServerConfig) -> None:
    """Set what connections inherit from the socket that accepts them."""
    if config.tcp_keep_alive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, setting in _TIMES:
            if hasattr(socket, name):
                # Whole seconds, and at least one.
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, round(getattr(config, setting))))
    if config.tcp_fast_open and hasattr(socket, "TCP_FASTOPEN"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, config.tcp_fast_open)


def _tune_like(sock: socket.socket, other: socket.socket) -> None:
    if other.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in (*(name for name, _ in _TIMES), "TCP_FASTOPEN"):
        option = getattr(socket, name, None)
        if option is not None and (value := other.getsockopt(socket.IPPROTO_TCP, option)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _taken_over(bind: Bind, passed: Passed, backlog: int) -> Listener:
    listener = Listener.from_fd(bind, passed.fd, backlog)
    device, inode = passed.file
    return replace(listener, file=(device, inode))


def _open_unix(bind: Bind, config: ServerConfig) -> Listener:
    path = bind.path
    assert path is not None
    mode = config.uds_permissions if bind.mode is None else bind.mode
    try:
        sock = open_unix(path, mode, bind.user, bind.group, config.backlog)
        status = os.lstat(path)
    except OSError as exc:
        error = _translated(path, exc)
        error.hint = hint_for(path) or error.hint
        raise error from exc
    return Listener(sock, bind, os.getpid(), (status.st_dev, status.st_ino))


def _open_port(bind: Bind, config: ServerConfig, ipv4_ports: set[int]) -> Iterable[Listener]:
    opened: list[Listener] = []
    port = bind.port
    missing: OSError | None = None
    try:
        for family, address in _resolve(bind, config):
            dual = config.ipv6 == "dual" and address == "::" and port not in ipv4_ports
            try:
                if bind.datagrams:
                    sock = bind_udp(family, (address, port), dual=dual)
                else:
                    sock = _listen(family, address, port, dual=dual, reuseport=config.reuseport, backlog=config.backlog)
            except OSError as exc:
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                # localhost has an IPv6 address also where the machine has no IPv6.
                missing = exc
                continue
            opened.append(Listener(sock, bind))
            # A name with several addresses means one port, also when the system chooses it.
            port = sock.getsockname()[1]
        if missing is not None and not opened:
            raise missing
    except OSError as exc:
        for listener in opened:
            listener.close()
        host = f"[{bind.host}]" if ":" in bind.host else bind.host
        error = _translated(f"{host}:{port}", exc)
        if error.code == "POUNCE_BIND_IN_USE":
            from pounce.net.holder import holder_of

            if holder := holder_of(port, ipv6=":" in bind.host):
                error.hint = f"It is {holder} that listens there; stop it, choose another port, or use --port 0."
        raise error from exc
    return opened


def _listen(family: int, address: str, port: int, *, dual: bool, reuseport: bool, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuseport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def bind_udp(family: int, address: tuple[Any, ...], *, dual: bool) -> socket.socket:
    """A UDP socket on an address that others may share. Raises `OSError`."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _resolve(bind: Bind, config: ServerConfig) -> list[tuple[int, str]]:
    family = {"dual": socket.AF_UNSPEC, "only": socket.AF_INET6, "off": socket.AF_INET}[config.ipv6]
    try:
        found = socket.getaddrinfo(bind.host, bind.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        families = {"dual": "", "only": " as a name of IPv6 (ipv6 is only)", "off": " as a name of IPv4 (ipv6 is off)"}
        raise BindError(
            f"cannot resolve {bind.host!r}{families[config.ipv6]}: {getattr(exc, 'strerror', None) or exc}",
            code="POUNCE_BIND_UNKNOWN_HOST",
            hint="Use an address or a name of this machine, for example 127.0.0.1, 0.0.0.0 or ::.",
        ) from exc
    return list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in found))


def _translated(where: str, exc: OSError) -> BindError:
    if isinstance(exc, BindError):
        return exc
    hints = {
        errno.EADDRINUSE: (
            "POUNCE_BIND_IN_USE",
            "Another process listens there; stop it, choose another port, or use --port 0.",
        ),
        errno.EACCES: (
            "POUNCE_BIND_DENIED",
            "Ports below 1024 need a privilege; choose a higher one, or check the path's permissions.",
        ),
        errno.EPERM: ("POUNCE_BIND_DENIED", "Only root gives a socket to another user."),
        errno.EADDRNOTAVAIL: ("POUNCE_BIND_NOT_LOCAL", "That address is not one of this machine's."),
    }
    code, hint = hints.get(exc.errno or 0, ("POUNCE_BIND_FAILED", None))
    return BindError(f"cannot listen on {where}: {exc.strerror or exc}", code=code, hint=hint)
