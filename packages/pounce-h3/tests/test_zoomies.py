"""The engine zoomies: requests of its own client work, and what is known to be wrong with it reaches no application."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zoomies
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from tests.conformance.wires import Started, answer, read_body
from tests.workers.running import eventually
from zoomies.crypto import CryptoPair
from zoomies.encoding import Buffer
from zoomies.events import H3DataReceived, H3HeadersReceived, HandshakeComplete
from zoomies.frames.stream import StreamFrame, push_stream_frame
from zoomies.h3.connection import H3Connection
from zoomies.h3.qpack import encode_headers_from_bytes
from zoomies.packet.builder import push_initial_packet_header
from zoomies.primitives import StreamId

from pounce import ConfigError
from pounce_h3.frames import HEADERS, frame

from .endpoints import endpoint_of

Start = Callable[..., Started]
PATIENCE = 60.0
REQUEST = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/transfer")]


class App:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await answer(send, scope["http_version"].encode() + b" " + await read_body(receive))


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def server(start: Start, app: App) -> Started:
    return start(app, http3_engine="zoomies")


class Client:
    """A client of zoomies."""

    def __init__(self, server: Started) -> None:
        certificate = Path(server.certificate.certfile).read_bytes()
        self.quic = zoomies.QuicConnection(
            zoomies.QuicConfiguration(is_client=True, ca_certs=certificate, server_name="localhost")
        )
        self.h3 = H3Connection(sender=self.quic, is_client=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((server.server.host, server.server.port))
        self.server = (server.server.host, server.server.port)
        self.is_complete = False
        self.received = 0
        self.status: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._next = 0
        self.quic.connect()
        self.wait_until(lambda: self.is_complete)

    def wait_until(self, true: Callable[[], object], patience: float = PATIENCE) -> bool:
        end = time.monotonic() + patience
        while not true():
            now = time.monotonic()
            for data in self.quic.send_datagrams(now=now):
                self.sock.send(data)
            if now > end:
                return False
            self.sock.settimeout(0.05)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                continue
            self.received += 1
            for event in self.quic.datagram_received(data, self.server, now=time.monotonic()):
                if isinstance(event, HandshakeComplete):
                    self.is_complete = True
                if getattr(event, "end_stream", False):
                    self.ended.add(event.stream_id)
                for found in self.h3.handle_event(event):
                    if isinstance(found, H3HeadersReceived):
                        self.status[found.stream_id] = int(dict(found.headers)[b":status"])
                    elif isinstance(found, H3DataReceived):
                        self.bodies[found.stream_id] = self.bodies.get(found.stream_id, b"") + found.data
        return True

    def request(self, body: bytes = b"") -> tuple[int, bytes]:
        stream_id, self._next = self._next, self._next + 4
        self.h3.send_headers(stream_id, REQUEST, end_stream=not body)
        for at in range(0, len(body), 1000):
            self.h3.send_data(stream_id, body[at : at + 1000], end_stream=at + 1000 >= len(body))
        assert self.wait_until(lambda: stream_id in self.ended)
        return self.status[stream_id], self.bodies[stream_id]

    def close(self) -> None:
        self.quic.close()
        for data in self.quic.send_datagrams(now=time.monotonic()):
            self.sock.send(data)
        self.sock.close()


@pytest.fixture
def client(server: Started) -> Iterator[Client]:
    with closing(Client(server)) as made:
        yield made


def test_requests_of_its_own_client_work(client: Client, app: App) -> None:
    assert client.is_complete
    assert client.request() == (200, b"3 ")
    assert client.request(b"hello") == (200, b"3 hello")
    assert client.request(b"x" * 20_000) == (200, b"3 " + b"x" * 20_000)
    assert app.calls == 3


def test_it_does_not_acknowledge_acknowledgments_for_ever(client: Client) -> None:
    client.request()
    client.wait_until(lambda: False, patience=0.2)
    before = client.received
    client.wait_until(lambda: False, patience=0.3)
    assert client.received - before < 5


# Packets that anybody can make


def forged(destination: bytes, payload: bytes, number: int = 0) -> bytes:
    """An Initial packet as zoomies makes them."""
    payload += bytes(max(1162 - len(payload), 0))
    keys = CryptoPair()
    keys.setup_initial(cid=destination, is_client=True)
    head = Buffer()
    push_initial_packet_header(
        head, destination_cid=destination, source_cid=b"forged!!", token=b"", payload_length=4 + len(payload) + 16
    )
    return keys.encrypt_packet(head.data, payload, number)


def stream_frame(offset: int = 0) -> bytes:
    """A STREAM frame with a whole request."""
    buf = Buffer()
    data = frame(HEADERS, encode_headers_from_bytes(REQUEST))
    push_stream_frame(buf, StreamFrame(stream_id=StreamId(0), offset=offset, data=data, fin=True))
    return buf.data


def send(server: Started, *packets: bytes) -> None:
    """Packets of a stranger, and then enough time to answer another's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for packet in packets:
            stranger.sendto(packet, (server.server.host, server.server.port))
    with closing(Client(server)) as client:
        assert client.is_complete


