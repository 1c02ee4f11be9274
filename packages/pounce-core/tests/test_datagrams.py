"""Datagrams between workers: mailboxes, and who reads which socket."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pounce import ServerConfig, SupervisorError
from pounce.net.bind import open_listeners
from pounce.net.udp import open_sockets
from pounce.supervisor.channel import Channel
from pounce.supervisor.datagrams import DatagramSockets, PassedDatagrams
from pounce.supervisor.messages import Message, Receive
from pounce.worker.datagram_shares import dealt
from pounce.worker.datagrams import DatagramTransport
from pounce.worker.mailbox import PENDING_MAX, Kind, Letter, Mailbox, decoded, encoded
from pounce.worker.siblings import Siblings

PEERS = [("192.0.2.1", 4433), ("2001:db8::1", 4433, 0, 7)]
HERE = "127.0.0.1 443"


@pytest.fixture
def siblings() -> Iterator[Siblings]:
    made = Siblings.make()
    yield made
    made.remove()


class Reader:
    """A mailbox and what has come into it."""

    def __init__(self, siblings: Siblings, process: int = 1) -> None:
        self.letters: list[Letter] = []
        self.arrived = asyncio.Event()
        self.box = Mailbox(asyncio.get_running_loop(), siblings.of_process(process), self._receive)
        self.box.start()

    def _receive(self, letters: list[Letter]) -> None:
        self.letters += letters
        self.arrived.set()

    async def wait_for(self, count: int) -> list[Letter]:
        async with asyncio.timeout(10):
            while len(self.letters) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.letters


# Letters


@pytest.mark.parametrize("peer", PEERS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 1200, 65535])
def test_letter_arrives_as_it_was_sent(siblings: Siblings, peer: tuple[Any, ...], size: int) -> None:
    async def run() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        data = os.urandom(size)
        assert one.box.send(Kind.HANDED_ON, HERE, peer, data, two.box.number) is True
        assert await two.wait_for(1) == [Letter(Kind.HANDED_ON, one.box.number, HERE, peer, data)]
        one.box.close()
        two.box.close()

    asyncio.run(run())


def test_letters_arrive_in_order_also_more_than_a_queue_of_the_kernel_takes(siblings: Siblings) -> None:
    async def run() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        for number in range(1000):
            one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"%d" % number + bytes(1200), two.box.number)
            if not number % 10:
                await asyncio.sleep(0)
        letters = await two.wait_for(1000)
        assert [int(letter.data.strip(b"\0")) for letter in letters] == list(range(1000))
        one.box.close()
        two.box.close()

    asyncio.run(run())


def test_worker_that_does_not_read_costs_its_own_letters_and_no_time(siblings: Siblings) -> None:
    async def run() -> None:
        one = Reader(siblings)
        two = Mailbox(asyncio.get_running_loop(), siblings.of_process(2), lambda letters: None)
        for _ in range(20 * PENDING_MAX):
            assert one.box.send(Kind.HANDED_ON, HERE, PEERS[0], bytes(100), two.number) is True
        await asyncio.sleep(0)
        three = Reader(siblings, 3)
        one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"here", three.box.number)
        assert (await three.wait_for(1))[0].data == b"here"
        for box in (one.box, two, three.box):
            box.close()

    asyncio.run(run())


def test_what_is_handed_on_at_the_end_arrives(siblings: Siblings) -> None:
    async def run() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"last", two.box.number)
        one.box.close()
        assert (await two.wait_for(1))[0].data == b"last"
        two.box.close()

    asyncio.run(run())


@pytest.mark.parametrize("removed", ["descriptors", "folder"])
def test_worker_that_cannot_be_reached_is_not_taken_for_gone(
    siblings: Siblings, removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*args: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    async def run() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        if removed == "folder":
            siblings.remove()
        else:
            monkeypatch.setattr("pounce.worker.mailbox.socket.socket", none_left)
        # It would be taken for a reason to reset connections.
        assert one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"", two.box.number) is True
        one.box.close()
        two.box.close()

    asyncio.run(run())


def test_letter_to_nobody_is_told_at_once(siblings: Siblings) -> None:
    async def run() -> None:
        one = Reader(siblings)
        assert one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"", 77) is False
        one.box.close()

    asyncio.run(run())


@pytest.mark.parametrize("killed", [False, True])
def test_worker_that_is_gone_is_found_out(siblings: Siblings, killed: bool) -> None:
    async def run() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        number = two.box.number
        one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"", number)
        await two.wait_for(1)
        if killed:
            asyncio.get_running_loop().remove_reader(two.box._sock)
            two.box._sock.close()
        else:
            two.box.close()
        # The first that fails is lost.
        one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"", number)
        await asyncio.sleep(0)
        assert one.box.send(Kind.HANDED_ON, HERE, PEERS[0], b"", number) is False
        assert not Path(siblings.folder, str(number)).exists()
        one.box.close()

    asyncio.run(run())


def test_workers_that_have_ended_cost_no_descriptors(siblings: Siblings) -> None:
    async def main() -> None:
        one = Reader(siblings)
        for process in range(2, 30):
            other = Reader(siblings, process)
            one.box.send_to_all(Kind.ASKED, HERE, PEERS[0], b"hello")
            await other.wait_for(1)
            other.box.close()
        assert len(one.box._lines) == 1
        one.box.close()

    asyncio.run(main())


def test_worker_with_the_number_of_one_that_has_ended_misses_nothing(siblings: Siblings) -> None:
    async def main() -> None:
        one, two = Reader(siblings), Reader(siblings, 2)
        number = two.box.number
        for data in (b"first", b"second"):
            assert one.box.send(Kind.HANDED_ON, HERE, PEERS[0], data, number)
            [letter] = await two.wait_for(1)
            assert letter.data == data
            two.box.close()
            two = Reader(siblings, 2)
        assert two.box.number == number
        one.box.close()
        two.box.close()

    asyncio.run(main())


def test_all_are_told_but_the_sender(siblings: Siblings) -> None:
    async def run() -> None:
        readers = [Reader(siblings, process) for process in (1, 1, 2)]
        readers[0].box.send_to_all(Kind.CLAIM, HERE, ("",), b"id")
        for reader in readers[1:]:
            assert [letter.data for letter in await reader.wait_for(1)] == [b"id"]
        assert readers[0].letters == []
        for reader in readers:
            reader.box.close()

    asyncio.run(run())


def test_workers_of_one_process_have_different_numbers(siblings: Siblings) -> None:
    async def run() -> None:
        boxes = [Mailbox(asyncio.get_running_loop(), siblings.of_process(5), lambda letters: None) for _ in range(256)]
        assert [box.number for box in boxes] == [5 << 8 | serial for serial in range(256)]
        with pytest.raises(SupervisorError, match="cannot be reached"):
            Mailbox(asyncio.get_running_loop(), siblings.of_process(5), lambda letters: None)
        boxes[7].close()
        boxes.append(Mailbox(asyncio.get_running_loop(), siblings.of_process(5), lambda letters: None))
        assert boxes[-1].number == 5 << 8 | 7
        for box in (*boxes[:7], *boxes[8:]):
            box.close()

    asyncio.run(run())


def test_message_of_another_version_is_ignored() -> None:
    letter = encoded(Kind.CLAIM, 256, HERE, ("",), b"id")
    assert len(decoded(b"\x01" + letter)) == 1
    assert decoded(b"\x02" + letter) == []


def test_beginning_of_a_message_holds_the_letters_that_are_whole() -> None:
    letter = encoded(Kind.HANDED_ON, 256, HERE, PEERS[1], b"data")
    message = b"\x01" + 2 * letter
    assert [len(decoded(message[:end])) for end in range(len(message) + 1)] == (
        [0] * (1 + len(letter)) + [1] * len(letter) + [2]
    )


def test_process_numbers_go_round_without_zero() -> None:
    assert [Siblings().of_process(number).process for number in (1, 0xFFFF, 0x10000)] == [1, 0xFFFF, 1]


def test_folder_that_others_may_enter_is_not_private(siblings: Siblings) -> None:
    assert siblings.is_private
    os.chmod(siblings.folder, 0o750)
    assert not siblings.is_private


def test_secret_is_not_shown(siblings: Siblings) -> None:
    assert siblings.secret.hex() not in repr(siblings)
    assert repr(siblings.secret) not in repr(siblings)


def test_folder_for_temporary_files_may_have_too_long_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    with pytest.raises(SupervisorError, match="too long"):
        Siblings.make()


# Descriptors on their way


@pytest.mark.parametrize("count", [0, 1, 3, 450])
def test_descriptors_travel_with_their_message(count: int) -> None:
    channel, theirs = Channel.pair()
    other = Channel(theirs)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        channel.send(Receive((sock.fileno(),) * count))
        channel.send(Receive((sock.fileno(),)))
        messages: list[Message] = []
        while len(messages) < 2:
            messages += other.receive()
        assert [len(message.fds) for message in messages if isinstance(message, Receive)] == [count, 1]
        for message in messages:
            assert isinstance(message, Receive)
            for fd in message.fds:
                assert not os.get_inheritable(fd)
                with socket.socket(fileno=fd) as arrived:
                    assert arrived.getsockname() == sock.getsockname()
    channel.close()
    other.close()


# Who reads what


class Child:
    """A process that is told what to read."""

    def __init__(self) -> None:
        self.channel = self
        self.told: list[int] = []

    def send(self, message: Receive) -> bool:
        self.told.append(len(message.fds))
        return True


@pytest.fixture
def config(tls_files: tuple[str, str]) -> ServerConfig:
    return ServerConfig(port=0, http3_enabled=True, ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1])


@pytest.fixture
def sockets(config: ServerConfig) -> Iterator[DatagramSockets]:
    listeners, first = open_sockets(config)
    opened = DatagramSockets(config, listeners, first, count=1)
    yield opened
    opened.close()
    for listener in listeners:
        listener.close()


def share(sockets: DatagramSockets, *places: Any, others: Any = (), count: int = 2) -> None:
    sockets.share(places, others, count)


def test_every_place_reads_a_set_of_its_own(sockets: DatagramSockets) -> None:
    one, two = Child(), Child()
    share(sockets, one, two)
    share(sockets, one, two)
    assert (one.told, two.told) == ([1], [1])


def test_set_of_a_place_without_a_process_is_read_by_another_one_meanwhile(sockets: DatagramSockets) -> None:
    one, two, three = Child(), Child(), Child()
    share(sockets, one, None)
    share(sockets, one, two)
    share(sockets, one, None)
    share(sockets, one, three)
    assert (one.told, two.told, three.told) == ([2, 1, 2, 1], [1, 0], [1])


def test_new_processes_read_all_that_the_old_ones_have_left(sockets: DatagramSockets) -> None:
    old, new = [Child(), Child()], [Child(), Child()]
    share(sockets, *old)
    share(sockets, *new)
    assert [child.told for child in (*old, *new)] == [[1, 0], [1, 0], [1], [1]]


def test_sets_that_were_opened_are_read_to_the_end(sockets: DatagramSockets) -> None:
    children = [Child(), Child(), Child()]
    share(sockets, *children, count=3)
    share(sockets, children[0], children[1])
    assert [child.told for child in children] == [[1, 2], [1], [1, 0]]


def test_what_is_left_in_a_drain_reads_on(sockets: DatagramSockets) -> None:
    one, two = Child(), Child()
    share(sockets, one, two)
    share(sockets, None, None, others=[two])
    assert two.told == [1, 2]


@contextmanager
def successor_of(
    sockets: DatagramSockets, config: ServerConfig, *further: str, count: int
) -> Iterator[tuple[DatagramSockets, tuple[int, ...]]]:
    """Of a server that is upgraded, on the same addresses and further ones; and the descriptors that it was passed."""
    passed = sockets.passed()
    assert passed is not None
    same = (f"fd://{socket.dup(listener.sock.fileno())}" for listener in sockets._listeners)
    bind = replace(config, bind=(*same, *further))
    opened = open_listeners(bind)
    fds = tuple(os.dup(fd) for fd in passed.fds)
    successor = DatagramSockets(bind, opened, passed=PassedDatagrams(fds, passed.siblings), count=count)
    yield successor, fds
    successor.close()
    for listener in opened:
        listener.close()


def test_successor_takes_sockets_and_secret_over(config: ServerConfig, sockets: DatagramSockets) -> None:
    sockets.grow(3)
    with successor_of(sockets, config, count=1) as (successor, fds):
        given, before = successor.siblings(), sockets.siblings()
        assert given is not None
        assert before is not None
        assert successor.descriptors() == list(fds)
        assert (given.secret, given.folder) == (before.secret, before.folder)
    assert Path(given.folder).exists()


def test_successor_opens_further_sets_when_it_has_somebody_to_read_them(
    config: ServerConfig, sockets: DatagramSockets
) -> None:
    with successor_of(sockets, config, count=3) as (successor, fds):
        assert successor.descriptors() == list(fds)
        children = [Child(), Child(), Child()]
        share(successor, *children, count=3)
        assert [child.told for child in children] == [[1], [1], [1]]


def test_successor_with_one_more_address_keeps_the_sets_of_the_others(
    config: ServerConfig, sockets: DatagramSockets
) -> None:
    sockets.grow(2)
    before = [os.fstat(fd).st_ino for fd in sockets.descriptors()]
    with successor_of(sockets, config, "127.0.0.1:0", count=2) as (successor, _):
        found = [os.fstat(fd).st_ino for fd in successor.descriptors()]
        assert len(found) == 4
        assert set(before) < set(found)


def test_sockets_are_dealt_out_evenly_for_each_address() -> None:
    class Sock:
        def __init__(self, address: str) -> None:
            self.address = address

        def getsockname(self) -> str:
            return self.address

    sockets: Any = [Sock(address) for address in "abababab"]
    shares = [list(dealt(sockets, place, 3)) for place in range(3)]
    assert ["".join(sock.address for sock in share) for share in shares] == ["abab", "ab", "ab"]
    assert {id(sock) for share in shares for sock in share} == {id(sock) for sock in sockets}


# The transport


class Protocol(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.moved = 0
        self.news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        self.news.set()

    def sockets_moved(self) -> None:
        self.moved += 1


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_transport_sends_when_it_reads_no_more_and_leaves_what_waits() -> None:
    async def run() -> None:
        loop, protocol, sock = asyncio.get_running_loop(), Protocol(), udp()
        kept = sock.dup()
        transport = DatagramTransport(loop, sock.getsockname(), protocol)
        transport.start()
        transport.receive([sock])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(sock.getsockname())
            client.settimeout(60)
            client.send(b"one")
            async with asyncio.timeout(5):
                await protocol.news.wait()
            transport.receive([])
            client.send(b"two")
            transport.sendto(b"still here", client.getsockname())
            assert client.recv(100) == b"still here"
            await asyncio.sleep(0)
            assert (protocol.received, protocol.moved) == ([b"one"], 1)
            transport.close()
            assert kept.recv(100) == b"two"
            kept.close()

    asyncio.run(run())


def test_transport_reads_what_waits_before_it_closes() -> None:
    async def run() -> None:
        protocol, sock = Protocol(), udp()
        transport = DatagramTransport(asyncio.get_running_loop(), sock.getsockname(), protocol)
        transport.start()
        transport.receive([sock])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"last", sock.getsockname())
        transport.close()
        assert protocol.received == [b"last"]

    asyncio.run(run())
