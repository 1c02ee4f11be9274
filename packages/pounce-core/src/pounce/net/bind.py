"""Listening sockets: bound here and nowhere else, from a configuration.

Names resolve to every address they have; an IPv6 wildcard takes IPv4 as well or does not because the socket is told
so, never by a default of the system; a Unix socket that somebody still answers on is not taken away.
"""

import errno
import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from pounce.config import ServerConfig
from pounce.errors import BindError, ConfigError

__all__ = ["Bind", "Listener", "open_listeners", "parse_bind"]


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on: `host` and `port`, or `path` of a Unix socket; `wire` names the protocol, if one."""

    host: str = ""
    port: int = 0
    path: str | None = None
    wire: str | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it was bound for."""

    sock: socket.socket
    bind: Bind
    inode: int = 0
    """Of the file of a Unix socket."""

    def url(self, scheme: str) -> str:
        """Where a client finds it, with the real port."""
        if self.bind.path is not None:
            return f"unix:{self.bind.path}"
        host, port = self.sock.getsockname()[:2]
        return f"{self.bind.wire or scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Close the socket, and remove the file of a Unix socket if it is still this one's."""
        path = self.bind.path
        if path is not None:
            try:
                if os.stat(path).st_ino == self.inode:
                    os.unlink(path)
            except OSError:
                pass
        self.sock.close()


_bind = re.compile(
    r"(?:(?P<wire>[a-z][a-z0-9+.-]*)://)?(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]/]*)):(?P<port>\d{1,5})"
).fullmatch


def parse_bind(text: str) -> Bind:
    """`host:port`, `[ipv6]:port`, `wire://host:port` or `unix:/path`. Raises `ConfigError`."""
    if text.startswith("unix:") and len(text) > 5:
        return Bind(path=text[5:])
    match = _bind(text)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"bind must be [wire://]host:port, [wire://][ipv6]:port or unix:/path (got {text!r})",
            hint="For example --bind 127.0.0.1:8000 or --bind unix:/run/app.sock.",
        )
    wire = None if match["wire"] in ("http", "https") else match["wire"]
    return Bind(host=match["ipv6"] or match["host"] or "0.0.0.0", port=int(match["port"]), wire=wire)


def binds_of(config: ServerConfig) -> list[Bind]:
    """The addresses that a configuration asks for."""
    if config.bind:
        return [parse_bind(text) for text in config.bind]
    if config.uds is not None:
        return [Bind(path=config.uds)]
    return [Bind(host=config.host, port=config.port)]


def open_listeners(config: ServerConfig) -> list[Listener]:
    """Open every socket that the configuration asks for, listening; all or none. Raises `BindError`."""
    listeners: list[Listener] = []
    binds = binds_of(config)
    # Where IPv4 has a bind of its own, an IPv6 wildcard leaves it alone.
    ipv4_ports = {bind.port for bind in binds if bind.host == "0.0.0.0" and bind.port}
    try:
        for bind in binds:
            if bind.path is not None:
                listeners.append(_open_unix(bind, config))
            else:
                listeners += _open_tcp(bind, config, ipv4_ports)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open_tcp(bind: Bind, config: ServerConfig, ipv4_ports: set[int]) -> Iterable[Listener]:
    opened: list[Listener] = []
    port = bind.port
    missing: OSError | None = None
    try:
        for family, address in _resolve(bind, config):
            dual = config.ipv6 == "dual" and address == "::" and port not in ipv4_ports
            try:
                sock = _listen(family, address, port, dual, config.backlog)
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
        if isinstance(exc, BindError):
            raise
        host = f"[{bind.host}]" if ":" in bind.host else bind.host
        raise _bind_error(f"{host}:{port}", exc) from exc
    return opened


def _listen(family: int, address: str, port: int, dual: bool, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _resolve(bind: Bind, config: ServerConfig) -> list[tuple[int, str]]:
    family = {"dual": socket.AF_UNSPEC, "only": socket.AF_INET6, "off": socket.AF_INET}[config.ipv6]
    try:
        found = socket.getaddrinfo(bind.host, bind.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise BindError(
            f"cannot resolve {bind.host!r}: {getattr(exc, 'strerror', None) or exc}",
            code="POUNCE_BIND_UNKNOWN_HOST",
            hint="Use an address or a name of this machine, for example 127.0.0.1, 0.0.0.0 or ::.",
        ) from exc
    return list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in found))


def _open_unix(bind: Bind, config: ServerConfig) -> Listener:
    path = bind.path
    assert path is not None
    if "\0" in path:
        raise ConfigError(f"the path of a Unix socket must have no NUL (got {path!r})")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_stale(path)
        # The file must never exist with more permissions than it is to have.
        mask = os.umask(0o777 & ~config.uds_permissions)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        os.chmod(path, config.uds_permissions)
        sock.listen(config.backlog)
    except OSError as exc:
        sock.close()
        if isinstance(exc, BindError):
            raise
        raise _bind_error(path, exc) from exc
    return Listener(sock, bind, os.stat(path).st_ino)


def _remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody answers on; anything else at `path` is an error."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"{path} exists and is not a socket", code="POUNCE_BIND_IN_USE", hint="Choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise BindError(
        f"{path} is in use by another process",
        code="POUNCE_BIND_IN_USE",
        hint="Stop that process or choose another path.",
    )


def _bind_error(where: str, exc: OSError) -> BindError:
    hints = {
        errno.EADDRINUSE: (
            "POUNCE_BIND_IN_USE",
            "Another process listens there; stop it, choose another port, or use --port 0.",
        ),
        errno.EACCES: (
            "POUNCE_BIND_DENIED",
            "Ports below 1024 need a privilege; choose a higher one, or check the path's permissions.",
        ),
        errno.EADDRNOTAVAIL: ("POUNCE_BIND_NOT_LOCAL", "That address is not one of this machine's."),
    }
    code, hint = hints.get(exc.errno or 0, ("POUNCE_BIND_FAILED", None))
    return BindError(f"cannot listen on {where}: {exc.strerror or exc}", code=code, hint=hint)
