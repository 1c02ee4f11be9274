"""A network between clients and a server that loses and reorders what it carries."""

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Relay"]


class Relay:
    """Carries datagrams between clients and a server; `loss` and `reordering` are shares of them, drawn by `seed`."""

    def __init__(self, server: tuple[str, int], loss: float, reordering: float, seed: int) -> None:
        self._server = server
        self._loss = loss
        self._reordering = reordering
        self._random = random.Random(seed)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        """Where the server sees each client."""
        self._clients: dict[socket.socket, tuple[str, int]] = {}
        self._kept: list[tuple[tuple[str, int], bool, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = self._front.getsockname()[1]
        self.lost = 0
        self.reordered = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            readable, _, _ = select.select([self._front, *self._clients], [], [], 0.005)
            for sock in readable:
                try:
                    data, address = sock.recvfrom(65536)
                except ConnectionError:
                    continue
                if sock is self._front:
                    self._carry(address, True, data)
                else:
                    self._carry(self._clients[sock], False, data)
            if not readable:
                self._release()

    def _carry(self, client: tuple[str, int], up: bool, data: bytes) -> None:
        drawn = self._random.random()
        if drawn < self._loss:
            self.lost += 1
        elif drawn < self._loss + self._reordering:
            # It is overtaken by the next few.
            self.reordered += 1
            self._kept.append((client, up, data))
            if len(self._kept) > 4:
                self._release()
        else:
            self._send(client, up, data)

    def _release(self) -> None:
        kept, self._kept = self._kept, []
        for each in kept:
            self._send(*each)

    def _send(self, client: tuple[str, int], up: bool, data: bytes) -> None:
        try:
            if up:
                self._back(client).send(data)
            else:
                self._front.sendto(data, client)
        except ConnectionError:
            pass

    def _back(self, client: tuple[str, int]) -> socket.socket:
        back = self._backs.get(client)
        if back is None:
            back = self._backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.connect(self._server)
            self._clients[back] = client
        return back

    @contextmanager
    def running(self) -> Iterator[Relay]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            self._front.close()
            for back in self._clients:
                back.close()
