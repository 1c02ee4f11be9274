"""DatagramSockets: the UDP sockets of a server, from its start to its end, and who reads them.

A set has one socket for each address. There are as many sets as workers, one more when there is a worker more, and
never one fewer: the kernel chooses the set by the addresses of a datagram, so as long as their number stays the same a
peer always comes out of the same one. They are kept open here. What arrives while nobody reads a set waits in it.

Each set is read by one process at a time: that of its own place, or another one while that place has none that serves.
"""

import logging
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pounce.config import ServerConfig
from pounce.errors import PounceError
from pounce.net.bind import Listener
from pounce.net.inherited import adopt_udp
from pounce.net.udp import first_udp, open_udp, receiving
from pounce.supervisor.messages import Receive
from pounce.worker.siblings import Siblings

if TYPE_CHECKING:
    from pounce.supervisor.child import Child

__all__ = ["DatagramSockets", "PassedDatagrams"]

log = logging.getLogger("pounce.supervisor")


@dataclass(frozen=True, slots=True)
class PassedDatagrams:
    """What a server before this one leaves to it: its sockets, and its last process, with the folder and the secret."""

    fds: tuple[int, ...]
    siblings: Siblings


class DatagramSockets:
    """Raises `BindError` and `SupervisorError` when they cannot be opened."""

    def __init__(
        self,
        config: ServerConfig,
        listeners: Sequence[Listener],
        first: Iterable[socket.socket] = (),
        passed: PassedDatagrams | None = None,
        *,
        count: int,
    ) -> None:
        """Open `count` sets. `first` are sockets that are already there, for each address of `listeners` that receives
        datagrams.

        With those of a server before this one, no more are opened until there is somebody to read them: the kernel
        would at once give them a part of the packets of connections that live.
        """
        self._listeners = receiving(config, listeners)
        addresses = [listener.sock.getsockname() for listener in self._listeners]
        found: dict[object, list[socket.socket]] = {address: [] for address in addresses}
        taken_over = [adopt_udp(fd) for fd in passed.fds] if passed is not None else []
        for sock in (*first, *taken_over):
            if (name := sock.getsockname()) in found:
                found[name].append(sock)
            else:
                sock.close()
        self._sets: list[list[socket.socket]] = []
        known = passed.siblings if passed is not None and passed.siblings.is_private else None
        self._owns_folder = known is None
        self._siblings = known
        try:
            if self._listeners and known is None:
                self._siblings = Siblings.make()
            # An address that is new has no connections.
            most = max(map(len, found.values()), default=0) or 1
            for listener, each in zip(self._listeners, found.values(), strict=True):
                if not each:
                    each.append(first_udp(listener))
                while len(each) < most:
                    each.append(open_udp(listener))
            self._sets += map(list, zip(*found.values(), strict=True))
            self.grow(count if passed is None else 0)
        except PounceError:
            for each in found.values():
                for sock in each:
                    sock.close()
            self.close()
            raise
        self._left = False
        self._readers: dict[Child, tuple[int, ...]] = {}
        """The numbers of the sets that each process reads."""

    def siblings(self) -> Siblings | None:
        """For the workers of one more process; None where nothing receives datagrams."""
        if self._siblings is not None:
            self._siblings = self._siblings.of_process(self._siblings.process + 1)
        return self._siblings if self._listeners else None

    def grow(self, count: int) -> None:
        """Have so many sets at the least. Raises `BindError`."""
        while self._listeners and len(self._sets) < count:
            opened: list[socket.socket] = []
            try:
                opened += map(open_udp, self._listeners)
            except PounceError:
                for sock in opened:
                    sock.close()
                raise
            self._sets.append(opened)

    def duplicates(self) -> list[socket.socket]:
        """All sockets, for readers in this process."""
        return [sock.dup() for each in self._sets for sock in each]

    def descriptors(self) -> list[int]:
        """Of all sockets."""
        return [sock.fileno() for each in self._sets for sock in each]

    def passed(self) -> PassedDatagrams | None:
        """For a server that is to take over."""
        return PassedDatagrams(tuple(self.descriptors()), self._siblings) if self._siblings is not None else None

    def share(self, places: Sequence[Child | None], others: Sequence[Child], count: int) -> None:
        """Have the process of each place read its share of the sets, which are `count` at the least.

        Where a place has none, another one reads them meanwhile, or of `others` when no place has any.
        """
        serving = [child for child in places if child is not None] or list(others)
        if not serving or self._left:
            return
        try:
            self.grow(count)
        except PounceError as exc:
            log.error("One worker gets no datagrams of its own: %s", exc)
        readers: dict[Child, list[int]] = {child: [] for child in serving}
        for number in range(len(self._sets)):
            own = places[number % len(places)] if places else None
            readers[own or serving[number % len(serving)]].append(number)
        self._tell({child: tuple(numbers) for child, numbers in readers.items()})

    def take_over(self) -> None:
        """The server that was before this one will leave."""
        self._owns_folder = True

    def leave(self) -> None:
        """Read no more: another server does."""
        self._left, self._owns_folder = True, False
        self._tell({})

    def forget(self, child: Child) -> None:
        """It has ended."""
        self._readers.pop(child, None)

    def _tell(self, readers: dict[Child, tuple[int, ...]]) -> None:
        before, self._readers = self._readers, readers
        changed = [child for child in (*before, *readers) if before.get(child, ()) != readers.get(child, ())]
        # Who gives up a set comes first: what waits in it belongs to whoever takes it over.
        for child in sorted(dict.fromkeys(changed), key=lambda child: not before.get(child)):
            sockets = [sock.fileno() for number in readers.get(child, ()) for sock in self._sets[number]]
            child.channel.send(Receive(tuple(sockets)))

    def close(self) -> None:
        """Close all, and remove the folder of the mailboxes if no other server has it now."""
        for each in self._sets:
            for sock in each:
                sock.close()
        self._sets.clear()
        if self._siblings is not None and self._owns_folder:
            self._siblings.remove()
