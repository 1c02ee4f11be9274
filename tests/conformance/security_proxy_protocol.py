"""The PROXY protocol in front of every wire: believed from those who may say it, asked of everybody else in vain."""

import json
import socket
import struct
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import CASES, Started, Wire, answer

# It stands before a stream of bytes; where a bind asks for it, there is no UDP socket.
pytestmark = pytest.mark.parametrize(
    "wire", [case for case in CASES if case.transport != "quic"], indirect=True, ids=str
)
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n"
ADDRESSES = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 50000, 443)


def v2(extensions: bytes = b"", command: int = 0x21, family: int = 0x11, addresses: bytes = ADDRESSES) -> bytes:
    body = addresses + extensions
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + len(body).to_bytes(2) + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value


@pytest.fixture(autouse=True)
def over_a_byte_stream(wire: Wire) -> None:
    """The header is for connections: over QUIC there is no first line to put it on."""
    if wire.case.quic:
        pytest.skip("no byte stream below this wire")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    shown = {key: scope[key] for key in ("client", "server", "scheme")}
    await answer(send, json.dumps(shown | {"proxy": scope["extensions"].get("pounce.proxy")}).encode())


def start(wire: Wire, **settings: Any) -> Started:
    return wire.share(app, **{"proxy_protocol": True, "proxy_protocol_from": ("127.0.0.1", "unix")} | settings)


def shown(started: Started, first: bytes) -> Any:
    with started.connect(first) as client:
        return json.loads(client.request("GET", "/").body)


def told(started: Started, first: bytes) -> bytes:
    """What a client gets that sends these bytes, and a request in the clear."""
    if started.case.unix:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(started.server.url.removeprefix("unix:"))
    else:
        sock = socket.create_connection((started.server.host, started.server.port))
    with sock:
        sock.settimeout(PATIENCE)
        data = b""
        try:
            sock.sendall(first + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while piece := sock.recv(65536):
                data += piece
        except ConnectionError:
            pass
        return data


@pytest.mark.parametrize("first", [V1, v2()], ids=["v1", "v2"])
def test_application_sees_the_client_behind_the_proxy(wire: Wire, first: bytes) -> None:
    scope = shown(start(wire), first)
    assert scope["client"] == ["192.0.2.1", 50000]
    assert scope["server"] == ["192.0.2.2", 443]


def test_address_is_that_of_the_connection_for_every_request_of_it(wire: Wire) -> None:
    with start(wire).connect(V1) as client:
        for _ in range(3):
            assert json.loads(client.request("GET", "/").body)["client"] == ["192.0.2.1", 50000]


@pytest.mark.parametrize(
    "first",
    [b"PROXY UNKNOWN\r\n", v2(command=0x20, family=0, addresses=b""), v2(family=0, addresses=b"")],
    ids=["unknown", "local", "unspecified"],
)
def test_proxy_that_names_no_client_is_the_client(wire: Wire, first: bytes) -> None:
    client = shown(start(wire), first)["client"]
    assert client is None if wire.case.unix else client[0] == "127.0.0.1"


def test_application_sees_what_else_the_proxy_says(wire: Wire) -> None:
    extensions = tlv(2, b"example.org") + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3"))
    scope = shown(start(wire), v2(extensions))
    assert scope["scheme"] == "https"
    assert scope["proxy"]["authority"] == "example.org"
    assert scope["proxy"]["tls"]["version"] == "TLSv1.3"


def test_extension_is_there_only_with_a_header(wire: Wire) -> None:
    assert json.loads(wire.share(app).request("GET", "/").body)["proxy"] is None


def test_connection_without_a_header_is_closed(wire: Wire) -> None:
    assert told(start(wire), b"") == b""


@pytest.mark.parametrize(
    "first", [b"PROXY TCP4 192.0.2.1\r\n", V1[:-2] + b"\n", v2(tlv(3, b"\1\2\3\4"))], ids=["cut", "lf", "checksum"]
)
def test_connection_with_a_bad_header_is_closed(wire: Wire, first: bytes) -> None:
    assert told(start(wire), first) == b""


def test_peer_that_is_not_allowed_is_closed(wire: Wire) -> None:
    assert told(start(wire, proxy_protocol_from=("192.0.2.9",)), V1) == b""


def test_header_is_not_taken_where_none_is_expected(wire: Wire) -> None:
    started = wire.share(app)
    if wire.case.tls:
        with pytest.raises(OSError):
            started.connect(V1)
    else:
        assert told(started, V1).startswith(b"HTTP/1.1 400 ")


def test_refused_connection_does_not_hurt_the_next(wire: Wire) -> None:
    started = start(wire)
    assert told(started, b"") == b""
    assert shown(started, V1)["client"] == ["192.0.2.1", 50000]


@pytest.mark.parametrize("negotiated", [b"h2", b"http/1.1", b"acme-tls/1"])
def test_what_a_proxy_has_negotiated_with_its_client_does_not_say_what_it_speaks_with_the_server(
    wire: Wire, negotiated: bytes
) -> None:
    """HAProxy names the protocol of its client, and puts requests of all clients into its own (1.1, or 2)."""
    tls = tlv(0x20, bytes([1, 0, 0, 0, 0]) + tlv(0x21, b"TLSv1.3"))
    with start(wire).connect(v2(tlv(0x01, negotiated) + tls)) as client:
        answer = client.request("GET", "/")
    assert answer.status == 200
    assert json.loads(answer.body)["proxy"]["alpn"] == negotiated.decode()
