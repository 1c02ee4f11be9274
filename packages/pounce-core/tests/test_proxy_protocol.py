"""The PROXY protocol: what a header says, and what is none."""

import asyncio
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pounce import ConfigError, ServerConfig
from pounce.net.bind import Bind, parse_bind
from pounce.net.connection import ForeignConnection, ProxiedTransport
from pounce.net.proxy_protocol import HeaderReader, ProxyHeader, ProxyHeaderError, ProxyPolicy, crc32c
from pounce.testing.memory import MemoryTransport, memory_service

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 50000, 443)
ADDRESSES6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 50000, 443)
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")
    + socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.2")
    + struct.pack("!HH", 50000, 443)
)


def v2(command: int = 0x21, family: int = 0x11, body: bytes = ADDRESSES4, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(body) if length is None else length).to_bytes(2) + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value


def summed(extensions: bytes = b"") -> bytes:
    """A header with a right checksum."""
    blank = v2(body=ADDRESSES4 + tlv(3, bytes(4)) + extensions)
    return blank[:31] + crc32c(blank).to_bytes(4) + blank[35:]


TLS = tlv(0x20, b"\x03\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"alice") + tlv(0x23, b"ECDHE"))
V4 = {"peer": ("192.0.2.1", 50000), "local": ("192.0.2.2", 443)}
HEADERS = {
    "v1-tcp4": (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n", ProxyHeader(1, **V4)),
    "v1-tcp6": (
        b"PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 50000 0\r\n",
        ProxyHeader(1, ("2001:db8::1", 50000), ("2001:db8::2", 0)),
    ),
    "v1-mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 0:0:0:0:0:FFFF:c000:202 50000 443\r\n", ProxyHeader(1, **V4)),
    "v1-not-mapped": (b"PROXY TCP6 ::192.0.2.1 ::fffe:1 1 2\r\n", ProxyHeader(1, ("::c000:201", 1), ("::fffe:1", 2))),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    "v1-unknown-with-more": (b"PROXY UNKNOWN ffff::1 x y z\r\n", ProxyHeader(1)),
    "v1-longest": (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ProxyHeader(1)),
    "v2-tcp4": (v2(), ProxyHeader(2, **V4)),
    "v2-tcp6": (v2(family=0x21, body=ADDRESSES6), ProxyHeader(2, ("2001:db8::1", 50000), ("2001:db8::1", 443))),
    "v2-mapped": (v2(family=0x21, body=MAPPED), ProxyHeader(2, **V4)),
    "v2-unix": (v2(family=0x31, body=bytes(216)), ProxyHeader(2)),
    "v2-unspecified": (v2(family=0x00, body=b""), ProxyHeader(2)),
    "v2-local": (v2(0x20, 0x00, b""), ProxyHeader(2)),
    "v2-local-with-addresses": (v2(0x20), ProxyHeader(2)),
    "v2-local-with-nonsense": (v2(0x20, 0xFF, b"nonsense"), ProxyHeader(2)),
    "v2-alpn": (v2(body=ADDRESSES4 + tlv(1, b"h2")), ProxyHeader(2, **V4, alpn="h2")),
    "v2-authority": (v2(body=ADDRESSES4 + tlv(2, "ü.example".encode())), ProxyHeader(2, **V4, authority="ü.example")),
    "v2-unique-id": (v2(body=ADDRESSES4 + tlv(5, b"\0\xff")), ProxyHeader(2, **V4, unique_id=b"\0\xff")),
    "v2-noop-and-unknown": (v2(body=ADDRESSES4 + tlv(4, bytes(9)) + tlv(234, b"x") * 2), ProxyHeader(2, **V4)),
    "v2-checksum": (summed(), ProxyHeader(2, **V4)),
    "v2-checksum-and-alpn": (summed(tlv(1, b"h2")), ProxyHeader(2, **V4, alpn="h2")),
    "v2-tls": (
        v2(body=ADDRESSES4 + TLS),
        ProxyHeader(
            2, **V4, tls={"version": "TLSv1.3", "cipher": "ECDHE", "client_cn": "alice", "client_verified": True}
        ),
    ),
    "v2-tls-without-client-certificate": (
        v2(body=ADDRESSES4 + tlv(0x20, b"\x01\0\0\0\0")),
        ProxyHeader(2, **V4, tls={"version": None, "cipher": None, "client_cn": None, "client_verified": False}),
    ),
    "v2-tls-with-bad-client-certificate": (
        v2(body=ADDRESSES4 + tlv(0x20, b"\x03\0\0\0\x0a")),
        ProxyHeader(2, **V4, tls={"version": None, "cipher": None, "client_cn": None, "client_verified": False}),
    ),
    "v2-no-tls": (v2(body=ADDRESSES4 + tlv(0x20, b"\0\0\0\0\0")), ProxyHeader(2, **V4)),
    "v2-longest": (v2(body=ADDRESSES4 + tlv(4, bytes(8192 - 16 - 12 - 3))), ProxyHeader(2, **V4)),
}  # fmt: skip
NO_HEADERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100f5010000f1"),
    "empty-lines": b"\r\n\r\n\r\n\r\n\r\n\r\n",
    "lower-case": b"proxy TCP4 192.0.2.1 192.0.2.2 50000 443\r\n",
    "v1-bare-lf": b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    "v1-never-ends": b"PROXY TCP4 " + b"1" * 200,
    "v1-no-family": b"PROXY \r\n",
    "v1-udp": b"PROXY UDP4 192.0.2.1 192.0.2.2 50000 443\r\n",
    "v1-unknown-suffix": b"PROXY UNKNOWNS\r\n",
    "v1-two-blanks": b"PROXY TCP4  192.0.2.1 192.0.2.2 50000 443\r\n",
    "v1-blank-at-end": b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443 \r\n",
    "v1-tab": b"PROXY\tTCP4 192.0.2.1 192.0.2.2 50000 443\r\n",
    "v1-inner-cr": b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\r\n",
    "v1-missing-port": b"PROXY TCP4 192.0.2.1 192.0.2.2 50000\r\n",
    "v1-wrong-family": b"PROXY TCP4 2001:db8::1 2001:db8::2 50000 443\r\n",
    "v1-wrong-family-6": b"PROXY TCP6 192.0.2.1 192.0.2.2 50000 443\r\n",
    "v1-leading-zero": b"PROXY TCP4 192.0.2.01 192.0.2.2 50000 443\r\n",
    "v1-short-address": b"PROXY TCP4 192.0.2 192.0.2.2 50000 443\r\n",
    "v1-network": b"PROXY TCP4 192.0.2.1/32 192.0.2.2 50000 443\r\n",
    "v1-zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 50000 443\r\n",
    "v1-port-too-high": b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
    "v1-port-with-zero": b"PROXY TCP4 192.0.2.1 192.0.2.2 050000 443\r\n",
    "v1-port-with-sign": b"PROXY TCP4 192.0.2.1 192.0.2.2 +5000 443\r\n",
    "v1-port-superscript": b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 443\r\n",
    "v1-port-negative": b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
    "v2-version-1": v2(0x11),
    "v2-version-3": v2(0x31),
    "v2-unknown-command": v2(0x22),
    "v2-datagram": v2(family=0x12),
    "v2-unknown-family": v2(family=0x41),
    "v2-addresses-too-short": v2(body=ADDRESSES4[:-1]),
    "v2-ipv6-too-short": v2(family=0x21, body=ADDRESSES4),
    "v2-unix-too-short": v2(family=0x31, body=bytes(215)),
    "v2-too-long": v2(body=b"", length=8192 - 15),
    "v2-extension-cut": v2(body=ADDRESSES4 + b"\x04\x00"),
    "v2-extension-too-long": v2(body=ADDRESSES4 + b"\x04\x00\x05\0\0\0\0"),
    "v2-alpn-twice": v2(body=ADDRESSES4 + tlv(1, b"h2") * 2),
    "v2-authority-twice": v2(body=ADDRESSES4 + tlv(2, b"a") + tlv(2, b"b")),
    "v2-authority-not-utf-8": v2(body=ADDRESSES4 + tlv(2, b"\xff")),
    "v2-unique-id-too-long": v2(body=ADDRESSES4 + tlv(5, bytes(129))),
    "v2-wrong-checksum": v2(body=ADDRESSES4 + tlv(3, b"\0\0\0\1")),
    "v2-short-checksum": v2(body=ADDRESSES4 + tlv(3, b"")),
    "v2-changed-after-checksum": summed().replace(b"\xc3\x50", b"\xc3\x51", 1),
    "v2-tls-too-short": v2(body=ADDRESSES4 + tlv(0x20, b"\1\0\0\0")),
    "v2-tls-inner-cut": v2(body=ADDRESSES4 + tlv(0x20, b"\1\0\0\0\0\x21\0\5")),
}


