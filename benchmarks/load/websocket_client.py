"""The load generator for WebSocket: `python -m benchmarks.load.websocket_client PORT KIND SIZE CONNECTIONS SECONDS`.

One thread, one epoll, and frames made beforehand, so that it does little per message. KIND is `echo`, where every
connection sends its next message when the last came back, or `broadcast`, where one connection sends when all have got
the last. Prints JSON: messages that arrived, in how many microseconds, and percentiles of the time from sending.
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


def frame(payload: bytes) -> bytes:
    mask = os.urandom(4)
    size = len(payload)
    head = b"\x81" + (bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2))
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def main() -> None:
    port, kind, size, connections, seconds = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    payload = b"x" * size
    frames = [frame(payload) for _ in range(64)]
    expected = size + (2 if size < 126 else 4)
    whole = (b"\x81" + (bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2))) + payload
    socks = {sock.fileno(): sock for sock in (connect(port) for _ in range(connections))}
    poll = select.epoll()
    for number in socks:
        poll.register(number, select.EPOLLIN)
    got = dict.fromkeys(socks, 0)
    sent_at = dict.fromkeys(socks, 0.0)
    times: list[float] = []
    messages = turn = 0
    first = next(iter(socks))
    clock = time.perf_counter
    began = clock()
    ends = began + seconds
    if kind == "echo":
        for number, sock in socks.items():
            sent_at[number] = clock()
            sock.sendall(frames[number % 64])
    else:
        sent_at[first] = clock()
        socks[first].sendall(frames[0])
    waiting = connections
    checked = False
    while (now := clock()) < ends:
        for number, _ in poll.poll(1):
            data = socks[number].recv(262144)
            assert data, "the server closed"
            if not checked and len(data) == expected:
                assert data == whole
                checked = True
            have = got[number] + len(data)
            if have < expected:
                got[number] = have
                continue
            got[number] = have - expected
            messages += 1
            if kind == "echo":
                now = clock()
                times.append(now - sent_at[number])
                sent_at[number] = now
                turn += 1
                socks[number].sendall(frames[turn & 63])
            else:
                waiting -= 1
                if not waiting:
                    waiting = connections
                    now = clock()
                    times.append(now - sent_at[first])
                    sent_at[first] = now
                    turn += 1
                    socks[first].sendall(frames[turn & 63])
    assert checked
    times.sort()
    percentiles = {f"p{share}": times[len(times) * share // 100] * 1000 for share in (50, 99)}
    print(json.dumps({"messages": messages, "microseconds": (now - began) * 1e6} | percentiles))


if __name__ == "__main__":
    main()
