"""A WebTransport client with aioquic. A task comes by standard input, what came of it goes to standard output: JSON.

`host`, `port`, `ca`: the server and the file of its certificate. `steps`: what to do in one session, in order.
"""

import hashlib
import json
import socket
import sys
import time

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

PATIENCE = 60.0


def content(size):
    """As many bytes, in which a part that is missing or repeated shows."""
    return b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]


class Client:
    def __init__(self, task):
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name="localhost", max_datagram_frame_size=65536
        )
        configuration.load_verify_locations(cafile=task["ca"])
        self.quic = QuicConnection(configuration=configuration)
        self.server = (task["host"], task["port"])
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(self.server)
        self.quic.connect(self.server, now=time.monotonic())
        self.h3 = H3Connection(self.quic, enable_webtransport=True)
        self.connected = False
        self.terminated = None
        self.head = {}
        self.capsules = bytearray()
        self.session_ended = False
        self.ours = set()
        self.streams = {}
        self.ended = set()
        self.resets = {}
        self.stops = {}
        self.datagrams = []
        self.session = None

    def flush(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.sock.send(data)

    def wait_until(self, true, patience=PATIENCE):
        end = time.monotonic() + patience
        self.flush()
        while not true():
            now = time.monotonic()
            if now > end and patience < PATIENCE:
                return
            if now > end or self.terminated is not None:
                raise SystemExit(f"it did not come true: {self.terminated}")
            timer = self.quic.get_timer()
            self.sock.settimeout(max(min(end, timer if timer is not None else end) - now, 0.0001))
            try:
                data = self.sock.recv(65536)
            except (TimeoutError, socket.timeout):  # noqa: UP041 - they are two before 3.10
                self.quic.handle_timer(now=time.monotonic())
            else:
                self.quic.receive_datagram(data, self.server, now=time.monotonic())
            self.look()
            self.flush()

    def look(self):
        event = self.quic.next_event()
        while event is not None:
            if isinstance(event, HandshakeCompleted):
                self.connected = True
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, StopSendingReceived):
                self.stops[event.stream_id] = event.error_code
            if isinstance(event, StreamDataReceived) and event.stream_id in self.ours:
                # aioquic takes the answer to a stream of its own for frames of HTTP.
                self.received(event.stream_id, event.data, event.end_stream)
                event = self.quic.next_event()
                continue
            for found in self.h3.handle_event(event):
                if isinstance(found, HeadersReceived):
                    self.head = {name.decode(): value.decode() for name, value in found.headers}
                    self.session_ended = self.session_ended or found.stream_ended
                elif isinstance(found, DataReceived):
                    self.capsules += found.data
                    self.session_ended = self.session_ended or found.stream_ended
                elif isinstance(found, DatagramReceived):
                    self.datagrams.append(found.data)
                elif isinstance(found, WebTransportStreamDataReceived):
                    self.received(found.stream_id, found.data, found.stream_ended)
            event = self.quic.next_event()

    def received(self, stream_id, data, end):
        self.streams.setdefault(stream_id, bytearray()).extend(data)
        if end:
            self.ended.add(stream_id)

    def open_stream(self):
        stream_id = self.h3.create_webtransport_stream(self.session)
        self.ours.add(stream_id)
        return stream_id

    def open(self, path):
        self.wait_until(lambda: self.connected and self.h3.received_settings is not None)
        self.session = self.quic.get_next_available_stream_id()
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
        ]
        self.h3.send_headers(self.session, fields)
        self.wait_until(lambda: self.head)
        return int(self.head[":status"])

    def echo(self, count, size):
        """So many bidirectional streams at a time; how many came back whole."""
        data = content(size)
        ids = [self.open_stream() for _ in range(count)]
        for stream_id in ids:
            self.quic.send_stream_data(stream_id, data, end_stream=True)
        self.wait_until(lambda: self.ended.issuperset(ids))
        return sum(self.streams[stream_id] == data for stream_id in ids)

    def push(self, count, size):
        """So many unidirectional streams to the server, which sends as many back; how many of them were whole."""
        data = content(size)
        before = set(self.streams)
        for _ in range(count):
            stream_id = self.h3.create_webtransport_stream(self.session, is_unidirectional=True)
            self.quic.send_stream_data(stream_id, data, end_stream=True)
        self.wait_until(lambda: len(self.ended - before) == count)
        return sum(self.streams[stream_id] == data for stream_id in self.ended - before)

    def overfill(self, size):
        """Send so much on a stream that nobody reads; the code with which the server wants no more of it."""
        stream_id = self.h3.create_webtransport_stream(self.session, is_unidirectional=True)
        self.quic.send_stream_data(stream_id, bytes(size))
        self.wait_until(lambda: stream_id in self.stops)
        return self.stops[stream_id]

    def send_datagrams(self, count):
        """So many datagrams, each until it has come back, for any may be lost; how many different ones did."""
        for number in range(count):
            data = b"%d" % number
            while data not in self.datagrams:
                self.h3.send_datagram(self.session, data)
                self.wait_until(lambda data=data: data in self.datagrams, 0.5)
        return len(set(self.datagrams))

    def give_up(self, code):
        """Reset the sending half of a stream, and stop the other; the codes with which the server does the same."""
        stream_id = self.open_stream()
        self.quic.send_stream_data(stream_id, b"reset me")
        self.wait_until(lambda: self.streams.get(stream_id))
        self.quic.reset_stream(stream_id, code)
        self.wait_until(lambda: stream_id in self.resets)
        return self.resets[stream_id]

    def wait_pushed(self, count):
        """The sizes of streams of the server, once so many are there to their end."""
        self.wait_until(lambda: len(self.ended) >= count)
        return [len(self.streams[stream_id]) for stream_id in sorted(self.ended)]

    def close(self, code, reason):
        payload = code.to_bytes(4, "big") + reason.encode()
        self.h3.send_data(self.session, b"\x68\x43" + bytes((len(payload),)) + payload, end_stream=True)
        self.wait_until(lambda: self.session_ended)
        return True

    def wait_closed(self):
        """What the server has said, to the end of the session."""
        self.wait_until(lambda: self.session_ended)
        return self.capsules.hex()

    def do(self, step):
        name, *rest = step
        return getattr(self, name)(*rest)


def main():
    task = json.load(sys.stdin)
    client = Client(task)
    report = [client.do(step) for step in task["steps"]]
    client.quic.close(error_code=0x100)
    client.flush()
    json.dump(report, sys.stdout)


main()