def read(*pieces: bytes) -> tuple[ProxyHeader | None, bytes]:
    """The header, and the bytes that were not taken."""
    reader, rest = HeaderReader(), b""
    for piece in pieces:
        rest += piece
        while rest and reader.header is None:
            taken = reader.take(rest)
            assert 0 < taken <= len(rest)
            rest = rest[taken:]
    return reader.header, rest


@pytest.mark.parametrize("name", HEADERS)
def test_header_is_read_and_nothing_after_it(name: str) -> None:
    data, header = HEADERS[name]
    assert read(data) == (header, b"")
    assert read(data + b"\r\nPROXY GET") == (header, b"\r\nPROXY GET")


@pytest.mark.parametrize("name", [name for name in HEADERS if name != "v2-longest"])
def test_header_is_read_in_two_pieces_split_anywhere(name: str) -> None:
    data, header = HEADERS[name]
    for at in range(1, len(data)):
        assert read(data[:at], data[at:] + b"next") == (header, b"next")


@pytest.mark.parametrize("name", HEADERS)
def test_header_is_read_byte_by_byte(name: str) -> None:
    data, header = HEADERS[name]
    assert read(*(data[at : at + 1] for at in range(len(data)))) == (header, b"")


@pytest.mark.parametrize("name", [name for name in HEADERS if name != "v2-longest"])
def test_header_that_is_cut_off_is_not_complete(name: str) -> None:
    data, _ = HEADERS[name]
    for at in range(len(data)):
        assert read(data[:at]) == (None, b"")


