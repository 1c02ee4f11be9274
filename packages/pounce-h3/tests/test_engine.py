"""The engine qh3 behind its seam, in memory and with a clock of the test."""

import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.load.certificate import certificate_files
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived

from pounce.config import ServerConfig
from pounce.net.tls import ServerTLS
from pounce_h3.engine import Connected, Initial
from pounce_h3.frames import varint
from pounce_h3.ids import new_id
from pounce_h3.qh3_engine import Qh3Connection, Qh3Engine
from pounce_h3.qh3_tls import HANDSHAKE_MAX

from .forged import initial_packet

SERVER, CLIENT = ("192.0.2.2", 443), ("192.0.2.1", 50000)


class Pair:
    """A client and a server; `turn()` carries what each has to say to the other."""

    def __init__(self, engine: Qh3Engine, **client: Any) -> None:
        configuration = QuicConfiguration(
            alpn_protocols=["h3"], **({"server_name": "localhost", "verify_mode": ssl.CERT_NONE} | client)
        )
        self.now = 1.0
        self.tickets: list[Any] = []
        self.client = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.client.connect(SERVER, self.now)
        name = new_id(0, 0)
        original = self.client.original_destination_connection_id
        self.server = engine.accept(Initial(name, self.client.host_cid, original, None, os.urandom(16)))
        self.seen: list[Any] = []
        """What the server was told."""

    def up(self) -> int:
        """Carry what the client has to say; how many datagrams."""
        datagrams = [data for data, _ in self.client.datagrams_to_send(self.now)]
        if datagrams:
            self.server.receive(datagrams, CLIENT, self.now)
            self.seen += self.server.events()
        return len(datagrams)

    def down(self) -> list[QuicEvent]:
        """Carry what the server has to say, in one go; what that tells the client."""
        for data, _ in self.server.datagrams_to_send(self.now):
            self.client.receive_datagram(data, SERVER, self.now)
        found = []
        while (event := self.client.next_event()) is not None:
            found.append(event)
        return found

    def connect(self) -> None:
        self.quiet()
        assert any(isinstance(event, Connected) for event in self.seen)

    def quiet(self) -> None:
        """Carry until nobody has anything to say."""
        for _ in range(5):
            self.now += 0.1
            self.up()
            self.down()


@pytest.fixture
def engine(tls_files: tuple[str, str]) -> Qh3Engine:
    config = ServerConfig(ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1])
    return Qh3Engine(config, ServerTLS(config, []))


@pytest.fixture
def pair(engine: Qh3Engine) -> Pair:
    made = Pair(engine)
    made.connect()
    return made


@pytest.mark.parametrize("order", ["answer first", "answer last"])
def test_end_of_an_answer_does_not_wait_behind_the_request_to_stop(pair: Pair, order: str) -> None:
    pair.client.send_stream_data(0, b"half an upload")
    pair.up()
    calls: list[Callable[[], None]] = [
        lambda: pair.server.write(0, b"answer", True),
        lambda: pair.server.stop(0, 0x100),
    ]
    for call in calls if order == "answer first" else reversed(calls):
        call()
    told = pair.down()
    assert [event.error_code for event in told if isinstance(event, StopSendingReceived)] == [0x100]
    [data] = [event for event in told if isinstance(event, StreamDataReceived)]
    assert (data.data, data.end_stream) == (b"answer", True)


def test_stream_that_has_ended_can_be_stopped(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"whole", True)
    pair.up()
    pair.server.stop(0, 0x100)
    pair.server.write(0, b"answer", True)
    [data] = [event for event in pair.down() if isinstance(event, StreamDataReceived)]
    assert (data.data, data.end_stream) == (b"answer", True)


# Which certificate a client gets


def named(folder: Path, name: str) -> str:
    """A file with a certificate and its key, and the entry of `ssl_sni` that names it."""
    folder = folder / name.replace("*", "any")
    folder.mkdir()
    certificate, key = certificate_files(folder)
    (folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    return f"{name}={folder / 'both.pem'}"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("one.example", "one.example"),
        ("ONE.example", "one.example"),
        ("a.two.example", "*.two.example"),
        ("a.b.two.example", ""),
        ("two.example", ""),
        ("else.example", ""),
        (None, ""),
    ],
)
def test_certificate_is_that_of_the_name_asked_for(
    tls_files: tuple[str, str], tmp_path: Path, asked: str | None, expected: str
) -> None:
    sni = tuple(named(tmp_path, name) for name in ("one.example", "*.two.example"))
    config = ServerConfig(ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], ssl_sni=sni)
    engine = Qh3Engine(config, ServerTLS(config, []))
    pair = Pair(engine, server_name=asked)
    pair.connect()
    shown = pair.client.get_peercert()
    assert shown is not None
    pem = ssl.DER_cert_to_PEM_cert(shown.public_bytes())
    assert pem == engine.certificates(0.0)[expected].pem
    [connected] = [event for event in pair.seen if isinstance(event, Connected)]
    assert connected.certificate == pem


# What a handshake may cost


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame (RFC 9000 19.6)."""
    return b"\x06" + varint(offset) + varint(len(data)) + data


def handshake_of(engine: Qh3Engine, *messages: bytes) -> Qh3Connection:
    """A connection whose client sent these bytes of a handshake, each in a packet of its own."""
    original = os.urandom(8)
    connection = engine.accept(Initial(new_id(0, 0), b"client!!", original, None, os.urandom(16)))
    offset = 0
    for number, message in enumerate(messages):
        packet = initial_packet(crypto(offset, message), destination=original, source=b"client!!", number=number)
        connection.receive([packet], CLIENT, 1.0)
        connection.events()
        offset += len(message)
    return connection


def test_message_of_the_handshake_that_is_too_large_ends_the_connection(engine: Qh3Engine) -> None:
    pieces = [b"\x01\xff\xff\xff" + bytes(996), *[bytes(1000)] * (HANDSHAKE_MAX // 1000)]
    connection = handshake_of(engine, *pieces[:-2])
    assert not connection.is_over
    assert handshake_of(engine, *pieces).is_over


def test_handshake_that_makes_no_sense_is_an_error_of_the_peer(engine: Qh3Engine) -> None:
    drawn = random.Random(3)
    for size in (*range(0, 200, 7), 900):
        body = b"\x03\x03" + drawn.randbytes(32) + b"\0\0\x02\x13\x01\x01\0" + drawn.randbytes(size)
        connection = handshake_of(engine, b"\x01" + len(body).to_bytes(3) + body)
        assert connection.is_over
        # It is told so, and no more.
        assert sum(len(data) for data, _ in connection.datagrams_to_send(1.0)) <= 3 * 1200
