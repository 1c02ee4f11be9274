"""TLS on the server's own loop, where nothing of asyncio's stands between the socket and a protocol."""

import asyncio
import fcntl
import hmac
import re
import select
import socket
import ssl
import sys
import termios
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pounce.net.connection import LONG_READ, Connection
from pounce.testing.memory import memory_service
from pounce.worker.loop import HAS_OWN

if not HAS_OWN:
    pytest.skip("this system has no epoll", allow_module_level=True)

from pounce.net import direct_tls
from pounce.net.direct_tls import RECORDS_MAX, RECV_MAX, RECV_MIN, DirectTLS
from pounce.net.epoll_loop import EpollLoop


class Noting(Connection):
    """Notes what it is told, and answers with `answers` when there is something."""

    def __init__(self, service: Any) -> None:
        super().__init__(service, "noting")
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.answers = b""

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.answers:
            self.send(self.answers)

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        super().pause_writing()
        self.events.append("pause")

    def resume_writing(self) -> None:
        super().resume_writing()
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.events.append("lost")


class Peer:
    """A client whose records go on the wire as the test says."""

    def __init__(self, sock: socket.socket, keys: str) -> None:
        """`keys` names a file for its secrets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.keylog_filename = keys
        self.keys = keys
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def take(self) -> None:
        """Read what has come, without waiting."""
        while select.select([self.sock], [], [], 0)[0] and (data := self.sock.recv(1_000_000)):
            self.incoming.write(data)

    def records(self, *pieces: bytes) -> bytes:
        """A record for each piece."""
        for piece in pieces:
            self.tls.write(piece)
        return self.outgoing.read()

    def read(self) -> bytes:
        self.take()
        found = b""
        try:
            while data := self.tls.read(1_000_000):
                found += data
        except ssl.SSLWantReadError:
            pass
        return found


class KeyUpdates:
    """Records without content, which have the server take new keys, and do so itself (RFC 8446 4.6.3, 5.2 and 7.2)."""

    def __init__(self, peer: Peer) -> None:
        assert peer.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        secrets = re.findall("CLIENT_TRAFFIC_SECRET_0 .* (.*)", Path(peer.keys).read_text())
        self._secret = bytes.fromhex(secrets[-1])

    def _derived(self, label: bytes, size: int) -> bytes:
        label = size.to_bytes(2) + bytes((len(label) + 6,)) + b"tls13 " + label + b"\0\1"
        return hmac.digest(self._secret, label, "sha384")[:size]

    def make(self, count: int) -> bytes:
        """So many of them, which must be the first that the peer sends after its handshake or after such records."""
        made = []
        for _ in range(count):
            head = b"\x17\x03\x03\x00\x16"
            key, nonce = self._derived(b"key", 32), self._derived(b"iv", 12)
            # KeyUpdate, update_requested; handshake.
            made.append(head + AESGCM(key).encrypt(nonce, b"\x18\0\0\1\1\x16", head))
            self._secret = self._derived(b"traffic upd", 48)
        return b"".join(made)


class Site:
    """A connection between a loop and a peer, after its handshake."""

    def __init__(self, loop: EpollLoop, files: tuple[str, str], ours: socket.socket, theirs: socket.socket) -> None:
        self.loop = loop
        self.peer = Peer(theirs, files[0] + ".keys")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

        async def no_app(scope: Any, receive: Any, send: Any) -> None:
            raise NotImplementedError

        async def connect() -> Noting:
            service = memory_service(no_app)
            made = asyncio.ensure_future(
                loop.connect_accepted_socket(lambda: Noting(service), ours, ssl=context, ssl_shutdown_timeout=1000)
            )
            shaken = False
            while not (made.done() and shaken):
                await asyncio.sleep(0)
                try:
                    self.peer.tls.do_handshake()
                    shaken = True
                except ssl.SSLWantReadError:
                    pass
                theirs.sendall(self.peer.outgoing.read())
                self.peer.take()
            return made.result()[1]

        self.connection = loop.run_until_complete(asyncio.wait_for(connect(), 60))
        self.protocol: Any = self.connection.transport._ssl_protocol  # type: ignore[attr-defined]

    def run_until(self, true: Any) -> None:
        async def wait() -> None:
            async with asyncio.timeout(60):
                while not true():
                    await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def turns(self, count: int = 5) -> None:
        left = iter(range(count))
        self.run_until(lambda: next(left, None) is None)


@pytest.fixture(params=[False, True], ids=["normal", "debug"])
def site(request: pytest.FixtureRequest, tls_files: tuple[str, str]) -> Iterator[Site]:
    loop = EpollLoop()
    loop.set_debug(request.param)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(60)
    with ours, theirs:
        site = Site(loop, tls_files, ours, theirs)
        yield site
        site.connection.abort()
        site.run_until(lambda: not site.connection.service.connections)
    loop.close()


def test_connection_is_read_and_written_past_asyncio(site: Site) -> None:
    assert type(site.protocol) is DirectTLS
    site.connection.answers = b"pong"
    site.peer.sock.sendall(site.peer.records(b"ping"))
    site.run_until(lambda: site.connection.pieces)
    assert site.connection.received == b"ping"
    assert site.peer.read() == b"pong"


def test_record_that_comes_byte_by_byte_is_given_out_once(site: Site) -> None:
    for byte in site.peer.records(b"ping"):
        site.peer.sock.sendall(bytes([byte]))
        site.turns(2)
    assert site.connection.pieces == [b"ping"]


def test_records_that_come_together_are_given_out_together(site: Site) -> None:
    site.peer.sock.sendall(site.peer.records(*(b"%d," % number for number in range(50)))[:-1])
    site.run_until(lambda: site.connection.pieces)
    assert site.connection.pieces == [b"".join(b"%d," % number for number in range(49))]


def test_what_comes_with_the_end_of_tls_is_given_out_ahead_of_it(site: Site) -> None:
    records = site.peer.records(b"last ", b"words")
    with pytest.raises(ssl.SSLWantReadError):
        site.peer.tls.unwrap()
    site.peer.sock.sendall(records + site.peer.outgoing.read())
    site.run_until(lambda: "lost" in site.connection.events)
    assert (site.connection.received, site.connection.events) == (b"last words", ["eof", "lost"])


def test_peer_is_told_of_the_end_and_what_was_written_before_it_arrives(site: Site) -> None:
    site.connection.send(b"bye")
    site.connection.close()
    site.turns()
    # It has not ended yet what it sends.
    assert site.connection.events == []
    site.peer.take()
    assert site.peer.tls.read() == b"bye"
    assert site.peer.tls.read() == b""
    site.peer.tls.unwrap()
    site.peer.sock.sendall(site.peer.outgoing.read())
    site.run_until(lambda: "lost" in site.connection.events)


def test_end_of_the_network_without_that_of_tls_ends_the_connection(site: Site) -> None:
    site.peer.sock.shutdown(socket.SHUT_WR)
    site.run_until(lambda: "lost" in site.connection.events)
    assert site.connection.pieces == []


def test_broken_record_ends_the_connection(site: Site) -> None:
    site.peer.sock.sendall(site.peer.records(b"good"))
    site.run_until(lambda: site.connection.pieces)
    site.peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    site.run_until(lambda: "lost" in site.connection.events)
    assert site.connection.pieces == [b"good"]


def test_nothing_is_given_out_while_reading_is_paused(site: Site) -> None:
    site.connection.pause_reading()
    site.peer.sock.sendall(site.peer.records(b"ping"))
    site.turns()
    assert site.connection.pieces == []
    site.connection.resume_reading()
    site.run_until(lambda: site.connection.pieces)
    assert site.connection.received == b"ping"


def test_much_that_comes_at_once_is_given_out_in_bounded_pieces(site: Site) -> None:
    sent = b"x" * 500_000
    records = site.peer.records(*(sent[at : at + 16_000] for at in range(0, len(sent), 16_000)))
    site.peer.sock.setblocking(False)

    def received_all() -> bool:
        nonlocal records
        try:
            records = records[site.peer.sock.send(records) :] if records else b""
        except BlockingIOError:
            pass
        return len(site.connection.received) == len(sent)

    site.run_until(received_all)
    assert max(map(len, site.connection.pieces)) <= LONG_READ


def test_flood_of_small_records_lets_others_have_the_loop(site: Site) -> None:
    count = RECORDS_MAX * 3 + 1
    site.peer.sock.sendall(site.peer.records(*[b"x"] * count))
    turns: list[int] = []

    def received_all() -> bool:
        turns.append(len(site.connection.received))
        return turns[-1] == count

    site.run_until(received_all)
    assert max(map(len, site.connection.pieces)) == RECORDS_MAX
    assert all(later - earlier <= RECORDS_MAX for earlier, later in pairwise(turns))
    site.peer.sock.sendall(site.peer.records(b"more"))
    site.run_until(lambda: site.connection.received.endswith(b"more"))


def test_flood_of_records_that_is_paused_and_goes_on_is_given_out_whole(site: Site) -> None:
    count = RECORDS_MAX * 3 + 1
    site.peer.sock.sendall(site.peer.records(*[b"x"] * count))
    site.run_until(lambda: site.connection.pieces)
    site.connection.pause_reading()
    given = len(site.connection.received)
    site.turns()
    assert len(site.connection.received) == given
    site.connection.resume_reading()
    site.run_until(lambda: len(site.connection.received) == count)
    site.peer.sock.sendall(site.peer.records(b"more"))
    site.run_until(lambda: site.connection.received.endswith(b"more"))


def test_end_of_tls_behind_a_flood_of_records_comes_after_all_of_them(site: Site) -> None:
    count = RECORDS_MAX * 2 + 1
    records = site.peer.records(*[b"x"] * count)
    with pytest.raises(ssl.SSLWantReadError):
        site.peer.tls.unwrap()
    site.peer.sock.sendall(records + site.peer.outgoing.read())
    site.run_until(lambda: "lost" in site.connection.events)
    assert (len(site.connection.received), site.connection.events) == (count, ["eof", "lost"])


def waiting(sock: socket.socket) -> int:
    """Bytes that a socket has to be read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_flood_of_records_without_content_lets_others_have_the_loop(site: Site) -> None:
    ours: socket.socket = site.connection.transport.get_extra_info("socket")
    site.peer.sock.sendall(KeyUpdates(site.peer).make(1500))
    left = [waiting(ours)]
    assert left[0] > RECV_MAX

    def read_all() -> bool:
        left.append(waiting(ours))
        return not left[-1]

    site.run_until(read_all)
    read = [before - after for before, after in pairwise(left) if before != after]
    assert read[0] == RECV_MAX
    assert max(read[1:]) == RECV_MIN