@pytest.mark.parametrize("name", NO_HEADERS)
def test_what_is_no_header_is_refused(name: str) -> None:
    with pytest.raises(ProxyHeaderError):
        read(NO_HEADERS[name])
    with pytest.raises(ProxyHeaderError):
        read(*(NO_HEADERS[name][at : at + 1] for at in range(len(NO_HEADERS[name]))))


def test_what_cannot_become_a_header_is_refused_at_its_first_wrong_byte() -> None:
    reader = HeaderReader()
    assert reader.take(b"PRO") == 3
    with pytest.raises(ProxyHeaderError):
        reader.take(b"P")


def test_checksum_is_that_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


# Whose header is believed


@contextmanager
def accepted(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; the first is the server's."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("allowed", "family", "answer"),
    [
        (("127.0.0.1",), socket.AF_INET, True),
        (("10.0.0.0/8", "127.0.0.0/8"), socket.AF_INET, True),
        (("::1", "10.0.0.0/8"), socket.AF_INET, False),
        (("unix",), socket.AF_INET, False),
        (("unix",), socket.AF_UNIX, True),
        (("0.0.0.0/0", "::/0"), socket.AF_UNIX, False),
        ((), socket.AF_INET, False),
    ],
)
def test_allow_list(allowed: tuple[str, ...], family: int, answer: bool) -> None:
    with accepted(family) as (ours, _):
        assert ProxyPolicy(allowed).allows(ours) is answer


def test_ipv4_peer_of_a_dual_stack_socket_is_its_ipv4_address() -> None:
    class Socket:
        family = socket.AF_INET6

        def getpeername(self) -> Any:
            return ("::ffff:192.0.2.7", 1, 0, 0)

    assert ProxyPolicy(("192.0.2.0/24",)).allows(Socket())  # type: ignore[arg-type]
    assert not ProxyPolicy(("::/0",)).allows(Socket())  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_entry_that_is_no_network_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="proxy_protocol_from"):
        ProxyPolicy((text,))


@pytest.mark.parametrize(
    ("settings", "bind", "required"),
    [
        ({}, "h:1", False),
        ({}, "h:1?proxy_protocol=on", True),
        ({"proxy_protocol": True}, "h:1", True),
        ({"proxy_protocol": True}, "h:1?proxy_protocol=off", False),
        ({}, "unix:/s?proxy_protocol=on&proxy_protocol_from=unix", True),
    ],
)
def test_bind_goes_before_the_setting(settings: dict[str, Any], bind: str, required: bool) -> None:
    assert (ProxyPolicy.of(ServerConfig.of(settings), parse_bind(bind)) is not None) is required


