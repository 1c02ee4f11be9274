"""What `pounce init --plugin` makes of the kinds that speak protocols, read HTTP/1.1, or bring a command."""

__all__ = ["FILES", "SOURCES", "TESTS"]

DATAGRAM = '''\
"""{name}, a protocol over datagrams: what comes goes back in capital letters. Serve it at udp+{name}://host:port."""

import asyncio
from typing import cast

from pounce.plugin import Address, DatagramTransport, DatagramWire, Plugin, Service


class {class_}(asyncio.DatagramProtocol):
    """One address, in one worker. Where a datagram says it is from is nothing but a claim: an answer is no longer than
    its question, so that nobody is flooded in another's name."""

    def __init__(self, service: Service, address: Address) -> None:
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._service.count("{name}_answered")
        self._transport.sendto(data.upper(), addr)


plugin = Plugin(name="{name}", api=({major}, {minor}), datagrams=(DatagramWire(name="{name}", connect={class_}),))
'''
DATAGRAM_TEST = '''\
import socket
from typing import Any

from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import TestServer

from {module} import plugin


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request comes in a datagram")


def test_a_datagram_is_answered() -> None:
    bind = ["udp+{name}://127.0.0.1:0"]
    with (
        TestServer(app, registry=Registry.of(h1, plugin), bind=bind, lifespan="off") as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(60)
        client.connect((server.host, server.port))
        client.send(b"hello")
        assert client.recv(100) == b"HELLO"
'''

UPGRADE = '''\
"""{name}: a protocol that a request opens by Upgrade; it sends back what it gets."""

import time

from pounce.plugin import Headers, Plugin, RequestHead, Service, Stream, Upgrade


class {class_}:
    """One of them, on the stream of the request that opened it."""

    queued = 0.0
    close_code = None

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.service = service
        self.head = head
        self.stream = stream
        self.started = time.monotonic()
        self.status = 101
        self.bytes_sent = 0
        self.broken = False
        self._waiting = 0
        self._over = False
        stream.tunnel([])
        service.upgraded(self)
        service.on_drain.add(self._finish)

    def data_received(self, data: bytes) -> None:
        if not self._over:
            self.bytes_sent += len(data)
            self.stream.write(data, True)
            self._waiting += len(data)
            if self.stream.writable:
                self.resume_writing()

    def resume_writing(self) -> None:
        # What was taken may come again; until then nobody reads the socket.
        count, self._waiting = self._waiting, 0
        if count and not self._over:
            self.stream.consumed(count)

    def eof_received(self, trailers: Headers | None = None) -> None:
        self._finish()

    def half_closed(self) -> None: ...

    def stream_lost(self, exc: Exception | None) -> None:
        self.broken = not self._over
        self._complete()

    def _finish(self) -> None:
        if not self._over:
            self.stream.write(b"", False)
            self._complete()

    def _complete(self) -> None:
        if not self._over:
            self._over = True
            self.service.on_drain.discard(self._finish)
            self.service.completed(self)


plugin = Plugin(name="{name}", api=({major}, {minor}), upgrades=(Upgrade(token=b"{name}", open={class_}),))
'''
SWITCH = '''\
"""{name}: a wire that takes over a connection of HTTP/1.1, and repeats what comes in capital letters."""

import asyncio

from pounce.plugin import Connection, Plugin, RequestHead, Service, Switch


class {class_}(Connection):
    """A connection, from the 101 on; it answers the request that asked for it, too."""

    def __init__(self, service: Service, head: RequestHead) -> None:
        super().__init__(service, "{name}")
        self.head = head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(self.head.target + b"\\n")

    def data_received(self, data: bytes) -> None:
        self.send(data.upper())

    def pause_writing(self) -> None:
        super().pause_writing()
        self.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resume_reading()

    def eof_received(self) -> bool:
        self.close()
        return True


plugin = Plugin(name="{name}", api=({major}, {minor}), switches=(Switch(token=b"{name}", connect={class_}),))
'''
TUNNEL_TEST = '''\
import socket
from typing import Any

from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import TestServer

from {module} import plugin

REQUEST = b"GET /a HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: {name}\\r\\n\\r\\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the request is for somebody else")


def test_it_is_opened_and_answers() -> None:
    with (
        TestServer(app, registry=Registry.of(h1, plugin), lifespan="off") as server,
        socket.create_connection((server.host, server.port), timeout=60) as client,
    ):
        client.sendall(REQUEST + b"hello")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"{expected}")
'''

PARSER = '''\
"""{name}, a reader of HTTP/1.1, used where the setting http_parser names it. It begins as the server's own does.

A parser checks syntax; where a message ends is judged by pounce.h1.framing, for all parsers.
"""

from pounce.h1.h11_parser import H11Parser
from pounce.plugin import EndOfBody, ParserChoice, Plugin, RequestHead


class {class_}Parser(H11Parser):
    """The reader of one connection."""

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        return super().next_event()


plugin = Plugin(
    name="{name}",
    api=({major}, {minor}),
    parsers=(ParserChoice(name="{name}", priority=-1, create={class_}Parser),),
)
'''
PARSER_TEST = '''\
from pounce.testing import check_parser

from {module} import plugin


def test_the_parser_keeps_the_contract() -> None:
    assert check_parser(plugin.parsers[0].create) > 100
'''

COMMAND = '''\
"""{name}: a command, pounce {name}."""

from collections.abc import Callable
from typing import Any

from pounce.plugin import Command, Plugin


def load() -> Callable[..., Any]:
    # It is imported when it is called, so that no other command waits for it.
    from {module}.command import greet

    return greet


plugin = Plugin(name="{name}", api=({major}, {minor}), commands=(Command(name="{name}", load=load),))
'''
GREET = '''\
"""What pounce {name} does."""


def greet(name: str = "World", *, loud: bool = False) -> None:
    """Greet somebody."""
    print(f"Hello, {{name}}{{'!' if loud else '.'}}")
'''
COMMAND_TEST = '''\
import pytest

from {module} import plugin


def test_the_command_greets(capsys: pytest.CaptureFixture[str]) -> None:
    plugin.commands[0].load()("Ada", loud=True)
    assert capsys.readouterr().out == "Hello, Ada!\\n"
'''

SOURCES = {"datagram": DATAGRAM, "upgrade": UPGRADE, "switch": SWITCH, "parser": PARSER, "command": COMMAND}
TESTS = {
    "datagram": DATAGRAM_TEST,
    "upgrade": TUNNEL_TEST.replace("{expected}", "hello"),
    "switch": TUNNEL_TEST.replace("{expected}", "/a\\nHELLO"),
    "parser": PARSER_TEST,
    "command": COMMAND_TEST,
}
FILES = {"command": {"src/{module}/command.py": GREET}}
"""What a kind has beyond those that all have."""
