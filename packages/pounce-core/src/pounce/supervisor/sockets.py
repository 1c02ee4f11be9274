"""Sockets: what a server listens on, from its start to its end, and which process gets what of it."""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from pounce.config import ServerConfig
from pounce.net.bind import Listener, names_of, open_listeners
from pounce.net.udp import open_sockets
from pounce.supervisor.child import Child
from pounce.supervisor.datagrams import DatagramSockets
from pounce.supervisor.modes import mode_of
from pounce.supervisor.upgrade import Predecessor
from pounce.worker.siblings import Siblings

__all__ = ["Sockets"]


class Sockets:
    """The listening sockets of a server, and the UDP sockets beside them; none before `open()`."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.sets: list[list[Listener]] = [[]]
        """A listener for each bind, then sets of twins for further processes."""
        self.datagrams: DatagramSockets | None = None

    def open(self, predecessor: Predecessor | None, *, count: int) -> None:
        """Open them for `count` workers, or have those of the server that this one takes over from.

        Raises a `PounceError`.
        """
        passed = predecessor.sockets if predecessor is not None else []
        first: list[socket.socket] = []
        if predecessor is None:
            listeners, first = open_sockets(self._config)
        else:
            listeners = open_listeners(self._config, passed)
        self.sets = [listeners]
        left = predecessor.datagrams if predecessor is not None else None
        self.datagrams = DatagramSockets(self._config, listeners, first, left, count=count)
        names = names_of(listener.bind for listener in listeners)
        binds = {names[id(listener.bind)]: listener.bind for listener in listeners}
        further: dict[int, list[Listener]] = {}
        for each in passed:
            if each.name not in binds:
                # The command line has changed.
                os.close(each.fd)
            elif each.twins:
                listener = Listener.from_fd(binds[each.name], each.fd, self._config.backlog)
                further.setdefault(each.twins, []).append(listener)
        self.sets += [further[number] for number in sorted(further)]

    @property
    def first(self) -> list[Listener]:
        """A listener for each bind."""
        return self.sets[0]

    @property
    def spread(self) -> bool:
        """Each process has sockets of its own."""
        return (
            mode_of(self._config) == "process"
            and self._config.reuseport
            and any(listener.has_twins for listener in self.first)
        )

    def listeners_of(self, number: int, processes: int) -> tuple[Listener, ...]:
        """What place `number` of a generation of so many listens on.

        A set of twins that was opened is served until the end, if need be by a process that has several: to close one
        would lose the connections that wait on it.
        """
        if not self.spread:
            return tuple(listener for listeners in self.sets for listener in listeners)
        while len(self.sets) < processes:
            own = [listener for listener in self.first if listener.has_twins]
            self.sets.append([listener.twin(self._config.backlog) for listener in own])
        found = [listener for listener in self.first if not listener.has_twins or not number]
        for twins in self.sets[number or processes :: processes]:
            found += twins
        return tuple(found)

    def siblings(self) -> Siblings | None:
        """For the workers of one more process; None where nothing receives datagrams."""
        return self.datagrams.siblings() if self.datagrams is not None else None

    def share_datagrams(self, serving: Sequence[Child | None], others: Sequence[Child], count: int) -> None:
        """Have every UDP socket read; see `DatagramSockets.share()`."""
        if self.datagrams is not None:
            self.datagrams.share(serving, others, count)

    def forget(self, child: Child) -> None:
        """It has ended."""
        if self.datagrams is not None:
            self.datagrams.forget(child)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Of the listening sockets, and of the others."""
        listening = [listener.sock.fileno() for listeners in self.sets for listener in listeners]
        return listening, self.datagrams.descriptors() if self.datagrams is not None else []

    def take_over(self) -> None:
        """The server that was before this one will leave."""
        self.sets = [[listener.owned() for listener in listeners] for listeners in self.sets]
        if self.datagrams is not None:
            self.datagrams.take_over()

    def leave(self) -> None:
        """Another server has them now."""
        self.sets = [[replace(listener, owner=0) for listener in listeners] for listeners in self.sets]
        if self.datagrams is not None:
            self.datagrams.leave()

    def close_listeners(self) -> None:
        """Close them here, so that the processes can empty them."""
        for listeners in self.sets:
            for listener in listeners:
                listener.close()
            listeners.clear()

    def close(self) -> None:
        """Close all."""
        self.close_listeners()
        if self.datagrams is not None:
            self.datagrams.close()