def test_allow_list_of_a_bind_takes_the_place_of_the_setting() -> None:
    bind = parse_bind("h:1?proxy_protocol=on&proxy_protocol_from=10.0.0.0/8&proxy_protocol_from=::1")
    assert bind == Bind("h", 1, proxy_protocol=True, proxy_protocol_from=("10.0.0.0/8", "::1"))
    policy = ProxyPolicy.of(ServerConfig(), bind)
    assert policy is not None
    with accepted() as (ours, _):
        assert not policy.allows(ours)


# Reading it from a socket


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def test_header_in_pieces_is_read_and_what_follows_stays() -> None:
    async def main() -> None:
        with accepted() as (ours, theirs):
            service = memory_service(app)
            task = asyncio.ensure_future(ProxyPolicy(("127.0.0.1",)).receive(service, ours))
            data = HEADERS["v2-tcp4"][0] + b"the rest"
            for at in range(0, len(data), 3):
                theirs.sendall(data[at : at + 3])
                for _ in range(3):
                    await asyncio.sleep(0)
            assert await task == ProxyHeader(2, **V4)
            assert ours.recv(100) == b"the rest"

    asyncio.run(main())


def test_wait_for_the_rest_of_a_header_does_not_spin() -> None:
    async def main() -> None:
        with accepted() as (ours, theirs):
            seen: list[bytes] = []

            class Socket(socket.socket):
                def recv(self, *arguments: Any) -> bytes:
                    data = super().recv(*arguments)
                    seen.append(data)
                    return data

            watched = Socket(fileno=ours.detach())
            task = asyncio.ensure_future(ProxyPolicy(("127.0.0.1",)).receive(memory_service(app), watched))
            theirs.sendall(b"PROXY ")
            for _ in range(1000):
                await asyncio.sleep(0)
            assert seen == [b"PROXY ", b"PROXY "]
            task.cancel()
            await asyncio.wait([task])
            assert watched.fileno() == -1

    asyncio.run(main())


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 192.0"], ids=["nothing", "a-part"])
def test_header_that_does_not_come_in_time_is_refused(first: bytes) -> None:
    async def main() -> None:
        with accepted() as (ours, theirs):
            theirs.sendall(first)
            service = memory_service(app, header_timeout=0.01)
            assert await ProxyPolicy(("127.0.0.1",)).receive(service, ours) is None
            assert service.counts == {"proxy_protocol_refused": 1}
            assert ours.fileno() == -1

    asyncio.run(main())


def test_refusal_is_counted_each_time_and_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        service = memory_service(app)
        trusting, distrustful = ProxyPolicy(("127.0.0.1",)), ProxyPolicy(("10.0.0.1",))
        for policy in (distrustful, distrustful, trusting, trusting):
            with accepted() as (ours, theirs):
                theirs.sendall(NO_HEADERS["http"])
                assert await policy.receive(service, ours) is None
        assert service.counts == {"proxy_protocol_refused": 4}

    asyncio.run(main())
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "Connection from 127.0.0.1 refused: the peer is not in proxy_protocol_from",
        "Connection from 127.0.0.1 refused: there is no PROXY header",
    ]


def test_peer_that_only_looks_whether_somebody_listens_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with accepted() as (ours, theirs):
            theirs.close()
            service = memory_service(app)
            assert await ProxyPolicy(("127.0.0.1",)).receive(service, ours) is None
            assert service.counts == {"proxy_protocol_gone": 1}

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_foreign_protocol_sees_the_client_and_writes_to_the_proxy() -> None:
    class Foreign(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            assert isinstance(transport, ProxiedTransport)
            transport.write(repr(transport.get_extra_info("peername")).encode())
            transport.close()

    async def main() -> None:
        service = memory_service(app)
        transport = MemoryTransport(service.loop, {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        connection = ForeignConnection(service, "foreign", Foreign())
        connection.proxied = ProxyHeader(1, **V4)
        connection.connection_made(transport)
        assert bytes(transport.received) == b"('192.0.2.1', 50000)"
        assert transport.is_closing()

    asyncio.run(main())
