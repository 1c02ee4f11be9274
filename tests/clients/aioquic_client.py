"""A client with aioquic. Reads a task from standard input, JSON, and writes what came of it to standard output.

`host`, `port`, `ca`: the server and the file of its certificate. `steps`: what to do on one connection, in order.
`early`: what to ask for then in early data of a second connection, opened with a ticket of the first. `version`: the
QUIC version to try first.
"""

import hashlib
import json
import socket
import sys
import time

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamReset
from aioquic.tls import Epoch

PATIENCE = 60.0


def content(size):
    """As many bytes, in which a part that is missing or repeated shows."""
    return b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]


class Request:
    def __init__(self):
        self.heads = []
        self.body = bytearray()
        self.ended = False
        self.reset = None

    def report(self):
        heads = [{name.decode(): value.decode() for name, value in head} for head in self.heads]
        return {
            "status": [int(head[":status"]) for head in heads if ":status" in head],
            "trailers": next((head for head in heads if ":status" not in head), None),
            "text": self.body[:200].decode("latin-1"),
            "size": len(self.body),
            "sha256": hashlib.sha256(self.body).hexdigest(),
            "ended": self.ended,
            "reset": self.reset,
        }


class Client:
    def __init__(self, task, ticket=None):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
        configuration.load_verify_locations(cafile=task["ca"])
        configuration.session_ticket = ticket
        if "version" in task:
            configuration.original_version = task["version"]
            configuration.supported_versions = [task["version"], 1]
        self.tickets = []
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.server = (task["host"], task["port"])
        self.requests = {}
        self.connected = None
        self.terminated = None
        self.open_socket()
        self.quic.connect(self.server, now=time.monotonic())
        self.h3 = H3Connection(self.quic)

    def open_socket(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(self.server)

    def flush(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.sock.send(data)

    def wait_until(self, true):
        end = time.monotonic() + PATIENCE
        self.flush()
        while not true():
            now = time.monotonic()
            if now > end or self.terminated is not None:
                raise SystemExit(f"it did not come true: {self.terminated}")
            timer = self.quic.get_timer()
            self.sock.settimeout(max(min(end, timer if timer is not None else end) - now, 0.0001))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                self.quic.handle_timer(now=time.monotonic())
            except socket.timeout:  # noqa: UP041 - it is another one before 3.10
                self.quic.handle_timer(now=time.monotonic())
            else:
                self.quic.receive_datagram(data, self.server, now=time.monotonic())
            self.look()
            self.flush()

    def look(self):
        event = self.quic.next_event()
        while event is not None:
            if isinstance(event, HandshakeCompleted):
                self.connected = event
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event
            elif isinstance(event, StreamReset) and event.stream_id in self.requests:
                self.requests[event.stream_id].reset = event.error_code
            for found in self.h3.handle_event(event):
                request = self.requests.get(getattr(found, "stream_id", None))
                if request is not None and isinstance(found, (HeadersReceived, DataReceived)):
                    if isinstance(found, HeadersReceived):
                        request.heads.append(found.headers)
                    else:
                        request.body += found.data
                    request.ended = request.ended or found.stream_ended
            event = self.quic.next_event()

    def send(self, method, path, size=0, trailers=()):
        stream_id = self.quic.get_next_available_stream_id()
        request = self.requests[stream_id] = Request()
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
        ]
        self.h3.send_headers(stream_id, fields, end_stream=not size)
        if size:
            self.h3.send_data(stream_id, content(size), end_stream=not trailers)
        if trailers:
            self.h3.send_headers(stream_id, [(n.encode(), v.encode()) for n, v in trailers], end_stream=True)
        return request

    def ask(self, *what):
        request = self.send(*what)
        self.wait_until(lambda: request.ended or request.reset is not None)
        return request.report()

    def ask_and_move(self, path):
        """A download in the midst of which the port changes."""
        request = self.send("GET", path)
        self.wait_until(lambda: len(request.body) > 100_000)
        before = self.sock.getsockname()[1]
        self.sock.close()
        self.open_socket()
        self.quic.change_connection_id()
        self.wait_until(lambda: request.ended or request.reset is not None)
        return dict(request.report(), moved=self.sock.getsockname()[1] != before)

    def do(self, step):
        name, *rest = step
        if name == "ask":
            return self.ask(*rest)
        if name == "ask and move":
            return self.ask_and_move(*rest)
        if name == "update keys":
            self.quic.request_key_update()
            return None
        if name == "ask together":
            requests = [self.send("GET", rest[0]) for _ in range(rest[1])]
            self.wait_until(lambda: all(request.ended for request in requests))
            return [request.report()["text"] for request in requests]
        raise SystemExit(f"unknown step {step}")

    def close(self):
        self.quic.close(error_code=0x100)
        self.flush()
        self.sock.close()


def main():
    task = json.load(sys.stdin)
    client = Client(task)
    client.wait_until(lambda: client.connected is not None)
    report = {"answers": [client.do(step) for step in task.get("steps", ())]}
    report["retries"] = client.quic._retry_count
    report["version"] = client.quic._version
    report["key_phase"] = client.quic._cryptos[Epoch.ONE_RTT].key_phase
    if "early" in task:
        client.wait_until(lambda: client.tickets)
        client.close()
        client = Client(task, client.tickets[0])
        # Nothing has come from the server yet.
        requests = [client.send(*what) for what in task["early"]]
        client.flush()
        client.wait_until(lambda: all(request.ended for request in requests) and client.connected is not None)
        report["early"] = [request.report() for request in requests]
        report["early_data_accepted"] = client.connected.early_data_accepted
        report["session_resumed"] = client.connected.session_resumed
    client.close()
    json.dump(report, sys.stdout)


main()
