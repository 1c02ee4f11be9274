"""What must never happen over QUIC."""

import asyncio
import gc
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from qh3.quic.tls_bridge import QuicTlsBridge
from tests.clock import HeldLoop
from tests.conformance.client import PATIENCE
from tests.conformance.h3 import H3Client, H3Request, literal_section
from tests.conformance.wires import Started, answer

from pounce import ConfigError
from pounce.exchange.http import HttpExchange
from pounce.registry import Registry
from pounce_h3 import ids
from pounce_h3.codes import H3_EXCESSIVE_LOAD
from pounce_h3.connection import H3Connection
from pounce_h3.frames import frame, varint
from pounce_h3.ids import ID_LENGTH, TOKEN_LIFETIME, Keys
from pounce_h3.output import Output
from pounce_h3.packets import INITIAL, destination, long_header
from pounce_h3.plugin import plugin
from pounce_h3.qh3_engine import Qh3Connection, Quic
from pounce_h3.qpack import Qpack
from pounce_h3.stream import H3Stream
from pounce_h3.streams import RESETS_MAX, Streams

from .endpoints import SECRET, all_endpoints, endpoint_of, endpoints_of, keys_of
from .forged import initial_packet

Start = Callable[..., Started]
HERE = ("127.0.0.1", 8443)
KEYS = Keys(SECRET.encode(), HERE)
ALONE = 256
"""The number of a worker that has no siblings."""
RETRY = 3
PROTOCOL_VIOLATION = 0xA


class App:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await answer(send, str(scope["client"]).encode())


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A socket that nobody knows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.3)
        yield sock


def connect(server: Started, **settings: Any) -> H3Client:
    return H3Client(server.server.host, server.server.port, server.certificate.certfile, **settings)


def address_of(server: Started) -> tuple[str, int]:
    return (server.server.host, server.server.port)


def replies(sock: socket.socket) -> list[bytes]:
    """All that comes until it is quiet."""
    found: list[bytes] = []
    try:
        while True:
            found.append(sock.recv(65536))
    except TimeoutError:
        return found


# Forged packets


REQUEST = frame(
    1,
    literal_section(
        [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"example.org"), (b":path", b"/transfer")]
    ),
)
STREAM_FRAME = b"\x0b" + varint(0) + varint(len(REQUEST)) + REQUEST


def test_request_in_a_forged_initial_never_reaches_an_application(
    start: Start, app: App, stranger: socket.socket
) -> None:
    server = start(app)
    stranger.sendto(initial_packet(STREAM_FRAME, destination=os.urandom(8)), address_of(server))
    assert replies(stranger)
    assert app.calls == 0


def test_forged_initial_with_the_name_of_a_connection_does_it_no_harm(
    start: Start, app: App, stranger: socket.socket
) -> None:
    server = start(app)
    with connect(server) as client:
        name = client.quic._core and next(iter(endpoint_of(server)._open)).ids
        assert name
        for connection_id in tuple(name):
            for payload in (b"\x1c\0\0\0", b"\x1d\0\0", STREAM_FRAME):
                stranger.sendto(initial_packet(payload, destination=connection_id), address_of(server))
        assert client.request("GET", "/").body == str(client.address).encode()


@pytest.mark.parametrize("size", [0, 1, 5, 6, 7, 20, 21, 1199])
def test_garbage_is_ignored(start: Start, app: App, stranger: socket.socket, size: int) -> None:
    server = start(app)
    noise = random.Random(size)
    for first in (0x00, 0x40, 0x80, 0xC0, 0xFF):
        stranger.sendto((bytes((first,)) + noise.randbytes(1500))[:size], address_of(server))
    replies(stranger)
    with connect(server) as client:
        assert client.request("GET", "/").status == 200


