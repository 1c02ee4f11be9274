"""The load generator for HTTP/3: `python -m benchmarks.h3.client PORT LOAD CONNECTIONS STREAMS SECONDS`.

One thread that speaks QUIC with qh3 and writes HTTP/3 by itself: a request is one HEADERS frame of literals. LOAD is
hello, down (1 MiB back) or up (1 MiB there). Prints a line of JSON: answers that were complete within the time, and the
processor time that this took here, so that it shows when the generator itself is the limit.
"""

import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable

from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

MEBIBYTE = 2**20
WINDOW = 16 * MEBIBYTE
PATIENCE = 10.0


def literal(value: bytes) -> bytes:
    return bytes((len(value),)) + value


def frame(kind: int, payload: bytes) -> bytes:
    return bytes((kind,)) + (0x80000000 | len(payload)).to_bytes(4) + payload


def request(method: str) -> bytes:
    """HEADERS without tables (RFC 9204 4.5.4, 4.5.6)."""
    # Literals with a name of the static table: 0 :authority, 1 :path, 17 :method, 23 :scheme.
    fields = b"\0\0\x50" + literal(b"localhost") + b"\x51" + literal(b"/")
    fields += b"\x5f\x02" + literal(method.encode()) + b"\x5f\x08" + literal(b"https")
    return frame(1, fields)


class Connection:
    """One connection that keeps so many requests under way."""

    def __init__(self, port: int, load: str, streams: int, clock: Callable[[], float] = time.monotonic) -> None:
        configuration = QuicConfiguration(
            alpn_protocols=["h3"],
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
            max_data=WINDOW,
            max_stream_data=WINDOW,
        )
        self.quic = QuicConnection(configuration=configuration)
        self.address = ("127.0.0.1", port)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MEBIBYTE)
        self.sock.connect(self.address)
        self.sock.setblocking(False)
        self.answered = 0
        self.received = 0
        self.sent = self.arrived = 0
        """Datagrams."""
        self._clock = clock
        self._load = load
        self._streams = streams
        self._head = request("POST" if load == "up" else "GET")
        self._body = frame(0, bytes(MEBIBYTE)) if load == "up" else b""
        self.quic.connect(self.address, clock())
        self.flush()

    def begin(self) -> None:
        """The control stream, and the first requests."""
        control = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(control, b"\0" + frame(4, b""))
        for _ in range(self._streams):
            self.send_request()

    def send_request(self) -> None:
        """Ask once more; `flush()` is still to come."""
        stream = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream, self._head + self._body, end_stream=True)

    def flush(self) -> None:
        for data, _ in self.quic.datagrams_to_send(self._clock()):
            try:
                self.sock.send(data)
                self.sent += 1
            except BlockingIOError:
                # Lost, as in a network.
                pass

    def readable(self, seconds: float) -> bool:
        """Whether something came within the time, at the longest until the timer rings."""
        timer = self.quic.get_timer()
        wait = seconds if timer is None else min(seconds, max(timer - self._clock(), 0.0))
        return bool(select.select([self.sock], [], [], wait)[0])

    def turn(self, readable: bool) -> None:
        """Read what there is, ask anew for what was answered, send."""
        found = []
        while readable and len(found) < 64:
            try:
                found.append(self.sock.recv(65536))
            except BlockingIOError:
                break
        if found:
            self.arrived += len(found)
            self.quic.receive_many_datagrams(found, self.address, self._clock())
        timer = self.quic.get_timer()
        if timer is not None and timer <= self._clock():
            self.quic.handle_timer(self._clock())
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted):
                self.begin()
            elif isinstance(event, events.ConnectionTerminated):
                sys.exit(f"the connection ended: {event}")
            elif isinstance(event, events.StreamReset):
                sys.exit(f"a request was reset: {event}")
            elif isinstance(event, events.StreamDataReceived) and not event.stream_id & 2:
                self.received += len(event.data)
                if event.end_stream:
                    self.answered += 1
                    if self._streams:
                        self.send_request()
        self.flush()


def main() -> None:
    port, load, connections, streams, seconds = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    clients = [Connection(port, load, streams) for _ in range(connections)]
    by_number = {client.sock.fileno(): client for client in clients}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)

    def run(until: float) -> None:
        while time.monotonic() < until:
            ready = {number for number, _ in poll.poll(0.002)}
            for number, client in by_number.items():
                client.turn(number in ready)

    deadline = time.monotonic() + PATIENCE
    while not all(client.answered for client in clients):
        if time.monotonic() > deadline:
            sys.exit("not every connection got an answer")
        run(time.monotonic() + 0.05)
    run(time.monotonic() + 1)
    before, received = sum(client.answered for client in clients), sum(client.received for client in clients)
    began, busy = time.monotonic(), time.process_time()
    run(began + seconds)
    took = time.monotonic() - began
    answered = sum(client.answered for client in clients) - before
    size = (sum(client.received for client in clients) - received) / max(1, answered)
    print(json.dumps({"rate": answered / took, "size": size, "busy": (time.process_time() - busy) / took}))


if __name__ == "__main__":
    main()
