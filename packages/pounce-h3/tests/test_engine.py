"""The engine qh3 behind its seam, in memory and with a clock of the test."""

import functools
import hashlib
import io
import itertools
import json
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from benchmarks.load.certificate import certificate_files
from qh3 import tls
from qh3._hazmat import Buffer
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import DatagramFrameReceived, QuicEvent, StopSendingReceived, StreamDataReceived
from qh3.quic.events import StreamReset as QuicStreamReset
from qh3.quic.tls_bridge import QuicTlsBridge
from qh3.tls import CipherSuite, cipher_suite_hash, hkdf_expand_label

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.net.self_signed import create
from pounce.net.tls import ServerTLS
from pounce_h3 import qh3_engine
from pounce_h3.engine import Connected, DatagramReceived, IdIssued, Initial, StreamData
from pounce_h3.frames import varint
from pounce_h3.ids import ID_LENGTH
from pounce_h3.qh3_engine import DATAGRAM_MAX, HELD_EVENTS, Qh3Connection, Qh3Engine
from pounce_h3.qh3_moves import LEFT_AFTER, LEFT_FOR, Moves
from pounce_h3.qh3_tls import HANDSHAKE_MAX, RETRY_RANDOM

from .forged import initial_packet, short_packet

SERVER, CLIENT = ("192.0.2.2", 443), ("192.0.2.1", 50000)
# RFC 9000 20.1
CONNECTION_ID_LIMIT_ERROR, PROTOCOL_VIOLATION, CRYPTO_BUFFER_EXCEEDED = 0x9, 0xA, 0xD