@pytest.mark.parametrize("offset", [0, 50])
@pytest.mark.parametrize("first", [b"", b"\x01", b"\x06\x00\x04\x01\x00\x00\xff", b"\x02\x00\x00\x00\x00"])
def test_forged_initial_never_reaches_an_application(server: Started, app: App, first: bytes, offset: int) -> None:
    send(server, forged(os.urandom(8), first + stream_frame(offset)))
    assert app.calls == 0


def test_acknowledgment_of_what_was_never_sent_costs_nothing(server: Started, app: App) -> None:
    began = time.monotonic()
    send(server, forged(os.urandom(8), b"\x02" + b"\xff" * 8 + b"\0\0" + b"\xff" * 7 + b"\xfe"))
    assert time.monotonic() - began < PATIENCE


def test_packet_that_zoomies_would_have_believed_is_one(server: Started, app: App) -> None:
    bare = zoomies.QuicConnection(
        zoomies.QuicConfiguration(
            certificate=Path(server.certificate.certfile).read_bytes(),
            private_key=Path(server.certificate.keyfile).read_bytes(),
        )
    )
    events = bare.datagram_received(forged(os.urandom(8), stream_frame()), ("127.0.0.1", 1), now=1.0)
    assert "StreamDataReceived" in [type(event).__name__ for event in events]


def test_forged_initial_with_the_name_of_a_connection_does_it_no_harm(
    server: Started, client: Client, app: App
) -> None:
    client.request()
    name = client.quic._peer_cid
    close = b"\x1c\x00\x00\x00"
    send(server, forged(name, stream_frame(), 5), forged(name, close, 6), forged(name, b"\x01", 7))
    assert client.request(b"still here") == (200, b"3 still here")
    assert app.calls == 2


def test_packets_of_another_implementation_hurt_no_worker(server: Started, app: App) -> None:
    other = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost"))
    other.connect(("127.0.0.1", 1), 0.0)
    send(server, *[data for data, _ in other.datagrams_to_send(0.0)])
    assert app.calls == 0


@pytest.mark.parametrize(
    "garbage", [bytes(1200), b"\xc0" + bytes(1199), b"\x40" + bytes(30), b"\xff" * 1300], ids=range(4)
)
def test_garbage_does_no_harm(server: Started, client: Client, app: App, garbage: bytes) -> None:
    client.request()
    name = client.quic._peer_cid
    send(server, garbage, b"\x40" + name + garbage, b"\xe0\0\0\0\x01\x08" + name + garbage)
    assert client.request() == (200, b"3 ")


def test_packets_above_the_bound_for_handshakes_are_dropped(start: Start, app: App) -> None:
    server = start(app, http3_engine="zoomies", http3_retry_above=2)
    endpoint = endpoint_of(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(5):
            unfinished = forged(os.urandom(8), b"\x06\x00\x04\x01\x00\x00\xff")
            stranger.sendto(unfinished, (server.server.host, server.server.port))
        eventually(lambda: endpoint._service.counts.get("h3_dropped") == 3)
    assert len(endpoint._open) == 2
    assert "h3_retry" not in endpoint._service.counts


# Where it may be used


def test_it_cannot_have_every_client_prove_its_address(start: Start, app: App) -> None:
    with pytest.raises(ConfigError, match="http3_retry_above"):
        start(app, http3_engine="zoomies", http3_retry_above=0)


def test_it_is_refused_beyond_loopback(start: Start, app: App) -> None:
    with pytest.raises(ConfigError, match="for loopback"):
        start(app, http3_engine="zoomies", host="0.0.0.0", lifespan="on")
    assert app.calls == 0


def test_it_may_be_forced(start: Start, app: App) -> None:
    forced = {"h3": {"zoomies_beyond_loopback": True}}
    server = start(app, http3_engine="zoomies", host="0.0.0.0", plugin_settings=forced)
    assert server.server.port


def test_what_is_not_installed_is_named() -> None:
    code = (
        "import sys; sys.modules['zoomies'] = None\n"
        "try:\n    import pounce_h3.zoomies_engine\n"
        "except Exception as exc:\n    print(type(exc).__name__, exc.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'ConfigError pip install "pounce-h3[zoomies]"'


def test_it_gives_no_tickets(start: Start, app: App) -> None:
    with pytest.raises(ConfigError, match="http3_zero_rtt_enabled"):
        start(app, http3_engine="zoomies", http3_zero_rtt_enabled=True)
