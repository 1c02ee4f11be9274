"""The PROXY protocol, versions 1 and 2: who is behind the proxy, told in front of everything else, TLS included.

Where a bind asks for the header, every connection must begin with one, and come from a peer on the allow-list; all
others are closed. There is no third way, since a header that is believed where it happens to come lets every client
name its own address.

The header is read from the socket itself before there is a transport, and never a byte more than it. What follows,
such as a TLS handshake, is left in the kernel for whoever reads next.
"""

import asyncio
import ipaddress
import logging
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pounce.contract.stream import unmapped
from pounce.net.networks import Networks

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.wire import Service
    from pounce.net.bind import Bind

__all__ = ["HeaderReader", "ProxyHeader", "ProxyHeaderError", "ProxyPolicy"]

log = logging.getLogger("pounce.net")

SIGNATURE_V1 = b"PROXY "
SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1 = 107
"""Bytes of a header of version 1 with its CRLF, by the specification."""
MAX_V2 = 8192
"""Bytes of a header of version 2: addresses and every extension in use, a client's certificate among them."""

LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, TCP6, UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
ALPN, AUTHORITY, CRC32C, UNIQUE_ID, TLS = 0x01, 0x02, 0x03, 0x05, 0x20
TLS_VERSION, TLS_CN, TLS_CIPHER = 0x21, 0x22, 0x23
CLIENT_TLS = 0x01
"""The bit that says that the client spoke TLS with the proxy."""


class ProxyHeaderError(Exception):
    """What came first is no header of the PROXY protocol, or is one that breaks its rules."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of the connection that it passes on."""

    version: int
    peer: tuple[str, int] | None = None
    """The client; None where the proxy speaks for itself (LOCAL), or does not know (UNKNOWN)."""
    local: tuple[str, int] | None = None
    """Where the client has connected to."""
    alpn: str | None = None
    """The protocol that the proxy negotiated with the client."""
    authority: str | None = None
    """The name the client asked for (SNI)."""
    unique_id: bytes | None = None
    tls: dict[str, Any] | None = None
    """Of the client's TLS connection with the proxy: version, cipher, client_cn, client_verified."""

    def extension(self, proxy: tuple[str, int] | None) -> dict[str, object]:
        """The ASGI extension `pounce.proxy`; `proxy` is the address that the connection came from."""
        return {
            "version": self.version,
            "proxy": proxy,
            "alpn": self.alpn,
            "authority": self.authority,
            "unique_id": self.unique_id,
            "tls": self.tls,
        }


class HeaderReader:
    """Reads one header from as many pieces as it comes in."""

    def __init__(self) -> None:
        self._data = b""
        self.header: ProxyHeader | None = None
        """The header, once it is complete."""

    def take(self, data: bytes) -> int:
        """How many of the next bytes, at least one, belong to the header; they are taken, the rest is not looked at.

        Raises `ProxyHeaderError` as soon as it is certain that this is no header.
        """
        before = len(self._data)
        seen = self._data + data
        signature = SIGNATURE_V2 if seen[:1] == SIGNATURE_V2[:1] else SIGNATURE_V1
        if seen[: len(signature)] != signature[: len(seen)]:
            raise ProxyHeaderError("there is no PROXY header")
        end = self._end_v2(seen) if signature is SIGNATURE_V2 else self._end_v1(seen)
        self._data = seen[:end]
        if end is not None and len(seen) >= end:
            self.header = _parse_v2(self._data) if signature is SIGNATURE_V2 else _parse_v1(self._data)
        return len(self._data) - before

    def _end_v1(self, seen: bytes) -> int | None:
        end = seen.find(b"\n", 0, MAX_V1)
        if end >= 0:
            return end + 1
        if len(seen) >= MAX_V1:
            raise ProxyHeaderError("the header is longer than 107 bytes")
        return None

    def _end_v2(self, seen: bytes) -> int | None:
        if len(seen) < 16:
            return None
        end = 16 + int.from_bytes(seen[14:16])
        if end > MAX_V2:
            raise ProxyHeaderError(f"the header is longer than {MAX_V2} bytes")
        return end


