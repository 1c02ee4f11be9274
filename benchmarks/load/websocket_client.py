"""The load generator for WebSocket: `python -m benchmarks.load.websocket_client PORT KIND SIZE CONNECTIONS SECONDS`.

One thread, one epoll, and frames made beforehand, so that it does little per message. KIND is `echo`, where every
connection sends its next message when the last came back, or `broadcast`, where one connection sends when all have got
the last. Prints what `wrk.lua` prints: a request is a message that arrived, the latency the time since it was sent.
"""

import json
import os
import select
import socket
import sys
import time

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAMES = 64
"""Different masks that are sent in turn."""


def main() -> None:
    port, kind, size, connections, seconds = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    payload = b"x" * size
    socks = [connect(port) for _ in range(connections)]
    for sock in socks:
        # The first message of each, which is also what proves that the server sends the right ones.
        (sock if kind == "echo" else socks[0]).sendall(masked(payload))
        for each in [sock] if kind == "echo" else socks:
            if (answer := read(each, len(unmasked(payload)))) != unmasked(payload):
                sys.exit(f"wrong frame: {answer[:60]!r}")
    print("RESULT", json.dumps(run(socks, payload, kind == "echo", seconds)))


def run(socks: list[socket.socket], payload: bytes, echo: bool, seconds: int) -> dict[str, object]:
    frames = [masked(payload) for _ in range(FRAMES)]
    expected = len(unmasked(payload))
    by_number = {sock.fileno(): sock for sock in socks}
    first = socks[0].fileno()
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    got = dict.fromkeys(by_number, 0)
    clock = time.perf_counter
    sent_at = dict.fromkeys(by_number, clock())
    times: list[float] = []
    messages = turn = size = 0
    waiting = len(socks)
    began = now = clock()
    for sock in socks if echo else socks[:1]:
        sock.sendall(frames[0])
    while (now := clock()) < began + seconds:
        for number, _ in poll.poll(1):
            data = by_number[number].recv(262144)
            if not data:
                sys.exit("the server closed a connection")
            size += len(data)
            have = got[number] + len(data)
            if have < expected:
                got[number] = have
                continue
            got[number] = have - expected
            messages += 1
            if echo:
                turn += 1
                now = clock()
                times.append(now - sent_at[number])
                sent_at[number] = now
                by_number[number].sendall(frames[turn % FRAMES])
            elif not (waiting := waiting - 1):
                waiting = len(socks)
                turn += 1
                now = clock()
                times.append(now - sent_at[first])
                sent_at[first] = now
                by_number[first].sendall(frames[turn % FRAMES])
    times.sort()
    percentiles = {f"p{share}": times[len(times) * share // 100] * 1e6 for share in (50, 99)} if times else {}
    return {"requests": messages, "bytes": size, "microseconds": (now - began) * 1e6, "errors": {}} | percentiles


def connect(port: int) -> socket.socket:
    """A WebSocket; raises `OSError` when there is no server, or it does not want one."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += read(sock, 1)
    if not answer.startswith(b"HTTP/1.1 101 "):
        sock.close()
        raise OSError(f"no WebSocket: {answer[:60]!r}")
    return sock


def read(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise OSError("the server closed the connection")
        data += piece
    return data


def masked(payload: bytes) -> bytes:
    """The frame of a text as a client sends it."""
    mask, size = os.urandom(4), len(payload)
    key = (mask * (size // 4 + 1))[:size]
    head = unmasked(payload)[:-size]
    data = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return bytes((head[0], head[1] | 0x80)) + head[2:] + mask + data


def unmasked(payload: bytes) -> bytes:
    """The frame of a text, of less than 64 KiB, as a server sends it."""
    size = len(payload)
    return b"\x81" + (bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2)) + payload


if __name__ == "__main__":
    main()