def test_peer_that_takes_no_answers_to_its_records_without_content_is_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_tls, "OUTGOING_MAX", 20_000)
    ours: socket.socket = site.connection.transport.get_extra_info("socket")
    while not site.protocol._ssl_writing_paused:
        site.connection.transport.write(bytes(60_000))
    site.protocol._outgoing.read()
    site.peer.sock.setblocking(False)
    updates = KeyUpdates(site.peer)
    records = b""
    for _ in range(100):
        records = records or updates.make(100)
        try:
            records = records[site.peer.sock.send(records) :]
        except BlockingIOError:
            pass
        site.turns(1)
    assert waiting(ours)
    assert site.protocol._outgoing.pending < 20_000 + RECV_MAX * 2
    # When it does, it is read again.
    site.protocol._outgoing.read()
    site.peer.take()
    site.run_until(lambda: site.peer.take() or not waiting(ours))


def test_answer_that_the_peer_does_not_take_holds_up_the_writer_and_arrives_whole(site: Site) -> None:
    written = bytearray()
    number = 0
    while site.connection.writable:
        # Of any size: records, several in one write, and less than one.
        piece = b"%06d" % number * (1, 700, 2000, 9000)[number % 4]
        (site.connection.send if number % 3 else site.connection.send_pieces)(piece)
        written += piece
        number += 1
    found = bytearray()

    def read_all() -> bool:
        found.extend(site.peer.read())
        return len(found) >= len(written)

    site.run_until(read_all)
    assert found == written
    assert site.connection.events == ["pause", "resume"]


def test_peer_that_is_gone_is_noticed_by_what_is_written(site: Site) -> None:
    site.peer.sock.close()
    site.connection.send(b"anybody?")
    site.run_until(lambda: "lost" in site.connection.events)


def test_what_is_written_after_the_end_goes_nowhere(site: Site) -> None:
    site.connection.close()
    site.connection.transport.write(b"late")
    site.turns()
    site.peer.take()
    assert site.peer.tls.read() == b""


def test_what_came_ahead_of_the_end_of_the_network_is_given_out_when_reading_goes_on(site: Site) -> None:
    site.connection.pause_reading()
    site.peer.sock.sendall(site.peer.records(b"last ", b"words"))
    site.peer.sock.shutdown(socket.SHUT_WR)
    site.run_until(lambda: site.protocol._eof_received)
    site.connection.resume_reading()
    site.run_until(lambda: "lost" in site.connection.events)
    assert (site.connection.received, site.connection.events) == (b"last words", ["eof", "lost"])
