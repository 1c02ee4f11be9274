"""The least that an ASGI server in Python can do for a GET: `python -m benchmarks.micro.bare APP PORT`.

Our loop, one pattern for the request line, the fields of the request before where the bytes are the same, a scope, a
task, and the answer in one piece. No limits, deadlines, checks of fields or of messages, errors, bodies, nor an end: it
is here to be counted by `benchmarks.micro.instructions`, beside servers that have them.
"""

import asyncio
import contextvars
import importlib
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pounce.net.epoll_loop import EpollLoop

type Message = dict[str, Any]
type App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

request_line = re.compile(rb"([A-Z]{1,32}) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1").fullmatch


class Server:
    """One listening socket, and what all connections share."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.loop = EpollLoop()
        self.context = contextvars.copy_context()
        self.heads: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}
        self.connections: list[Connection] = []
        self.socket = socket.create_server(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.loop.add_reader(self.socket.fileno(), self.accept)

    def accept(self) -> None:
        sock, peer = self.socket.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, sock, peer)
        self.connections.append(connection)
        self.loop.read_directly(connection.fd, connection.read_ready)


class Connection:
    __slots__ = ("block", "fd", "fields", "local", "peer", "server", "sock")

    def __init__(self, server: Server, sock: socket.socket, peer: Any) -> None:
        self.server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.local = sock.getsockname()
        self.block = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def read_ready(self) -> None:
        server = self.server
        data = os.read(self.fd, 65536)
        if not data:
            server.loop.stop_reading(self.fd)
            self.sock.close()
            return
        end = data.find(b"\r\n\r\n")
        line_end = data.find(b"\r\n")
        match = request_line(data, 0, line_end)
        assert match is not None
        method, target = match.groups()
        block = data[line_end:end]
        if block != self.block:
            self.block = block
            lines = [line.partition(b":") for line in block.split(b"\r\n")[1:]]
            self.fields = [(name.lower(), value.strip()) for name, _, value in lines]
        path, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method.decode(),
            "scheme": "http",
            "path": path.decode(),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.fields.copy(),
            "client": self.peer,
            "server": self.local,
            "state": {},
            "extensions": {},
        }
        exchange = Exchange(self)
        asyncio.Task(
            server.app(scope, exchange.receive, exchange.send),
            loop=server.loop,
            context=server.context.copy(),
            eager_start=True,
        )


class Exchange:
    __slots__ = ("connection", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = tuple(message["headers"])
            return
        heads = self.connection.server.heads
        head = heads.get(self.headers)
        if head is None:
            head = heads[self.headers] = b"HTTP/1.1 %d OK\r\n%b\r\n" % (
                self.status,
                b"".join([b"%b: %b\r\n" % field for field in self.headers]),
            )
        os.write(self.connection.fd, head + message["body"])


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    Server(getattr(importlib.import_module(module), name), int(sys.argv[2])).loop.run_forever()


if __name__ == "__main__":
    main()
