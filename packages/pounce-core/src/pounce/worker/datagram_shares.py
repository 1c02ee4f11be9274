"""DatagramShares: the UDP sockets of one process, and which of its workers reads which."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator

__all__ = ["DatagramShares", "dealt"]


class DatagramShares[Reader]:
    """`give` is called with a worker and the sockets that it is to read from then on; it must duplicate them."""

    def __init__(self, give: Callable[[Reader, list[socket.socket]], object]) -> None:
        self._give = give
        self._sockets: list[socket.socket] = []
        self._readers: list[Reader] = []

    def replace(self, sockets: list[socket.socket]) -> None:
        """Have these to deal out from now on, and no others; they are closed here."""
        self.close()
        self._sockets = sockets
        self._readers = []

    def deal(self, running: list[Reader], leaving: list[Reader]) -> None:
        """Each socket is read by one of those that run; by one that leaves only where no other is left."""
        readers = [reader for reader in running if reader not in leaving] or running
        if readers == self._readers:
            return
        self._readers = readers
        for reader in running:
            if reader not in readers:
                self._give(reader, [])
        for place, reader in enumerate(readers):
            self._give(reader, list(dealt(self._sockets, place, len(readers))))

    def close(self) -> None:
        """Close them."""
        for sock in self._sockets:
            sock.close()


def dealt(sockets: list[socket.socket], place: int, count: int) -> Iterator[socket.socket]:
    """The share of reader `place` of `count`: as many of each address as the others have, as far as they go round."""
    numbers: Counter[object] = Counter()
    for sock in sockets:
        address = sock.getsockname()
        if numbers[address] % count == place:
            yield sock
        numbers[address] += 1