class Pair:
    """A client and a server; `turn()` carries what each has to say to the other."""

    client_class = QuicConnection

    def __init__(self, engine: Qh3Engine, **client: Any) -> None:
        configuration = QuicConfiguration(
            alpn_protocols=["h3"], **({"server_name": "localhost", "verify_mode": ssl.CERT_NONE} | client)
        )
        self.now = 1.0
        self.tickets: list[Any] = []
        self.client = self.client_class(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.client.connect(SERVER, self.now)
        name = os.urandom(ID_LENGTH)
        original = self.client.original_destination_connection_id
        self.server = engine.accept(Initial(name, self.client.host_cid, original, None, os.urandom(16)))
        self.seen: list[Any] = []
        """What the server was told."""
        self.told: list[Any] = []
        """What the client was told, as far as a test has kept it."""

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


def test_spin_bit_stays_0_whatever_the_client_has_there(pair: Pair) -> None:
    """RFC 9000 17.4; the other bits of the first byte are protected, this one is not."""
    firsts = []
    for number in range(20):
        pair.now += 0.05
        pair.client.send_stream_data(4 * number, b"ask", True)
        pair.up()
        pair.server.write(4 * number, b"answer", True)
        sent = [data for data, _ in pair.server.datagrams_to_send(pair.now)]
        firsts += [data[0] for data in sent if data[0] < 0x80]
        for data in sent:
            pair.client.receive_datagram(data, SERVER, pair.now)
    assert len(firsts) >= 20
    assert not any(first & 0x20 for first in firsts)


@pytest.mark.parametrize("addresses", [3, pytest.param(4, marks=pytest.mark.xfail(strict=True, reason="qh3"))])
def test_connection_follows_its_client_to_three_further_addresses(pair: Pair, addresses: int) -> None:
    for number in range(addresses):
        moved = ("192.0.2.9", 5000 + number)
        pair.client.send_stream_data(0, b"from elsewhere")
        for _ in range(8):
            pair.now += 0.1
            if (timer := pair.client.get_timer()) is not None and timer <= pair.now:
                pair.client.handle_timer(pair.now)
            datagrams = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
            if datagrams:
                pair.server.receive(datagrams, moved, pair.now)
                pair.server.events()
            pair.down()
        assert pair.server.peer == moved


class Download:
    """A client that moves in the midst of an answer, and only waits for the rest of it."""

    def __init__(self, pair: Pair, size: int = 200_000) -> None:
        self.pair = pair
        self.size = size
        self.received = 0
        self.address = CLIENT
        self.lost = self.lost_up = 0
        """Turns of which nothing arrives at the client, or the server."""
        self._proved = {CLIENT}
        self._gave: dict[Any, int] = {}
        self._got: dict[Any, int] = {}
        """Bytes that came from an address, and that went there."""
        pair.client.send_stream_data(0, b"ask", True)
        pair.up()
        pair.server.write(0, bytes(size), True)

    def move(self, address: tuple[str, int], lost: int = 0, lost_up: int = 0) -> None:
        self.address = address
        self.lost, self.lost_up = lost, lost_up
        self.pair.client.send_ping(1)

    def receive(self, datagrams: list[bytes], address: tuple[str, int]) -> None:
        self._gave[address] = self._gave.get(address, 0) + sum(map(len, datagrams))
        self.pair.server.receive(datagrams, address, self.pair.now)
        self.pair.server.events()
        self._proved.add(self.pair.server.peer)  # type: ignore[arg-type]

    def turn(self) -> None:
        """Ten milliseconds, at the end of which what has left arrives."""
        pair = self.pair
        pair.now += 0.01
        for timer, side in ((pair.client.get_timer(), pair.client), (pair.server.timer, pair.server)):
            if timer is not None and timer <= pair.now:
                side.handle_timer(pair.now)
        datagrams = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
        if datagrams and not self.lost_up:
            self.receive(datagrams, self.address)
        elif datagrams:
            self.lost_up -= 1
        answers = pair.server.datagrams_to_send(pair.now)
        for data, address in answers:
            self._got[address] = self._got.get(address, 0) + len(data)
            assert address in self._proved or self._got[address] <= 3 * self._gave[address]
            if address == self.address and not self.lost:
                pair.client.receive_datagram(data, SERVER, pair.now)
        if self.lost and any(address == self.address for _, address in answers):
            self.lost -= 1
        while (event := pair.client.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self.received += len(event.data)

    def is_complete(self) -> bool:
        for _ in range(700):
            if self.received == self.size:
                return True
            self.turn()
        return False


ELSEWHERE = [("192.0.2.9", 5000), ("192.0.2.1", 50001), ("192.0.2.9", 5001)]


@pytest.mark.parametrize("lost", range(4))
@pytest.mark.parametrize("turns", range(4))
def test_client_whose_new_address_is_not_reached_at_first_gets_the_rest(pair: Pair, turns: int, lost: int) -> None:
    download = Download(pair)
    for _ in range(turns):
        download.turn()
    # What is on its way when it moves is lost, too.
    download.lost = 1
    download.turn()
    download.move(ELSEWHERE[0], lost)
    assert download.is_complete()


@pytest.mark.parametrize("lost", range(1, 4))
def test_client_whose_answer_to_the_challenge_is_lost_gets_the_rest(pair: Pair, lost: int) -> None:
    download = Download(pair)
    download.lost = 1
    download.turn()
    download.move(ELSEWHERE[0])
    download.turn()
    download.lost_up = lost
    assert download.is_complete()


@pytest.mark.parametrize("addresses", [1, 2, 3])
def test_client_that_comes_back_gets_the_rest_there(pair: Pair, addresses: int) -> None:
    download = Download(pair, 2_000_000)
    for address in 3 * [*ELSEWHERE[:addresses], CLIENT]:
        download.turn()
        download.turn()
        download.move(address)
        for _ in range(5):
            download.turn()
        assert pair.server.peer == address
    assert download.is_complete()


def test_client_that_moves_on_before_it_has_proved_an_address_gets_the_rest(pair: Pair) -> None:
    download = Download(pair)
    for address in ELSEWHERE:
        download.move(address, 1)
        download.turn()
    assert download.is_complete()
    assert pair.server.peer == ELSEWHERE[-1]


@pytest.mark.parametrize("late", [1, 3, 5])
def test_client_whose_packets_from_before_it_moved_come_late_gets_the_rest(pair: Pair, late: int) -> None:
    """They are no sign that it has left its new address, of which qh3 has as many as it takes by then."""
    download = Download(pair, 2_000_000)
    for address in ELSEWHERE:
        download.turn()
        download.turn()
        before, held = download.address, []
        for _ in range(late):
            pair.now += 0.001
            pair.client.send_ping(1)
            held += [data for data, _ in pair.client.datagrams_to_send(pair.now)]
        download.move(address)
        download.turn()
        for data in held:
            download.receive([data], before)
        for _ in range(8):
            download.turn()
    assert download.is_complete()
    assert pair.server.peer == ELSEWHERE[-1]


@pytest.mark.parametrize("addresses", [1, 2, 3, 5])
def test_packets_that_somebody_else_sends_on_do_not_keep_a_client_from_the_rest(pair: Pair, addresses: int) -> None:
    """RFC 9000 9.3.2: they come from elsewhere, and before those of the client."""
    download = Download(pair, 2_000_000)
    for number in range(addresses):
        download.turn()
        pair.now += 0.01
        pair.client.send_ping(1)
        datagrams = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
        download.receive(datagrams, ("198.51.100.1", 1000 + number))
        download.receive(datagrams, CLIENT)
    assert download.is_complete()
    assert pair.server.peer == CLIENT


@pytest.mark.parametrize("times", [1, 2, 3])
def test_address_is_not_proved_by_a_challenge_that_was_sent_to_another(times: int) -> None:
    """RFC 9000 21.5.4: who can send under a false address must not have its answers sent there."""
    victim, active = ELSEWHERE[0], CLIENT
    moves = Moves(CLIENT)
    for number in range(times):
        now = 1.0 + number * LEFT_FOR
        name = moves.name(victim, now)
        moves.received(victim, name, 30, active, True, now)
        assert moves.to_send([(b"challenge", name)]) == [(b"challenge", victim)]
        now += LEFT_FOR
        for _ in range(LEFT_AFTER):
            moves.received(CLIENT, moves.name(CLIENT, now), 30, active, True, now)
        # The client, which has left the address, is asked where it is.
        assert moves.to_send([(b"challenge", name)]) == [(b"challenge", CLIENT)]
        # What it sends under that address after that is no answer there, and what it answers proves nothing of it.
        other = moves.name(victim, now)
        assert other != name
        moves.received(victim, other, 30, active, True, now)
        moves.received(CLIENT, name, 30, name, True, now)
        active = name
        assert moves.at == CLIENT
        assert moves.to_send([(b"answer", name)]) == [(b"answer", CLIENT)]


def test_packets_that_cannot_be_read_move_nobody(pair: Pair) -> None:
    download = Download(pair)
    download.turn()
    download.move(ELSEWHERE[0])
    for _ in range(5):
        download.turn()
    forged = b"\x40" + pair.server._quic.host_cid + os.urandom(40)  # type: ignore[attr-defined]
    for address in (CLIENT, *ELSEWHERE):
        pair.server.receive([forged], address, pair.now)
        assert pair.server.peer == ELSEWHERE[0]
    assert download.is_complete()


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_end_that_comes_after_the_last_byte_arrives_whatever_is_lost(pair: Pair, lost: int) -> None:
    for stream in (0, 4):
        pair.client.send_stream_data(stream, b"ask")
    pair.up()
    pair.server.write(0, b"answer", False)
    for step in range(20):
        if step == 1:
            pair.server.write(0, b"", True)
        # So that the client has something to acknowledge, and what was lost is noticed.
        pair.server.write(4, b"other", False)
        pair.now += 0.02
        if (pair.server.timer or pair.now + 1) <= pair.now:
            pair.server.handle_timer(pair.now)
        if step < lost:
            pair.server.datagrams_to_send(pair.now)
        else:
            pair.told += pair.down()
        pair.up()
    pieces = [event for event in pair.told if isinstance(event, StreamDataReceived) and event.stream_id == 0]
    assert b"".join(piece.data for piece in pieces) == b"answer"
    assert [piece.end_stream for piece in pieces][-1]


def test_stream_that_is_given_up_before_its_end_has_left_does_not_end(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"ask")
    pair.up()
    pair.server.write(0, b"answer", False)
    pair.server.datagrams_to_send(pair.now)
    pair.server.write(0, b"", True)
    pair.server.reset(0, 0x10C)
    told = pair.down()
    pair.up()
    told += pair.down()
    assert [event.error_code for event in told if isinstance(event, QuicStreamReset)] == [0x10C]


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
    connection = engine.accept(Initial(os.urandom(ID_LENGTH), b"client!!", original, None, os.urandom(16)))
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


# What a client may make the server do, with packets that no client sends


class Attacker(Pair):
    """A client that is connected, and whose packets the test makes from here on."""

    def __init__(self, engine: Qh3Engine) -> None:
        log = io.StringIO()
        super().__init__(engine, cipher_suites=[CipherSuite.AES_128_GCM_SHA256], secrets_log_file=log)
        self.connect()
        secrets = {line.split()[0]: line.split()[2] for line in log.getvalue().splitlines()}
        self._first = self._secret = bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"])
        self._number = 1000
        self.received = 0
        self.sent = 0

    def update_keys(self) -> None:
        """RFC 9001 6.1."""
        digest = cipher_suite_hash(CipherSuite.AES_128_GCM_SHA256)
        self._secret = hkdf_expand_label(digest, self._secret, b"quic ku", b"", 32)

    def send(self, frames: bytes, address: tuple[str, int] = CLIENT, phase: int = 0) -> list[tuple[bytes, Any]]:
        """A packet with these frames; what the server sends then."""
        self._number += 1
        self.now += 0.001
        name = self.server._quic.host_cid
        secrets = self._secret, self._first
        packet = short_packet(secrets, frames, destination=name, number=self._number, phase=phase)
        self.server.receive([packet], address, self.now)
        self.seen += self.server.events()
        answers = self.server.datagrams_to_send(self.now)
        self.received += len(packet)
        self.sent += sum(len(data) for data, _ in answers)
        return answers

    def code(self) -> int | None:
        """The error that the connection ended with."""
        event = self.server._quic._close_event
        return None if event is None else event.error_code


@pytest.fixture
def attacker(engine: Qh3Engine) -> Attacker:
    return Attacker(engine)


def new_connection_id(sequence: int, retire: int) -> bytes:
    return b"\x18" + varint(sequence) + varint(retire) + b"\x08" + sequence.to_bytes(8) + os.urandom(16)


def test_attacker_is_understood(attacker: Attacker) -> None:
    attacker.send(b"\x0b\x00\x05whole")
    assert [(event.data, event.end) for event in attacker.seen if isinstance(event, StreamData)] == [(b"whole", True)]


def test_connection_ids_of_a_peer_are_bounded(attacker: Attacker) -> None:
    for sequence in range(10, 40):
        attacker.send(new_connection_id(sequence, 0))
    assert attacker.code() == CONNECTION_ID_LIMIT_ERROR


def test_connection_ids_given_and_taken_back_for_ever_end_the_connection(attacker: Attacker) -> None:
    sequence = 10
    for _ in range(2000):
        frames = b""
        for _ in range(30):
            sequence += 1
            frames += new_connection_id(sequence, sequence)
        attacker.send(frames)
        if attacker.server.is_over:
            break
    assert attacker.server.is_over


def test_time_in_which_others_run_is_not_the_fault_of_a_peer(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread may be preempted for as long as the machine likes."""
    moments = itertools.count(0.0, 60.0)
    for clock in ("monotonic", "perf_counter", "time", "process_time"):
        monkeypatch.setattr(qh3_engine.time, clock, lambda: next(moments))
    for _ in range(100):
        attacker.send(b"\x01")
    assert not attacker.server.is_over


def test_moment_in_which_memory_is_tidied_up_is_not_the_fault_of_a_peer(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 60.0))
    monkeypatch.setattr(qh3_engine.time, "thread_time", lambda: next(clock))
    attacker.send(b"\x01")
    assert not attacker.server.is_over


def test_ids_that_a_peer_gives_back_are_replaced_within_bounds(attacker: Attacker) -> None:
    before = sum(isinstance(event, IdIssued) for event in attacker.seen)
    for sequence in range(1000):
        attacker.send(b"\x19" + varint(sequence))
    issued = sum(type(event) is IdIssued for event in attacker.seen)
    assert issued - before <= 8
    assert attacker.code() == PROTOCOL_VIOLATION


def test_path_challenges_that_are_never_acknowledged_end_the_connection(attacker: Attacker) -> None:
    for _ in range(100):
        attacker.send(b"".join(b"\x1a" + os.urandom(8) for _ in range(120)))
        if attacker.server.is_over:
            break
    assert attacker.server.is_over
    assert attacker.sent < 150_000


def test_path_challenges_from_addresses_that_are_not_proved_are_answered_threefold_at_most(attacker: Attacker) -> None:
    got: dict[Any, int] = {}
    gave: dict[Any, int] = {}
    for number in range(500):
        address = (f"192.0.2.{number % 250 + 2}", 1000 + number)
        before = attacker.received
        for data, to in attacker.send(b"\x1a" + os.urandom(8), address):
            got[to] = got.get(to, 0) + len(data)
        gave[address] = attacker.received - before
    assert all(count <= 3 * gave[to] for to, count in got.items() if to != CLIENT)


def test_crypto_bytes_with_a_gap_before_them_are_bounded(attacker: Attacker) -> None:
    for number in range(1000):
        attacker.send(crypto(1 + number * 1000, bytes(1000)))
        if attacker.server.is_over:
            break
    assert attacker.code() == CRYPTO_BUFFER_EXCEEDED
    assert attacker.received < 600_000


def test_crypto_bytes_of_a_handshake_with_a_gap_before_them_are_bounded(engine: Qh3Engine) -> None:
    original = os.urandom(8)
    connection = engine.accept(Initial(os.urandom(ID_LENGTH), b"client!!", original, None, os.urandom(16)))
    for number in range(1000):
        frames = crypto(1 + number * 1000, bytes(1000))
        packet = initial_packet(frames, destination=original, source=b"client!!", number=number)
        connection.receive([packet], CLIENT, 1.0)
        connection.events()
        if connection.is_over:
            break
    assert connection.is_over


def test_keys_may_be_updated_again_and_again(pair: Pair) -> None:
    phases = []
    for _ in range(50):
        pair.client.request_key_update()
        pair.client.send_stream_data(0, b"x")
        pair.quiet()
        phases.append(pair.server._quic._require_core().receive_key_phase)
    assert phases == [1, 0] * 25
    assert b"".join(event.data for event in pair.seen if isinstance(event, StreamData)) == b"x" * 50


def test_keys_updated_with_every_packet_cost_no_more_than_packets_may(attacker: Attacker) -> None:
    for number in range(500):
        attacker.update_keys()
        attacker.send(b"\x0e\x00" + varint(number) + b"\x01x", phase=~number & 1)
    assert b"".join(event.data for event in attacker.seen if isinstance(event, StreamData)) == b"x" * 500
    assert not attacker.server.is_over


def test_frames_of_an_initial_packet_that_only_others_may_carry_are_no_requests(engine: Qh3Engine) -> None:
    original = os.urandom(8)
    connection = engine.accept(Initial(os.urandom(ID_LENGTH), b"forged!!", original, None, os.urandom(16)))
    connection.receive([initial_packet(b"\x0b\x00\x05whole", destination=original)], CLIENT, 1.0)
    assert not any(isinstance(event, StreamData) for event in connection.events())


# Groups of keys


class Offering(QuicConnection):
    """A client that knows `groups`, and has made keys for those that a test names, and after a retry for all."""

    groups: tuple[int, ...] = ()
    has_keys = True

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        context = bridge.tls
        context.__class__ = Retrying
        context._supported_groups = [context._grease_group, *self.groups]
        context._offer_ec_key_shares = self.has_keys
        # One of these stands for none in the server's list too (RFC 8701).
        context._cipher_suites = [*range(0x0A0A, 0x10000, 0x1010), *context._cipher_suites]
        return bridge


class Retrying(tls.Context):
    """What qh3's client does not do: it answers a HelloRetryRequest (RFC 8446 4.1.4)."""

    first: bytes
    retries = 0

    def _client_send_hello(self, output_buf: Buffer) -> None:
        super()._client_send_hello(output_buf)
        if not self.retries:
            self.first = output_buf.data

    def _client_handle_hello(self, input_buf: Buffer, output_buf: Buffer) -> None:
        retry = input_buf.data_slice(0, input_buf.capacity)
        if retry[6:38] != RETRY_RANDOM:
            super()._client_handle_hello(input_buf, output_buf)
            return
        self.retries += 1
        # The group that is asked for is one that was offered.
        assert int.from_bytes(retry[-2:]) in self._supported_groups
        input_buf.seek(input_buf.capacity)
        first = self.first

        class Schedules(tls.KeyScheduleProxy):
            def __init__(self, suites: list[tls.CipherSuite]) -> None:
                super().__init__(suites)
                for suite in suites:
                    digest = hashlib.new(f"sha{cipher_suite_hash(suite)}", first).digest()
                    self.select(suite).update_hash(b"\xfe\0\0" + bytes((len(digest),)) + digest + retry)

        self._offer_ec_key_shares = True
        schedules, tls.KeyScheduleProxy = tls.KeyScheduleProxy, Schedules
        try:
            self._client_send_hello(output_buf)
        finally:
            tls.KeyScheduleProxy = schedules


def offering(groups: tuple[int, ...], *, has_keys: bool) -> type[Pair]:
    client = type("Client", (Offering,), {"groups": groups, "has_keys": has_keys})
    return type("OfferingPair", (Pair,), {"client_class": client})


@pytest.mark.parametrize("group", [tls.Group.X25519, tls.Group.X25519ML768, tls.Group.SECP256R1, tls.Group.SECP384R1])
def test_client_of_one_group_gets_in(engine: Qh3Engine, group: tls.Group) -> None:
    pair = offering((group,), has_keys=True)(engine)
    pair.connect()
    assert cast(Retrying, pair.client.tls).retries == 0


@pytest.mark.parametrize("issuers", [0, 4, 8])
def test_first_flight_leaves_as_far_as_it_may(tmp_path: Path, issuers: int) -> None:
    """RFC 9000 8.1: three times what the client has sent, whose key is small; the rest follows when it answers."""

    class Small(Offering):
        groups = (tls.Group.X25519,)

    class SmallPair(Pair):
        client_class = Small

    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate, own_key = create()
    chain.write_bytes(certificate + b"".join(create()[0] for _ in range(issuers)))
    key.write_bytes(own_key)
    config = ServerConfig(ssl_certfile=str(chain), ssl_keyfile=str(key))
    pair = SmallPair(Qh3Engine(config, ServerTLS(config, [])))
    hello = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
    assert len(hello) == 1
    pair.server.receive(hello, CLIENT, pair.now)
    flight = [data for data, _ in pair.server.datagrams_to_send(pair.now)]
    assert flight
    assert sum(map(len, flight)) <= 3 * len(hello[0])
    # Without waiting for any timer.
    for data in flight:
        pair.client.receive_datagram(data, SERVER, pair.now)
    for _ in range(3):
        pair.up()
        pair.down()
    assert any(isinstance(event, Connected) for event in pair.seen)


@pytest.mark.parametrize("group", [tls.Group.SECP256R1, tls.Group.SECP384R1])
def test_client_that_has_made_no_key_yet_is_asked_for_one(engine: Qh3Engine, group: tls.Group) -> None:
    pair = offering((group,), has_keys=False)(engine)
    pair.connect()
    assert cast(Retrying, pair.client.tls).retries == 1
    pair.client.send_stream_data(0, b"after a retry", True)
    pair.up()
    assert [event.data for event in pair.seen if isinstance(event, StreamData)] == [b"after a retry"]


def test_client_that_knows_no_group_of_ours_is_told_so(engine: Qh3Engine) -> None:
    pair = offering((), has_keys=False)(engine)
    pair.quiet()
    assert cast(Retrying, pair.client.tls).retries == 0
    assert not any(isinstance(event, Connected) for event in pair.seen)
    assert pair.server.is_over


def test_client_that_makes_no_key_though_it_was_asked_is_not_asked_again(engine: Qh3Engine) -> None:
    pair = offering((tls.Group.SECP256R1,), has_keys=False)(engine)
    context = cast(Retrying, pair.client.tls)
    context._client_send_hello = functools.partial(repeat_hello, context)  # type: ignore[method-assign]
    pair.quiet()
    assert context.retries == 1
    assert pair.server.is_over


def repeat_hello(context: Retrying, output: Buffer) -> None:
    output.push_bytes(context.first)


# Datagrams


@pytest.mark.parametrize("size", [0, 1100])
def test_flood_of_datagrams_while_nothing_is_taken_is_bounded(tls_files: tuple[str, str], size: int) -> None:
    config = ServerConfig(
        ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_enabled=True, http3_webtransport_enabled=True
    )
    pair = Pair(Qh3Engine(config, ServerTLS(config, [])), max_datagram_frame_size=65535)
    pair.connect()
    assert pair.server.datagram_max == DATAGRAM_MAX
    pair.server.hold(True)
    for _ in range(100):
        for _ in range(500):
            pair.client.send_datagram_frame(bytes(size))
        datagrams = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
        for at in range(0, len(datagrams), 8):
            pair.server.receive(datagrams[at : at + 8], CLIENT, pair.now)
        pair.now += 0.01
    pair.server.hold(False)
    events = [event for event in pair.server.events() if isinstance(event, DatagramReceived)]
    assert HELD_EVENTS < len(events) <= 2 * HELD_EVENTS + 8


def test_flood_of_streams_while_nothing_is_taken_is_bounded(pair: Pair) -> None:
    pair.server.hold(True)
    opened = flood_with_streams(pair)
    pair.server.hold(False)
    assert HELD_EVENTS // 2 - 1000 < len(pair.server.events()) <= opened
    assert opened < HELD_EVENTS


def flood_with_streams(pair: Pair) -> int:
    """How many streams the client can open, as long as anything moves."""
    core = pair.client._core
    assert core is not None
    opened = 0
    for _ in range(1000):
        _, limit, _, before = core.stream_limits
        for _ in range(limit - before):
            pair.client.send_stream_data(pair.client._open_stream(True), b"\x21", True)
            opened += 1
        datagrams = [data for data, _ in pair.client.datagrams_to_send(pair.now)]
        for at in range(0, len(datagrams), 8):
            pair.server.receive(datagrams[at : at + 8], CLIENT, pair.now)
        pair.now += 0.01
        pair.down()
    return opened


def test_peer_is_heard_while_nothing_is_taken(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"a request", True)
    pair.up()
    pair.server.hold(True)
    flood_with_streams(pair)
    pair.server.write(0, bytes(200_000), True)
    got = 0
    for _ in range(300):
        pair.now += 0.05
        got += sum(len(event.data) for event in pair.down() if isinstance(event, StreamDataReceived))
        pair.up()
        pair.server.handle_timer(pair.now)
    assert got == 200_000


def test_largest_datagram_arrives(tls_files: tuple[str, str]) -> None:
    config = ServerConfig(
        ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_enabled=True, http3_webtransport_enabled=True
    )
    pair = Pair(Qh3Engine(config, ServerTLS(config, [])), max_datagram_frame_size=65535, connection_id_length=20)
    pair.connect()
    pair.server.send_datagram(bytes(DATAGRAM_MAX))
    assert [len(event.data) for event in pair.down() if isinstance(event, DatagramFrameReceived)] == [DATAGRAM_MAX]


@pytest.mark.parametrize("size", [16_000, 60_000])
def test_stream_is_given_up_also_when_its_end_was_written(engine: Qh3Engine, size: int) -> None:
    """RFC 9000 3.1."""
    pair = Pair(engine, max_stream_data=1000)
    pair.connect()
    pair.client.send_stream_data(0, b"ask", True)
    pair.up()
    pair.server.write(0, bytes(size), True)
    pair.quiet()
    assert pair.server.unsent(0)
    assert pair.server.unsent_in_all == pair.server.unsent(0)
    pair.server.reset(0, 0x10C)
    assert pair.server.unsent(0) == 0
    assert [event.error_code for event in pair.down() if isinstance(event, QuicStreamReset)] == [0x10C]


def test_streams_of_the_server_wait_for_the_client_s_credit(pair: Pair) -> None:
    opened = 0
    while pair.server.may_open(False):
        stream = pair.server.open_stream(False)
        pair.server.write(stream, b"x", True)
        opened += 1
    assert opened == 100
    for stream in range(1, 401, 4):
        pair.down()
        pair.client.send_stream_data(stream, b"", True)
        pair.quiet()
    assert pair.server.may_open(False)


# Qlog


def test_each_connection_leaves_a_file_of_what_has_happened(tls_files: tuple[str, str], tmp_path: Path) -> None:
    config = ServerConfig(
        ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_enabled=True, http3_qlog_dir=str(tmp_path)
    )
    engine = Qh3Engine(config, ServerTLS(config, []))
    pairs = [Pair(engine) for _ in range(2)]
    for pair in pairs:
        pair.connect()
        assert not [*tmp_path.iterdir()]
    for pair in pairs:
        pair.server.close(0x100, "")
        pair.server.release()
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert found.keys() == {pair.client.original_destination_connection_id.hex() for pair in pairs}
    for whole in found.values():
        names = {event["name"] for event in whole["traces"][0]["events"]}
        assert {"transport:packet_sent", "transport:packet_received"} <= names


def test_folder_for_files_of_connections_must_be_there(tls_files: tuple[str, str], tmp_path: Path) -> None:
    folder = str(tmp_path / "missing")
    config = ServerConfig(
        ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_enabled=True, http3_qlog_dir=folder
    )
    with pytest.raises(ConfigError, match="http3_qlog_dir"):
        Qh3Engine(config, ServerTLS(config, []))


def test_file_that_cannot_be_written_costs_nobody_anything(
    tls_files: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    config = ServerConfig(
        ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_enabled=True, http3_qlog_dir=str(folder)
    )
    pair = Pair(Qh3Engine(config, ServerTLS(config, [])))
    pair.connect()
    folder.rmdir()
    pair.server.release()
    assert "cannot be written" in caplog.text
