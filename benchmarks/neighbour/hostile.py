"""A hostile client: `python -m benchmarks.neighbour.hostile PORT KIND`, until it is killed.

It sends as fast as it is read, takes every answer at once, and comes back when it is thrown out. A kind of `FLOODS` is
bytes that are sent again and again; one of `BATCHES` is as many requests of HTTP/2 as there may be at a time, sent
again when all are answered; one of `DATAGRAMS` speaks HTTP/3. Says `ready` when it has begun.
"""

import functools
import itertools
import random
import select
import socket
import ssl
import sys
import time
import zlib
from collections.abc import Callable, Iterator

import hpack

from benchmarks.h3 import client as h3
from pounce_h2.frames import ACK, END_HEADERS, END_STREAM, PREFACE, Kind, Setting, frame, settings_frame
from pounce_h2.frames import window_update_frame as window_update
from pounce_h3.ids import ID_LENGTH

BLOB = 262_144
"""Bytes that are sent with one call."""

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"


def upgrade(path: bytes, extensions: bytes = b"") -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n" % (path, extensions)
    )


def masked(first: int, payload: bytes) -> bytes:
    """A frame whose mask changes nothing."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2) if size < 65536 else b"\xff" + size.to_bytes(8)
    return bytes((first,)) + length + bytes(4) + payload


def deflated(payload: bytes) -> bytes:
    """A compressed message that refers to none before it."""
    deflater = zlib.compressobj(wbits=-12)
    return masked(0xC1, (deflater.compress(payload) + deflater.flush(zlib.Z_FULL_FLUSH))[:-4])


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n"


def zeros() -> bytes:
    return deflated(bytes(16_000_000))


def letters() -> bytes:
    return deflated(bytes(random.Random(1).choices(b"abcdefghijklmnop", k=2**20)))


# What is sent first, and what is sent again and again, or makes it.
FLOODS: dict[str, tuple[bytes, bytes | Callable[[], bytes]]] = {
    "h1 pipelined": (b"", GET),
    "h1 empty lines": (b"", b"\r\n"),
    "h1 chunks": (b"", CHUNKED),
    "ws pings": (upgrade(b"/sink"), masked(0x89, b"")),
    "ws fragments": (upgrade(b"/sink"), masked(0x01, b"") + masked(0x00, b"x") * 5000 + masked(0x80, b"")),
    "ws messages": (upgrade(b"/sink"), masked(0x81, b"")),
    "ws echo": (upgrade(b"/echo"), masked(0x81, b"")),
    "ws deflate": (upgrade(b"/sink", DEFLATE), zeros),
    "ws deflate echo": (upgrade(b"/echo", DEFLATE), letters),
}


def block(method: str, path: str, *more: tuple[str, str]) -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path), *more]
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


def get(stream: int) -> bytes:
    return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, HEADS["/"])


def large_head(stream: int) -> bytes:
    return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, HEADS["large"])


def pieces(stream: int) -> bytes:
    return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, HEADS["/stream"])


def tiny_data(stream: int) -> bytes:
    data = frame(Kind.DATA, 0, stream, b"x") * 200
    return frame(Kind.HEADERS, END_HEADERS, stream, HEADS["POST"]) + data + frame(Kind.DATA, END_STREAM, stream)


HEADS = {
    "/": block("GET", "/"),
    "/stream": block("GET", "/stream"),
    "POST": block("POST", "/"),
    "large": block("GET", "/", *((f"x-{n}", "".join(random.Random(n).choices("etaoin", k=250))) for n in range(60))),
}
BATCHES = {"h2 requests": get, "h2 tiny data": tiny_data, "h2 large heads": large_head, "h2 streams": pieces}
DATAGRAMS = ("h3 requests", "h3 tiny data", "h3 garbage")
KINDS = (*FLOODS, "h1 pipelined, TLS", *BATCHES, *DATAGRAMS)


def connect(port: int, tls: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    return sock


def flood(port: int, first: bytes, again: bytes | Callable[[], bytes], tls: bool) -> None:
    """Send on one connection until it ends."""
    if not isinstance(again, bytes):
        again = again()
    with connect(port, tls) as sock:
        if first:
            sock.sendall(first)
            while not sock.recv(65536).endswith(b"\r\n\r\n"):
                pass
        blob = memoryview(again * max(1, BLOB // len(again)))
        sock.setblocking(False)
        sent = 0
        ready()
        while True:
            readable, writable, _ = select.select([sock], [sock], [], 1)
            try:
                if readable and not sock.recv(BLOB):
                    return
                if writable:
                    sent = (sent + sock.send(blob[sent:])) % len(blob)
            except BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError:
                pass


def batches(port: int, kind: str) -> None:
    """Keep as many streams busy as the server allows, on one connection until it ends."""
    make = BATCHES[kind]
    count = {"h2 tiny data": 20, "h2 large heads": 20}.get(kind, 100)
    with connect(port, False) as sock:
        sock.sendall(PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}) + window_update(0, 2**30))
        ids = itertools.count(1, 2)
        ended = frames_ended(sock)
        received = 0
        while received < 2**29:
            sock.sendall(b"".join(make(next(ids)) for _ in range(count)))
            ready()
            for _ in range(count):
                received += next(ended)


def frames_ended(sock: socket.socket) -> Iterator[int]:
    """Read frames; yields at the end of each stream how many bytes came since the last."""
    data = bytearray()
    size = 0
    while True:
        at = 0
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3])
            if len(data) < end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == Kind.SETTINGS and not flags & ACK:
                sock.sendall(frame(Kind.SETTINGS, ACK, 0))
            elif kind == Kind.GOAWAY:
                raise ConnectionError
            elif kind == Kind.RST_STREAM or (kind in (Kind.HEADERS, Kind.DATA) and flags & END_STREAM):
                yield size
                size = 0
            at = end
        del data[:at]
        more = sock.recv(BLOB)
        if not more:
            raise ConnectionError
        size += len(more)
        data += more


class Eager(h3.Connection):
    """As many requests at a time as the server grants; `tiny` ones are uploads in DATA frames of one byte."""

    def __init__(self, port: int, tiny: bool) -> None:
        self._owed = 0
        self._stream: int | None = None
        super().__init__(port, "up" if tiny else "hello", 10 if tiny else 100)
        if tiny:
            self._body = h3.frame(0, b"x") * 2000

    def _ask(self) -> None:
        if self._stream is None:
            self._stream = self.quic.get_next_available_stream_id()
        try:
            self.quic.send_stream_data(self._stream, self._head + self._body, end_stream=True)
            self._stream = None
        except ValueError:
            # Not granted yet.
            self._owed += 1

    def turn(self, readable: bool) -> None:
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._ask()
        super().turn(readable)


def datagrams(port: int, kind: str) -> None:
    """HTTP/3, or datagrams that only look like it."""
    client = Eager(port, kind == "h3 tiny data")
    began = time.monotonic()
    while kind != "h3 garbage" or time.monotonic() - began < 0.5:
        select.select([client.sock], [], [], 0.002)
        client.turn(True)
        if client.answered and kind != "h3 garbage":
            ready()
    sent: list[bytes] = []
    send, client.sock = client.sock, _Spy(client.sock, sent)  # type: ignore[assignment]
    while not sent or sent[-1][0] >= 0x80:
        select.select([send], [], [], 0.002)
        client.turn(True)
    name = sent[-1][1 : 1 + ID_LENGTH]
    ready()
    while True:
        try:
            send.send(b"\x41" + name + random.randbytes(1100))
        except BlockingIOError:
            select.select([], [send], [])


class _Spy:
    """A socket that keeps what is sent."""

    def __init__(self, sock: socket.socket, sent: list[bytes]) -> None:
        self._sock, self._sent = sock, sent

    def send(self, data: bytes) -> int:
        self._sent.append(data)
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)


@functools.cache
def ready() -> None:
    print("ready", flush=True)


def main() -> None:
    port, kind = int(sys.argv[1]), sys.argv[2]
    while True:
        try:
            if kind in BATCHES:
                batches(port, kind)
            elif kind in DATAGRAMS:
                datagrams(port, kind)
            else:
                flood(port, *FLOODS[kind.removesuffix(", TLS")], tls=kind.endswith("TLS"))
        except OSError:
            time.sleep(0.001)


if __name__ == "__main__":
    main()
