"""The engine qh3 behind its seam, in memory and with a clock of the test."""

import os
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived

from pounce.config import ServerConfig
from pounce.net.tls import ServerTLS
from pounce_h3.engine import Connected, Initial
from pounce_h3.ids import new_id
from pounce_h3.qh3_engine import Qh3Engine

SERVER, CLIENT = ("192.0.2.2", 443), ("192.0.2.1", 50000)


class Pair:
    """A client and a server; `turn()` carries what each has to say to the other."""

    def __init__(self, engine: Qh3Engine, **client: Any) -> None:
        configuration = QuicConfiguration(
            alpn_protocols=["h3"], **({"server_name": "localhost", "verify_mode": ssl.CERT_NONE} | client)
        )
        self.now = 1.0
        self.tickets: list[Any] = []
        self.client = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.client.connect(SERVER, self.now)
        name = new_id(0, 0)
        original = self.client.original_destination_connection_id
        self.server = engine.accept(Initial(name, self.client.host_cid, original, None, os.urandom(16)))
        self.seen: list[Any] = []
        """What the server was told."""

    def up(self) -> int:
        """Carry what the client has to say; how many datagrams."""
        datagrams = [data for data, _ in self.client.datagrams_to_send(self.now)]
        if datagrams:
            self.server.receive(datagrams, CLIENT, self.now)
            self.seen += self.server.events()
        return len(datagrams)

    def down(self) -> list[QuicEvent]:
        """Carry what the server has to say, in one go; what that tells the client."""
        for data, _ in self.server.datagrams_to_send(self.now):
            self.client.receive_datagram(data, SERVER, self.now)
        found = []
        while (event := self.client.next_event()) is not None:
            found.append(event)
        return found

    def connect(self) -> None:
        self.quiet()
        assert any(isinstance(event, Connected) for event in self.seen)

    def quiet(self) -> None:
        """Carry until nobody has anything to say."""
        for _ in range(5):
            self.now += 0.1
            self.up()
            self.down()


@pytest.fixture
def engine(tls_files: tuple[str, str]) -> Qh3Engine:
    config = ServerConfig(ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1])
    return Qh3Engine(config, ServerTLS(config, []))


@pytest.fixture
def pair(engine: Qh3Engine) -> Pair:
    made = Pair(engine)
    made.connect()
    return made


@pytest.mark.parametrize("order", ["answer first", "answer last"])
def test_end_of_an_answer_does_not_wait_behind_the_request_to_stop(pair: Pair, order: str) -> None:
    pair.client.send_stream_data(0, b"half an upload")
    pair.up()
    calls: list[Callable[[], None]] = [
        lambda: pair.server.write(0, b"answer", True),
        lambda: pair.server.stop(0, 0x100),
    ]
    for call in calls if order == "answer first" else reversed(calls):
        call()
    told = pair.down()
    assert [event.error_code for event in told if isinstance(event, StopSendingReceived)] == [0x100]
    [data] = [event for event in told if isinstance(event, StreamDataReceived)]
    assert (data.data, data.end_stream) == (b"answer", True)


def test_stream_that_has_ended_can_be_stopped(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"whole", True)
    pair.up()
    pair.server.stop(0, 0x100)
    pair.server.write(0, b"answer", True)
    [data] = [event for event in pair.down() if isinstance(event, StreamDataReceived)]
    assert (data.data, data.end_stream) == (b"answer", True)
