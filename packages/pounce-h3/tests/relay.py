"""A network between a client and a server that loses and reorders what it carries."""

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Relay"]


class Relay:
    """Carries datagrams between a client and a server; `loss` and `reordering` are shares of them, drawn by `seed`."""

    def __init__(self, server: tuple[str, int], loss: float, reordering: float, seed: int) -> None:
        self._server = server
        self._loss = loss
        self._reordering = reordering
        self._random = random.Random(seed)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.connect(server)
        self._client: tuple[str, int] | None = None
        self._kept: list[tuple[socket.socket, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = self._front.getsockname()[1]
        self.lost = 0
        self.reordered = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            readable, _, _ = select.select([self._front, self._back], [], [], 0.005)
            for sock in readable:
                try:
                    data, address = sock.recvfrom(65536)
                except ConnectionError:
                    continue
                if sock is self._front:
                    self._client = address
                self._carry(sock, data)
            if not readable:
                self._release()

    def _carry(self, sock: socket.socket, data: bytes) -> None:
        drawn = self._random.random()
        if drawn < self._loss:
            self.lost += 1
        elif drawn < self._loss + self._reordering:
            # It is overtaken by the next few.
            self.reordered += 1
            self._kept.append((sock, data))
            if len(self._kept) > 4:
                self._release()
        else:
            self._send(sock, data)

    def _release(self) -> None:
        kept, self._kept = self._kept, []
        for sock, data in kept:
            self._send(sock, data)

    def _send(self, sock: socket.socket, data: bytes) -> None:
        try:
            if sock is self._front:
                self._back.send(data)
            elif self._client is not None:
                self._front.sendto(data, self._client)
        except ConnectionError:
            pass

    @contextmanager
    def running(self) -> Iterator[Relay]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            self._front.close()
            self._back.close()