def _parse_v1(data: bytes) -> ProxyHeader:
    """`PROXY TCP4 192.0.2.1 192.0.2.2 50000 443` and CRLF."""
    if not data.endswith(b"\r\n"):
        raise ProxyHeaderError("the header does not end with CRLF")
    line = data[:-2].decode("latin-1")
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):
        return ProxyHeader(1)
    words = line.split(" ")
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError("the header of version 1 is malformed")
    _, family, peer, local, peer_port, local_port = words
    return ProxyHeader(1, (_address(peer, family), _port(peer_port)), (_address(local, family), _port(local_port)))


def _address(text: str, family: str) -> str:
    try:
        if "%" not in text:
            return str(ipaddress.IPv4Address(text)) if family == "TCP4" else unmapped(str(ipaddress.IPv6Address(text)))
    except ValueError:
        pass
    raise ProxyHeaderError("an address is malformed")


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and str(int(text)) == text and int(text) <= 65535:
        return int(text)
    raise ProxyHeaderError("a port is malformed")


def _parse_v2(data: bytes) -> ProxyHeader:
    command, family = data[12], data[13]
    if command == LOCAL:
        # "the receiver must use the real connection endpoints and must discard the protocol block"
        return ProxyHeader(2)
    if command != PROXY:
        raise ProxyHeaderError("version or command is unknown")
    peer = local = None
    rest = data[16:]
    if family == TCP4:
        source, target, peer_port, local_port = _unpacked("!4s4sHH", rest)
        peer, local = (_dotted(source), peer_port), (_dotted(target), local_port)
        rest = rest[12:]
    elif family == TCP6:
        source, target, peer_port, local_port = _unpacked("!16s16sHH", rest)
        peer, local = (_ipv6(source), peer_port), (_ipv6(target), local_port)
        rest = rest[36:]
    elif family == UNIX_STREAM:
        _unpacked("!108s108s", rest)
        rest = rest[216:]
    elif family != UNSPEC:
        raise ProxyHeaderError("the address family is none of a stream")
    return _with_extensions(data, rest, peer, local)


def _unpacked(layout: str, data: bytes) -> tuple[Any, ...]:
    if len(data) < struct.calcsize(layout):
        raise ProxyHeaderError("the addresses do not fit the header")
    return struct.unpack_from(layout, data)


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _ipv6(address: bytes) -> str:
    return unmapped(str(ipaddress.IPv6Address(address)))