def test_garbage_in_a_known_connection_is_ignored(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    with connect(server) as client:
        for connection_id in tuple(next(iter(endpoint_of(server)._open)).ids):
            stranger.sendto(b"\x40" + connection_id + os.urandom(100), address_of(server))
        assert client.request("GET", "/").body == str(client.address).encode()


# Amplification (RFC 9000 8.1)


def test_no_more_than_three_times_of_what_came_is_sent_before_the_address_is_proved(
    start: Start, app: App, stranger: socket.socket
) -> None:
    from qh3.quic.configuration import QuicConfiguration
    from qh3.quic.connection import QuicConnection

    server = start(app, tls_handshake_timeout=3)
    quic = QuicConnection(
        configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
    )
    quic.connect(address_of(server), time.monotonic())
    sent = 0
    for data, _ in quic.datagrams_to_send(time.monotonic()):
        sent += stranger.sendto(data, address_of(server))
    stranger.settimeout(1.0)
    received = sum(map(len, replies(stranger)))
    assert 0 < received <= 3 * sent


def test_small_initial_is_not_answered(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    stranger.sendto(initial_packet(b"\x01", destination=os.urandom(8), size=1199), address_of(server))
    assert replies(stranger) == []


def test_short_name_is_not_answered(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    stranger.sendto(initial_packet(b"\x01", destination=b"1234567"), address_of(server))
    assert replies(stranger) == []


# Versions (RFC 9000 6)


def test_unknown_version_is_told_those_we_speak(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    stranger.sendto(b"\xc0\x0a\x1a\x2a\x3a\x0812345678\x0487ab" + bytes(1200), address_of(server))
    [reply] = replies(stranger)
    assert reply[1:5] == bytes(4)
    versions = b"\0\0\0\x01" + b"\x6b\x33\x43\xcf" + b"\x1a\x2a\x3a\x4a"
    assert reply[5:] == b"\x0487ab\x0812345678" + versions


@pytest.mark.parametrize("asked", [b"\x0a\x1a\x2a\x3a", b"\x1a\x2a\x3a\x4a", b"\x5a\x6a\x7a\x8a"])
def test_the_version_that_was_asked_for_is_not_in_the_list(
    start: Start, app: App, stranger: socket.socket, asked: bytes
) -> None:
    server = start(app)
    stranger.sendto(b"\xc0" + asked + b"\x0812345678\x0487ab" + bytes(1200), address_of(server))
    [reply] = replies(stranger)
    assert asked not in reply


def test_small_packet_of_an_unknown_version_is_not_answered(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    stranger.sendto(b"\xc0\x0a\x1a\x2a\x3a\x0812345678\x0487ab" + bytes(1000), address_of(server))
    assert replies(stranger) == []


# Retry (RFC 9000 8.1.2)


def test_client_proves_its_address_when_many_handshakes_are_unfinished(start: Start, app: App) -> None:
    with connect(start(app, http3_retry_above=0)) as client:
        assert client.quic._retry_count == 1
        assert client.request("GET", "/").status == 200


def test_client_need_not_prove_its_address_otherwise(start: Start, app: App) -> None:
    with connect(start(app)) as client:
        assert client.quic._retry_count == 0


def test_retry_keeps_no_memory(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, http3_retry_above=0)
    for _ in range(50):
        stranger.sendto(initial_packet(b"\x01", destination=os.urandom(8)), address_of(server))
    headers = [long_header(reply) for reply in replies(stranger)]
    assert {header.kind for header in headers if header} == {RETRY}
    assert endpoint_of(server)._connections == {}


def test_unfinished_handshakes_are_counted(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, http3_retry_above=5)
    for n in range(10):
        stranger.sendto(initial_packet(b"\x06\0\x04\x01\0\0\xff", destination=b"name%04d" % n), address_of(server))
    replies(stranger)
    assert len(endpoint_of(server)._open) == 5


def test_unfinished_handshake_is_forgotten_in_time(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, tls_handshake_timeout=0.5)
    stranger.sendto(initial_packet(b"\x06\0\x04\x01\0\0\xff", destination=b"12345678"), address_of(server))
    endpoint = endpoint_of(server)
    with connect(server) as client:
        client.wait_until(lambda: len(endpoint._open) == 1)
        assert client.request("GET", "/").status == 200


def test_token_of_another_address_is_not_believed(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, http3_retry_above=0, plugin_settings={"h3": {"secret": SECRET}})
    token = KEYS.retry_token(("127.0.0.1", 1), b"original", b"retry-id")
    stranger.sendto(initial_packet(b"\x01", destination=b"retry-id", token=token), address_of(server))
    [reply] = replies(stranger)
    header = long_header(reply)
    assert header is not None and header.kind == RETRY


def test_right_token_is_believed(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, http3_retry_above=0, plugin_settings={"h3": {"secret": SECRET}})
    token = KEYS.retry_token(stranger.getsockname(), b"original", b"retry-id")
    stranger.sendto(initial_packet(b"\x06\0\x04\x01\0\0\xff", destination=b"retry-id", token=token), address_of(server))
    headers = [long_header(reply) for reply in replies(stranger)]
    assert {header.kind for header in headers if header} == {INITIAL}


HOME = ("127.0.0.1", 4433)


def test_token_gives_back_the_original_name() -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    assert KEYS.check_retry_token(HOME, token, b"retry-id") == b"original"


@pytest.mark.parametrize("address", [("127.0.0.2", 4433), ("127.0.0.1", 4434), ("::1", 4433, 0, 0)])
def test_token_is_bound_to_its_address(address: tuple[Any, ...]) -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    assert KEYS.check_retry_token(address, token, b"retry-id") is None


def test_token_is_bound_to_its_name() -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    assert KEYS.check_retry_token(HOME, token, b"other-id") is None


def test_token_is_bound_to_the_secret() -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    assert Keys(b"another secret, as long", HERE).check_retry_token(HOME, token, b"retry-id") is None


def test_changed_token_is_not_believed() -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    for at in range(len(token)):
        changed = bytearray(token)
        changed[at] ^= 1
        assert KEYS.check_retry_token(HOME, bytes(changed), b"retry-id") is None


def test_every_beginning_of_a_token_is_not_believed() -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    assert {KEYS.check_retry_token(HOME, token[:at], b"retry-id") for at in range(len(token))} == {None}


def test_token_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    token = KEYS.retry_token(HOME, b"original", b"retry-id")
    later = time.time() + TOKEN_LIFETIME + 2
    monkeypatch.setattr(ids.time, "time", lambda: later)
    assert KEYS.check_retry_token(HOME, token, b"retry-id") is None


@pytest.mark.parametrize("secret", ["short", 5])
def test_bad_secret_is_refused_and_not_repeated(secret: Any) -> None:
    with pytest.raises(ConfigError, match=r"h3\.secret") as caught:
        Registry.of(plugin).settings({"h3": {"secret": secret}})
    assert repr(secret) not in str(caught.value)


# Stateless reset (RFC 9000 10.3)


def test_packet_of_a_forgotten_connection_is_answered_by_a_reset(
    start: Start, app: App, stranger: socket.socket
) -> None:
    server = start(app, plugin_settings={"h3": {"secret": SECRET}})
    name = keys_of(server).new_id(ALONE)
    stranger.sendto(b"\x40" + name + os.urandom(91), address_of(server))
    [reply] = replies(stranger)
    assert reply[-16:] == keys_of(server).reset_token(name)
    assert reply[0] & 0xC0 == 0x40


def test_another_address_of_the_server_does_not_give_away_how_to_end_a_connection(
    start: Start, app: App, stranger: socket.socket
) -> None:
    """RFC 9000 21.11: the token of a connection that lives is nobody's but its client's."""
    server = start(app, bind=["127.0.0.1:0", "127.0.0.1:0"])
    home = endpoint_of(server)
    [other] = [each for each in all_endpoints() if each._service is home._service and each is not home]
    with connect(server) as client:
        [connection] = home._open
        names = [name for name in connection.ids if home._keys.worker_of(name) == home._worker]
        assert names
        for name in names:
            stranger.sendto(b"\x40" + name + os.urandom(91), other.local)
        assert {reply[-16:] for reply in replies(stranger)}.isdisjoint(map(home._keys.reset_token, names))
        assert client.request("GET", "/").status == 200


@pytest.mark.parametrize("size", [22, 25, 40, 100])
def test_reset_is_smaller_than_what_it_answers(start: Start, app: App, stranger: socket.socket, size: int) -> None:
    server = start(app, plugin_settings={"h3": {"secret": SECRET}})
    stranger.sendto((b"\x40" + keys_of(server).new_id(ALONE) + os.urandom(100))[:size], address_of(server))
    [reply] = replies(stranger)
    assert 21 <= len(reply) < size


def test_client_of_a_restarted_server_learns_that_its_connection_is_gone(start: Start, app: App) -> None:
    settings: dict[str, Any] = {"plugin_settings": {"h3": {"secret": SECRET}}}
    first = start(app, **settings)
    client = connect(first)
    # As if it were killed: nobody tells the client.
    endpoint = endpoint_of(first)
    endpoint._transport.send_many = lambda *args: None  # type: ignore[attr-defined]
    port = first.server.port
    first.stop()
    start(app, port=port, **settings)
    client.open("GET", "/")
    client.wait_until(lambda: client.quic._core is not None and client.quic._core.state == "terminated")
    client.sock.close()


# Bounds


def test_connections_above_the_limit_are_dropped(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, http3_max_connections=1)
    with connect(server) as client:
        stranger.sendto(initial_packet(b"\x06\0\x04\x01\0\0\xff", destination=os.urandom(8)), address_of(server))
        assert replies(stranger) == []
        assert client.request("GET", "/").status == 200


def test_max_connections_counts_these_too(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, max_connections=1)
    with connect(server):
        stranger.sendto(initial_packet(b"\x06\0\x04\x01\0\0\xff", destination=os.urandom(8)), address_of(server))
        assert replies(stranger) == []


def test_place_of_a_connection_that_ended_is_free_again(start: Start, app: App) -> None:
    server = start(app, http3_max_connections=1)
    for _ in range(3):
        with connect(server) as client:
            assert client.request("GET", "/").status == 200
        endpoint = endpoint_of(server)
        deadline = time.monotonic() + PATIENCE
        while endpoint._open and time.monotonic() < deadline:
            time.sleep(0.01)


def test_silent_connection_is_forgotten_though_no_packet_comes(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = cast(HeldLoop, asyncio.get_running_loop())
        if scope["path"] == "/8":
            await loop.advance(8.0)
        await answer(send)
        if scope["path"] == "/11":
            # Once the answer has left: what is sent at the new time is no silence.
            await loop.advance(0.0)
            await loop.advance(11.0)

    server = start(app, loop="tests.clock:HeldLoop", http3_idle_timeout=10.0)
    client = connect(server)
    endpoint = endpoint_of(server)
    # The client is not asked for its time, and so does not say that it goes.
    with closing(client.sock):
        assert client.request("GET", "/8").status == 200
        assert client.request("GET", "/8").status == 200
        assert len(endpoint._open) == 1
        client.request("GET", "/11")
        deadline = time.monotonic() + PATIENCE
        while endpoint._open and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (endpoint._open, endpoint._connections) == (set(), {})


def test_streams_of_a_connection_are_bounded(start: Start, app: App) -> None:
    with connect(start(app)) as client:
        assert client.quic.max_concurrent_bidi_streams == 100


def give_up(request: H3Request) -> None:
    request.abort()


def make_it_malformed(request: H3Request) -> None:
    """More than the one byte that was announced."""
    request.send_raw(frame(0, b"xx"), end=True)


@pytest.mark.parametrize("end", [give_up, make_it_malformed])
def test_requests_that_end_unanswered_again_and_again_end_the_connection(
    start: Start, end: Callable[[H3Request], None]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    with connect(start(app)) as client:
        quic = client.quic
        for _ in range(2 * RESETS_MAX):
            client.wait_until(
                lambda: client.terminated or quic.get_next_available_stream_id() // 4 < quic.max_concurrent_bidi_streams
            )
            if client.terminated is not None:
                break
            end(client.open("POST", "/", [(b"content-length", b"1")], body=True))
        assert client.close_code() == H3_EXCESSIVE_LOAD


def test_uploads_that_are_given_up_when_they_are_answered_are_no_abuse(start: Start, app: App) -> None:
    with connect(start(app)) as client:
        quic = client.quic
        for _ in range(2 * RESETS_MAX):
            client.wait_until(lambda: quic.get_next_available_stream_id() // 4 < quic.max_concurrent_bidi_streams)
            request = client.open("POST", "/", body=True)
            assert request.response().status == 200
            # RFC 9114 4.1: so it is asked to.
            if quic._stream_can_send(request.id):
                quic.reset_stream(request.id, 0x10C)
            client.flush()
        assert client.request("GET", "/").status == 200


def test_request_that_is_given_up_at_once_never_reaches_an_application(start: Start, app: App) -> None:
    server = start(app)
    with connect(server) as client:
        stream_id = client.quic.get_next_available_stream_id()
        client.quic.send_stream_data(stream_id, REQUEST)
        packets = client.quic.datagrams_to_send(time.monotonic())
        client.quic.reset_stream(stream_id, 0x10C)
        packets += client.quic.datagrams_to_send(time.monotonic())
        # Both are there when the server looks.
        endpoint = endpoint_of(server)
        endpoint._service.loop.call_soon_threadsafe(
            endpoint.datagrams_received, [(data, client.address) for data, _ in packets]
        )
        assert client.request("GET", "/").status == 200
    assert app.calls == 1


def test_finished_requests_leave_nothing_behind(start: Start, app: App) -> None:
    server = start(app)
    with connect(server) as client:
        for _ in range(300):
            client.request("GET", "/")
        [connection] = endpoint_of(server)._open
        streams, output = connection.streams, connection.output
        assert (streams.open, output.waiting, output._queue) == ({}, set(), set())
        assert (streams.windows.held, streams.unwanted) == (0, set())


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is in a cycle of references stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count(*kinds: type) -> int:
    return sum(type(item) in kinds for item in gc.get_objects())


def bridges() -> int:
    """How many servers' ends of a TLS handshake there are."""
    return sum(type(item) is QuicTlsBridge and not item.configuration.is_client for item in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
def test_finished_requests_leave_nothing_to_the_collector(start: Start, app: App) -> None:
    with connect(start(app)) as client:
        before = count(H3Stream, HttpExchange)
        for _ in range(20):
            client.request("GET", "/")
            client.request("POST", "/", body=b"x")
        # The thread of the server lets go of the last when its loop turns.
        deadline = time.monotonic() + 60
        while count(H3Stream, HttpExchange) > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert count(H3Stream, HttpExchange) <= before


@pytest.mark.usefixtures("no_collector")
def test_ended_connections_leave_nothing_behind(start: Start, app: App) -> None:
    server = start(app)
    ours = (H3Connection, Output, Streams, H3Stream, HttpExchange, Quic, Qh3Connection, Qpack)
    before = count(*ours), bridges()
    for _ in range(20):
        with connect(server) as client:
            client.request("GET", "/")
    endpoint = endpoint_of(server)
    deadline = time.monotonic() + 60
    # The thread of the server lets go of them when its loop turns.
    while (endpoint._connections or (count(*ours), bridges()) != before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (endpoint._connections, endpoint._open, endpoint._unvalidated) == ({}, set(), set())
    assert (count(*ours), bridges()) == before


# Migration (RFC 9000 9)


def test_download_survives_a_change_of_address(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await answer(send, b"x" * 4_000_000)
        else:
            await answer(send, str(scope["client"]).encode())

    with connect(start(app)) as client:
        request = client.open("GET", "/")
        received = len(request.read_piece())
        before = client.address
        client.move()
        while piece := request.read_piece():
            received += len(piece)
        assert received == 4_000_000
        assert client.address != before
        assert client.request("GET", "/who").body == str(client.address).encode()


def test_copied_packets_do_not_move_a_connection(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app)
    with connect(server) as client:
        client.open("GET", "/")
        for _ in range(5):
            client.quic.send_ping(1)
            for data, _ in client.quic.datagrams_to_send(time.monotonic()):
                # The copy is the first to arrive.
                stranger.sendto(data, address_of(server))
                client.sock.send(data)
        assert client.request("GET", "/").body == str(client.address).encode()


# Connection ids


@pytest.mark.parametrize("worker", [0, ALONE, 2**24 - 1])
def test_connection_id_says_who_has_the_connection(worker: int) -> None:
    name = KEYS.new_id(worker)
    assert (len(name), KEYS.worker_of(name)) == (ID_LENGTH, worker)


def test_connection_id_says_nothing_to_others() -> None:
    names = [KEYS.new_id(ALONE) for _ in range(100)]
    # One in 256 may pass for one of theirs; that all name the same worker is out of the question.
    found = Counter(Keys(b"another secret, as long", HERE).worker_of(name) for name in names)
    assert found[ALONE] == 0
    assert found[None] > 80
    assert len({name[4:] for name in names}) > 90


def test_packet_that_names_nobody_is_not_answered(start: Start, app: App, stranger: socket.socket) -> None:
    server = start(app, plugin_settings={"h3": {"secret": SECRET}})
    name = keys_of(server).new_id(ALONE)
    stranger.sendto(b"\x40" + name[:7] + bytes((name[7] ^ 1,)) + os.urandom(91), address_of(server))
    assert replies(stranger) == []


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("named", [True, False], ids=["by its first name", "by another name"])
def test_packet_on_the_wrong_socket_reaches_its_worker(start: Start, app: App, workers: int, named: bool) -> None:
    server = start(app, workers=workers)
    with connect(server) as client:
        endpoints = endpoints_of(server)
        assert len(endpoints) == workers
        [owner] = [item for item in endpoints if item._open]
        if not named:
            client.request("GET", "/")
            client.quic.change_connection_id()
        other = next(item for item in endpoints if item is not owner)
        stream_id = client.quic.get_next_available_stream_id()
        request = client.later(stream_id, "/", send=False)
        for data, _ in client.quic.datagrams_to_send(time.monotonic()):
            other._service.loop.call_soon_threadsafe(other.datagrams_received, [(data, client.address)])
        assert request.response().body == str(client.address).encode()


def test_packets_are_told_apart_by_their_connection_id() -> None:
    assert destination(b"\x4012345678rest") == b"12345678"
    assert destination(b"\xc0\0\0\0\x01\x0412345678rest") == b"1234"
    assert destination(b"") == b""
