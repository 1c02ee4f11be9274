"""The least that can be built on qh3: `python -m benchmarks.h3.bare --port 8443 CERTIFICATE KEY LOAD`.

qh3's own QUIC and HTTP/3, its batches of system calls, and an answer of constant bytes to whatever is asked. It has no
limits and no deadlines, ends no connection, and takes as much as comes: what ours does beyond that shows beside it.
"""

import argparse
import asyncio
import socket
from typing import Any

from qh3._hazmat import UdpSocketState
from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, H3Event, HeadersReceived
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import ConnectionIdIssued, HandshakeCompleted

from benchmarks.load.apps import HELLO, MEBIBYTE

ID_LENGTH = 8
ROUNDS = 8


class Peer:
    """One connection."""

    def __init__(self, server: Server, configuration: QuicConfiguration, original: bytes, body: bytes | None) -> None:
        self.quic = QuicConnection(configuration=configuration, original_destination_connection_id=original)
        self._server = server
        self._h3: H3Connection | None = None
        self._body = body
        self._sizes: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    def receive(self, datagrams: list[bytes], address: Any) -> None:
        self.quic.receive_many_datagrams(datagrams, address, self._server.loop.time())
        self._go_on()

    def _go_on(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self._h3 = H3Connection(self.quic)
            elif isinstance(event, ConnectionIdIssued):
                self._server.peers[event.connection_id] = self
            if self._h3 is not None:
                for found in self._h3.handle_event(event):
                    self._found(found)
        self._flush()

    def _found(self, event: H3Event) -> None:
        if isinstance(event, DataReceived):
            self._sizes[event.stream_id] = self._sizes.get(event.stream_id, 0) + len(event.data)
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
            assert self._h3 is not None
            size = self._sizes.pop(event.stream_id, 0)
            body = self._body if self._body is not None else b"%d" % size
            fields = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
            self._h3.send_headers(event.stream_id, fields)
            self._h3.send_data(event.stream_id, body, True)

    def _flush(self) -> None:
        found = self.quic.datagrams_to_send(self._server.loop.time())
        if found:
            self._server.send([data for data, _ in found], found[0][1])
        at = self.quic.get_timer()
        if at != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if at is None else self._server.loop.call_at(at, self._ring)
            self._timer_at = at

    def _ring(self) -> None:
        self._timer = self._timer_at = None
        self.quic.handle_timer(self._server.loop.time())
        self._go_on()


class Server:
    """All connections of one socket."""

    def __init__(self, sock: socket.socket, configuration: QuicConfiguration, body: bytes | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.peers: dict[bytes, Peer] = {}
        self._sock = sock
        self._udp = UdpSocketState(sock.fileno())
        self._configuration = configuration
        self._body = body
        self._waiting: list[tuple[list[bytes], Any]] = []
        self.loop.add_reader(sock, self._read)

    def _read(self) -> None:
        for _ in range(ROUNDS):
            try:
                found = self._udp.recv()
            except BlockingIOError:
                return
            if not found:
                return
            batches: dict[Peer, tuple[list[bytes], Any]] = {}
            for data, address in found:
                is_long = data[0] >= 0x80
                name = data[6 : 6 + data[5]] if is_long else data[1 : 1 + ID_LENGTH]
                peer = self.peers.get(name)
                if peer is None:
                    if not is_long:
                        continue
                    peer = self.peers[name] = Peer(self, self._configuration, name, self._body)
                    self.peers[peer.quic.host_cid] = peer
                batches.setdefault(peer, ([], address))[0].append(data)
            for peer, (datagrams, address) in batches.items():
                peer.receive(datagrams, address)

    def send(self, datagrams: list[bytes], address: Any) -> None:
        if not self._waiting:
            sent = self._udp.send(datagrams, address)
            if sent == len(datagrams):
                return
            datagrams = datagrams[sent:]
            self.loop.add_writer(self._sock, self._write)
        self._waiting.append((datagrams, address))

    def _write(self) -> None:
        while self._waiting:
            datagrams, address = self._waiting.pop(0)
            sent = self._udp.send(datagrams, address)
            if sent < len(datagrams):
                self._waiting.insert(0, (datagrams[sent:], address))
                return
        self.loop.remove_writer(self._sock)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.h3.bare")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("load", choices=["hello", "down", "up"])
    options = parser.parse_args()
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], connection_id_length=ID_LENGTH)
    configuration.load_cert_chain(options.certificate, options.key)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", options.port))
        Server(sock, configuration, {"hello": HELLO, "down": MEBIBYTE, "up": None}[options.load])
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