def _with_extensions(
    data: bytes, rest: bytes, peer: tuple[str, int] | None, local: tuple[str, int] | None
) -> ProxyHeader:
    extensions = _extensions(rest)
    checksum = extensions.get(CRC32C)
    if checksum is not None:
        # "calculated over the whole PROXY header [with] the checksum field [...] set to zero"
        at = len(data) - len(rest) + _offset(rest, CRC32C)
        if len(checksum) != 4 or crc32c(data[:at] + bytes(4) + data[at + 4 :]) != int.from_bytes(checksum):
            raise ProxyHeaderError("the checksum is wrong")
    alpn, authority, unique_id = extensions.get(ALPN), extensions.get(AUTHORITY), extensions.get(UNIQUE_ID)
    if unique_id is not None and len(unique_id) > 128:
        raise ProxyHeaderError("the unique id is longer than 128 bytes")
    return ProxyHeader(
        2, peer, local, _text(alpn), _text(authority), unique_id, _tls(extensions[TLS]) if TLS in extensions else None
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    """Type-length-value fields by their type; what is given twice could be read in two ways, and is refused."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3])
        if len(data) < at + 3 or end > len(data):
            raise ProxyHeaderError("an extension does not fit the header")
        if data[at] in found and data[at] in (ALPN, AUTHORITY, CRC32C, UNIQUE_ID, TLS, TLS_VERSION, TLS_CN, TLS_CIPHER):
            raise ProxyHeaderError("an extension is given twice")
        found[data[at]] = data[at + 3 : end]
        at = end
    return found


def _offset(data: bytes, kind: int) -> int:
    """Where the value of an extension begins."""
    at = 0
    while data[at] != kind:
        at += 3 + int.from_bytes(data[at + 1 : at + 3])
    return at + 3


def _tls(value: bytes) -> dict[str, Any] | None:
    if len(value) < 5:
        raise ProxyHeaderError("an extension does not fit the header")
    if not value[0] & CLIENT_TLS:
        return None
    fields = _extensions(value[5:])
    return {
        "version": _text(fields.get(TLS_VERSION)),
        "cipher": _text(fields.get(TLS_CIPHER)),
        "client_cn": _text(fields.get(TLS_CN)),
        # "zero if the client presented a certificate and it was successfully verified"
        "client_verified": bool(value[0] & 0x06) and not any(value[1:5]),
    }


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise ProxyHeaderError("an extension is not UTF-8") from exc


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720 B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = tuple(map(_crc_of, range(256)))


class ProxyPolicy:
    """Whose header is believed on one bind, in one worker."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        """`allowed` holds addresses, networks, and `unix` for the peers of Unix sockets. Raises `ConfigError`."""
        self._allowed = Networks(allowed, "proxy_protocol_from", words=("unix",))
        self._logged: set[str] = set()

    @classmethod
    def of(cls, config: ServerConfig, bind: Bind) -> ProxyPolicy | None:
        """The policy of a bind, None where connections have no header. Raises `ConfigError`."""
        allowed = bind.proxy_protocol_from or config.proxy_protocol_from
        return cls(allowed) if bind.has_proxy_header(config) else None

    def allows(self, sock: socket.socket) -> bool:
        """Whether the peer of a connected socket may say who it speaks for. Raises `OSError` when it is gone."""
        return self._allowed.has(None if sock.family == socket.AF_UNIX else sock.getpeername()[:2])

    async def receive(self, service: Service, sock: socket.socket) -> ProxyHeader | None:
        """Read the header of a connection that was just accepted; None, and the socket is closed, when it is refused.

        Refused are peers that are not allowed, and what is no header, or not complete within `header_timeout`.
        """
        try:
            if not self.allows(sock):
                self._refuse(service, sock, "the peer is not in proxy_protocol_from")
                return None
            async with asyncio.timeout(service.config.header_timeout):
                return await _receive(service.loop, sock)
        except ProxyHeaderError as exc:
            self._refuse(service, sock, str(exc))
        except TimeoutError:
            self._refuse(service, sock, "there is no complete PROXY header within header_timeout")
        except OSError as exc:
            # As proxies do that only look whether somebody listens.
            service.count("proxy_protocol_gone", "Peer left before its PROXY header was complete: %s", exc)
            sock.close()
        except BaseException:
            sock.close()
            raise
        return None

    def _refuse(self, service: Service, sock: socket.socket, why: str) -> None:
        service.count("proxy_protocol_refused")
        peer = _peer_of(sock)
        sock.close()
        level = logging.DEBUG if why in self._logged else logging.WARNING
        self._logged.add(why)
        log.log(level, "Connection from %s refused: %s", peer, why)


def _peer_of(sock: socket.socket) -> str:
    try:
        return "a Unix socket" if sock.family == socket.AF_UNIX else unmapped(sock.getpeername()[0])
    except OSError:
        return "a peer that is gone"


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> ProxyHeader:
    reader = HeaderReader()
    while reader.header is None:
        try:
            data = sock.recv(MAX_V2, socket.MSG_PEEK)
        except BlockingIOError, InterruptedError:
            await _readable(loop, sock)
            continue
        if not data:
            raise ConnectionResetError("closed")
        # What is taken is the header's: a piece of it never stays behind, to be seen again without waiting.
        sock.recv(reader.take(data))
    return reader.header


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    arrived = asyncio.Event()
    loop.add_reader(sock.fileno(), arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(sock.fileno())
