"""WebSockets and the life of their workers: each is told 1012, whether its process ends or is replaced."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.workers.running import PATIENCE, Running, eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

APP = """
import sys

VERSION = 1

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(VERSION)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    sys.stderr.write(f"told {message['code']}\\n")
"""
CLIENTS = 8


@pytest.fixture(params=["thread", "process"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, "--workers", "2", "--worker-mode", request.param, app=APP) as running:
        yield running


class Clients(ExitStack):
    def connected(self, server: Running) -> tuple[ClientConnection, str]:
        """A client, and the version of the application that it talks to."""
        host, port = server.address
        client = self.enter_context(connect(f"ws://{host}:{port}/", open_timeout=PATIENCE, close_timeout=PATIENCE))
        return client, str(client.recv(PATIENCE))


def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        client.recv(PATIENCE)
    return client.close_code


def test_shutdown_tells_clients_and_applications_1012_and_ends_at_once(server: Running) -> None:
    with Clients() as clients:
        opened = [clients.connected(server)[0] for _ in range(CLIENTS)]
        server.kill(signal.SIGTERM)
        assert [close_code(client) for client in opened] == [1012] * CLIENTS
    assert server.wait() == 0
    assert server.text().count("told 1012") == CLIENTS


def test_reload_tells_old_connections_1012_and_new_ones_reach_the_new_version(server: Running) -> None:
    with Clients() as clients:
        opened = [clients.connected(server)[0] for _ in range(CLIENTS)]
        server.write(APP.replace("VERSION = 1", "VERSION = 2"))
        server.kill(signal.SIGHUP)
        assert [close_code(client) for client in opened] == [1012] * CLIENTS
        server.wait_for_message("Reloaded")
        again = [clients.connected(server) for _ in range(CLIENTS)]
        assert [version for _, version in again] == ["2"] * CLIENTS
        for client, _ in again:
            client.send("still")
            assert client.recv(PATIENCE) == "still"


@pytest.mark.parametrize("mode", ["thread", "subinterpreter"])
def test_workers_of_a_process_share_the_bound_of_messages_that_do_not_end(mode: str, tmp_path: Path) -> None:
    piece = 100_000
    flags = ("--websocket-max-message-size", "128KiB", "--websocket-max-incomplete", "512KiB", "--loop", "asyncio")
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, *flags, app=APP) as server, Clients() as clients:
        found = [clients.connected(server)[0] for _ in range(12)]
        for client in found:
            client.socket.sendall(b"\x02\xff" + piece.to_bytes(8) + bytes(4) + bytes(piece))
        too_many = len(found) - 512 * 1024 // piece
        eventually(lambda: sum(client.close_code == 1013 for client in found) >= too_many)
