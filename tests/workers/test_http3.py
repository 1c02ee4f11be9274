"""HTTP/3 over everything that happens to a server: its connections stay with the process that has them."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.h3 import H3Client
from tests.workers.h3_checking_client import H3CheckingClient
from tests.workers.running import APP, Running, children_of, eventually

MODES = ("thread", "process")
"""No QUIC implementation can be loaded in a subinterpreter."""
PIECES = 150
PIECE = 10_000
MOVES = 3
"""qh3 follows a connection no further."""

TRANSFERS = APP.replace(
    '    elif path == "/block":',
    f"""    elif path == "/download":
        await send({{"type": "http.response.start", "status": 200, "headers": [(b"pid", b"%d" % os.getpid())]}})
        for _ in range({PIECES}):
            await send({{"type": "http.response.body", "body": b"x" * {PIECE}, "more_body": True}})
            await asyncio.sleep(0.005)
        await send({{"type": "http.response.body"}})
        return
    elif path == "/upload":
        query = 0
        while True:
            message = await receive()
            query += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    elif path == "/block":""",
)


def http3_server(folder: Path, tls_files: tuple[str, str], mode: str, *flags: str, workers: int = 2) -> Running:
    tls = ("--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    number = ("--workers", str(workers), "--worker-mode", mode, "--shutdown-timeout", "60")
    return Running(folder, *number, "--http3", *tls, *flags, app=TRANSFERS)


@pytest.fixture
def start(tmp_path: Path, tls_files: tuple[str, str]) -> Callable[..., Running]:
    return lambda mode, *flags: http3_server(tmp_path, tls_files, mode, *flags)


Start = Callable[..., Running]


@pytest.fixture(scope="module", params=MODES)
def four(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tls_files: tuple[str, str]
) -> Iterator[Running]:
    """A server of four workers that several tests ask, and do nothing else to."""
    with http3_server(tmp_path_factory.mktemp("four"), tls_files, request.param, workers=4) as running:
        yield running


@pytest.fixture
def connect(tls_files: tuple[str, str]) -> Callable[..., H3Client]:
    # On a busy machine nothing may come for long.
    patient = {"idle_timeout": 4 * PATIENCE}
    return lambda server, **settings: H3Client(*server.address, tls_files[0], **(patient | settings))


Connect = Callable[..., H3Client]


def answer(client: H3Client, path: str = "/") -> dict[str, Any]:
    response = client.request("GET", path)
    assert (response.status, response.complete) == (200, True)
    found: dict[str, Any] = json.loads(response.body)
    return found


def move(client: H3Client) -> None:
    """Change the address, and let the server know: who only waits for data has nothing to say."""
    client.move()
    client.quic.send_ping(1)
    client.flush()


def new_version(server: Running, number: int) -> None:
    server.write(TRANSFERS.replace("VERSION = 1", f"VERSION = {number}"))


def reload(server: Running) -> None:
    at = len(server.log)
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloaded", after=at)


# Under load


@pytest.fixture(scope="module", params=MODES)
def lasting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tls_files: tuple[str, str]
) -> Iterator[Running]:
    """A server whose processes several tests change, one after the other."""
    with http3_server(tmp_path_factory.mktemp("lasting"), tls_files, request.param) as running:
        yield running


@pytest.mark.parametrize("what", ["reload", "upgrade", "more and fewer workers"])
def test_change_of_processes_loses_no_request(lasting: Running, what: str) -> None:
    with H3CheckingClient(lasting.address, keep_alive=3, short=2, slow=1, pause=0.2) as client:
        eventually(lambda: client.verified > 100)
        if what == "more and fewer workers":
            for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTIN):
                at, seen = len(lasting.log), client.verified
                lasting.kill(number)
                lasting.wait_for_message("Serving with", after=at)
                eventually(lambda seen=seen: client.verified > seen + 100)
        else:
            new = lasting.write_next(TRANSFERS)
            if what == "reload":
                lasting.reload()
            else:
                lasting.upgrade()
            eventually(lambda: client.versions[new] > 100)
    assert client.faults == {}


@pytest.mark.parametrize("mode", MODES)
def test_end_loses_no_request_of_who_honours_goaway(start: Start, mode: str) -> None:
    with start(mode) as server:
        with H3CheckingClient(server.address, keep_alive=3, short=0, slow=2, slow_time=1.0, pause=0.2) as client:
            eventually(lambda: client.verified > 100)
            server.kill(signal.SIGTERM)
            client.leave()
            assert server.wait() == 0
        assert {fault: count for fault, count in client.faults.items() if not fault.startswith("connect")} == {}


# One connection


@pytest.mark.parametrize("mode", MODES)
def test_upload_that_runs_is_finished_by_the_old_process(start: Start, connect: Connect, mode: str) -> None:
    with start(mode) as server, connect(server) as client:
        old = server.children()
        upload = client.open("POST", "/upload", body=True)
        upload.send_body(b"x" * 100_000)
        new_version(server, 2)
        reload(server)

        def served_by() -> int:
            with connect(server) as other:
                return int(answer(other)["pid"])

        eventually(lambda: served_by() not in old)
        upload.send_body(b"x" * 900_000)
        upload.end()
        found = json.loads(upload.response().body)
        assert (found["version"], found["query"]) == (1, 1_000_000)
        assert found["pid"] in old
        # Its last request has been answered: the connection ends, and the process with it.
        assert client.read_eof()
        eventually(lambda: not set(server.children()) & set(old))


@pytest.mark.parametrize("named", [True, False], ids=["same id", "new id"])
def test_download_survives_changes_of_address(four: Running, connect: Connect, named: bool) -> None:
    with connect(four) as client:
        download = client.open("GET", "/download")
        received = len(download.read_piece())
        if not named:
            client.quic.change_connection_id()
        for _ in range(MOVES):
            # The kernel chooses among four sockets each time.
            move(client)
            received += sum(len(download.read_piece()) for _ in range(10))
        while piece := download.read_piece():
            received += len(piece)
        assert received == PIECES * PIECE
        head = download.read_head()
        assert answer(client)["pid"] == int(head.headers[b"pid"])


@pytest.mark.parametrize("mode", MODES)
def test_download_survives_a_change_of_address_during_a_reload(start: Start, connect: Connect, mode: str) -> None:
    with start(mode) as server, connect(server) as client:
        download = client.open("GET", "/download")
        received = len(download.read_piece())
        reload(server)
        for _ in range(MOVES):
            move(client)
            received += len(download.read_piece())
        while piece := download.read_piece():
            received += len(piece)
        assert received == PIECES * PIECE


def test_upgrade_to_more_workers_leaves_connections_alone_until_they_have_started(
    tmp_path: Path, tls_files: tuple[str, str], connect: Connect
) -> None:
    held, settings = tmp_path / "held", tmp_path / "pounce.toml"
    asks = "        message = await receive()\n"
    app = APP.replace(asks, f"{asks}        while os.path.exists('held'):\n            await asyncio.sleep(0.01)\n")
    settings.write_text("workers = 1\n")
    flags = ("--worker-mode", "process", "--http3", "--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    with Running(tmp_path, *flags, app=app) as server, ExitStack() as stack:
        # The kernel would give most of them to other sockets.
        clients = [stack.enter_context(connect(server)) for _ in range(8)]
        held.touch()
        settings.write_text("workers = 4\n")
        server.kill(signal.SIGUSR2)
        eventually(lambda: len(server.children()) == 2)
        [successor] = set(server.children()) - {answer(clients[0])["pid"]}
        eventually(lambda: len(children_of(successor)) == 4)
        assert {answer(client)["parent"] for client in clients} == {server.pid}
        held.unlink()
        server.pid = successor
        for client in clients:
            assert client.read_eof()
        with connect(server) as client:
            assert answer(client)["parent"] == successor


def test_death_of_a_process_costs_its_connections_only(start: Start, connect: Connect) -> None:
    # An idle timeout would tell it later than the test waits.
    with start("process", "--http3-idle-timeout", "300") as server:
        clients: dict[int, H3Client] = {}

        def has_both() -> bool:
            client = connect(server)
            if clients.setdefault(answer(client)["pid"], client) is not client:
                client.close()
            return len(clients) == 2

        eventually(has_both)
        dying, living = clients
        os.kill(dying, signal.SIGKILL)
        server.wait_for_message("was killed by")
        # The other one reads the socket of the dead one, and knows that its connections are gone.
        assert answer(clients[living])["pid"] == living
        for _ in range(4):
            with connect(server) as other:
                assert answer(other)["pid"] in (living, *server.children())
        clients[dying].open("GET", "/")
        assert clients[dying].read_eof()
        assert answer(clients[living])["pid"] == living
        clients[living].close()
        clients[dying].sock.close()


def test_processes_believe_clients_that_prove_their_address(start: Start, connect: Connect) -> None:
    with start("process", "--http3-retry-above", "0") as server:
        for _ in range(8):
            with connect(server) as client:
                assert client.quic._retry_count == 1
                assert answer(client)["version"] == 1
