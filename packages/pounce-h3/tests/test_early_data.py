"""Requests in early data (0-RTT; RFC 8470), off by default."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.clients.ordinary import run_client
from tests.conformance.client import PATIENCE
from tests.conformance.h3 import H3Client, H3Request
from tests.conformance.wires import Started, answer, read_body

from pounce.config import ServerConfig
from pounce.net.tls import ServerTLS
from pounce_h3.engine import Connected, EarlyData, StreamData
from pounce_h3.qh3_engine import Qh3Engine
from pounce_h3.tickets import Tickets

from .test_engine import Pair

Start = Callable[..., Started]


async def site(scope: Any, receive: Any, send: Any) -> None:
    """What the application sees."""
    body = await read_body(receive)
    seen = {name: scope["extensions"][f"pounce.h3.{name}"] for name in ("stream_id", "is_0rtt")}
    await answer(send, json.dumps(seen | {"method": scope["method"], "body": body.decode()}).encode())


class EarlyClient(H3Client):
    """Sends requests before it has heard from the server."""

    def __init__(self, server: Started, ticket: Any, *asked: tuple[str, bytes]) -> None:
        self.early: list[H3Request] = []
        self._asked = asked
        where = server.server.host, server.server.port, server.certificate.certfile
        super().__init__(*where, session_ticket=ticket)

    def wait_until(self, true: Callable[[], object], patience: float = PATIENCE) -> None:
        asked, self._asked = self._asked, ()
        for method, body in asked:
            request = self.open(method, "/", body=bool(body))
            if body:
                self.h3.send_data(request.id, body, True)
            self.early.append(request)
        super().wait_until(true, patience)


def ticket_of(server: Started) -> Any:
    with server.connect() as client:
        assert isinstance(client, H3Client)
        client.wait_until(lambda: client.tickets)
        return client.tickets[0]


def seen(request: H3Request) -> Any:
    return json.loads(request.response().body)


def test_safe_request_is_served_and_marked(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True)
    with EarlyClient(server, ticket_of(server), ("GET", b"")) as client:
        assert seen(client.early[0]) == {"stream_id": 0, "is_0rtt": True, "method": "GET", "body": ""}
        assert json.loads(client.request("POST", "/", body=b"x").body) == {
            "stream_id": 4, "is_0rtt": False, "method": "POST", "body": "x",
        }  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FROB"])
def test_request_that_is_not_safe_is_425_and_never_reaches_the_application(start: Start, method: str) -> None:
    server = start(site, http3_zero_rtt_enabled=True)
    with EarlyClient(server, ticket_of(server), (method, b"body"), ("HEAD", b"")) as client:
        refused, head = (request.response() for request in client.early)
        assert (refused.status, refused.headers[b"x-pounce-error-code"]) == (425, b"POUNCE_TOO_EARLY")
        assert head.status == 200
        # The client does as it is told, and asks again.
        assert client.request(method, "/", body=b"body").status == 200


def test_websocket_is_not_opened_early(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True)

    class Client(EarlyClient):
        def open(self, method: str, path: str, headers: Any = (), **more: Any) -> H3Request:
            return super().open(method, path, headers, pseudo=[(b":protocol", b"websocket")], body=True)

    with Client(server, ticket_of(server), ("CONNECT", b"")) as client:
        assert client.early[0].read_head().status == 425


def test_ticket_is_good_for_one_connection(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True)
    ticket = ticket_of(server)
    marks = []
    for _ in range(2):
        with EarlyClient(server, ticket, ("GET", b"")) as client:
            marks.append(seen(client.early[0])["is_0rtt"])
    # A client whose early data was not taken sends it again.
    assert marks == [True, False]


def test_ticket_is_good_on_every_worker(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True, workers=3)
    tickets = [ticket_of(server) for _ in range(6)]
    for ticket in tickets:
        with EarlyClient(server, ticket, ("GET", b"")) as client:
            assert seen(client.early[0])["is_0rtt"] is True


def test_client_comes_back_without_early_data_by_default(start: Start) -> None:
    server = start(site)
    ticket = ticket_of(server)
    assert ticket.max_early_data_size is None
    with EarlyClient(server, ticket, ("GET", b"")) as client:
        assert seen(client.early[0])["is_0rtt"] is False
        assert client.quic.tls is not None and client.quic.tls.session_resumed


def test_client_that_proves_its_address_first_may_be_early_too(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True, http3_retry_above=0)
    with EarlyClient(server, ticket_of(server), ("GET", b"")) as client:
        assert client.early[0].response().status == 200
        assert client.quic._retry_count == 1


def test_aioquic_comes_back_early(start: Start) -> None:
    server = start(site, http3_zero_rtt_enabled=True)
    where = {"host": server.server.host, "port": server.server.port, "ca": server.certificate.certfile}
    early = [["GET", "/"], ["POST", "/", 10]]
    report = run_client("aioquic_client", **where, steps=[["ask", "GET", "/"]], early=early)
    assert (report["early_data_accepted"], report["session_resumed"]) == (True, True)
    assert [answer["status"] for answer in report["early"]] == [[200], [425]]
    assert json.loads(report["early"][0]["text"])["is_0rtt"] is True


# The engine


@pytest.fixture
def engine(tls_files: tuple[str, str]) -> Qh3Engine:
    config = ServerConfig(ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_zero_rtt_enabled=True)
    return Qh3Engine(config, ServerTLS(config, []))


def ticket_from(engine: Qh3Engine, **client: Any) -> Any:
    pair = Pair(engine, **client)
    pair.connect()
    [ticket] = pair.tickets
    return ticket


def test_early_data_comes_before_the_handshake_is_complete(engine: Qh3Engine) -> None:
    pair = Pair(engine, session_ticket=ticket_from(engine))
    pair.client.send_stream_data(0, b"early")
    pair.quiet()
    kinds = [type(event) for event in pair.seen if isinstance(event, EarlyData | StreamData)]
    assert kinds == [EarlyData, StreamData, Connected]


def test_ticket_of_another_name_is_not_taken(engine: Qh3Engine) -> None:
    ticket = ticket_from(engine, server_name="one.example")
    ticket.server_name = "two.example"
    pair = Pair(engine, session_ticket=ticket, server_name="two.example")
    pair.client.send_stream_data(0, b"early")
    pair.quiet()
    kinds = [type(event) for event in pair.seen if isinstance(event, EarlyData | StreamData)]
    assert kinds == [Connected, StreamData]


def test_ticket_of_a_handshake_that_was_never_complete_is_none(engine: Qh3Engine) -> None:
    pair = Pair(engine)
    pair.now += 0.01
    pair.up()
    pair.down()
    # The client has its ticket already, but the server has not heard that it is there.
    again = Pair(engine, session_ticket=pair.tickets[0])
    again.client.send_stream_data(0, b"early")
    again.quiet()
    assert not any(type(event) is EarlyData for event in again.seen)


@pytest.mark.parametrize("takes_early_data", [True, False])
def test_early_data_is_taken_only_where_it_is_asked_for_whatever_the_client_believes(
    tls_files: tuple[str, str], takes_early_data: bool
) -> None:
    config = ServerConfig(ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], http3_zero_rtt_enabled=takes_early_data)
    engine = Qh3Engine(config, ServerTLS(config, []))
    ticket = ticket_from(engine)
    ticket.max_early_data_size = 0xFFFFFFFF
    pair = Pair(engine, session_ticket=ticket)
    pair.client.send_stream_data(0, b"early")
    pair.quiet()
    kinds = [type(event) for event in pair.seen if isinstance(event, EarlyData | StreamData)]
    assert kinds == ([EarlyData, StreamData, Connected] if takes_early_data else [Connected, StreamData])


# The tickets


def test_ticket_is_taken_once() -> None:
    tickets: Tickets[str] = Tickets()
    tickets.add(b"a", "session")
    assert [tickets.take(b"a"), tickets.take(b"a"), tickets.take(b"b")] == ["session", None, None]


def test_oldest_ticket_goes_when_there_are_too_many() -> None:
    tickets: Tickets[int] = Tickets(3)
    for number in range(5):
        tickets.add(b"%d" % number, number)
    assert [tickets.take(b"%d" % number) for number in range(5)] == [None, None, 2, 3, 4]


def test_ticket_is_taken_by_one_of_many_threads() -> None:
    tickets: Tickets[int] = Tickets()
    for number in range(1000):
        tickets.add(b"%d" % number, number)
    together = threading.Barrier(4)
    found: list[list[int]] = [[] for _ in range(4)]

    def take(mine: list[int]) -> None:
        together.wait()
        mine += [number for number in range(1000) if tickets.take(b"%d" % number) is not None]

    threads = [threading.Thread(target=take, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for mine in found for number in mine) == list(range(1000))
