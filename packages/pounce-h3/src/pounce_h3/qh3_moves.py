"""Moves: where the client of a qh3 connection is, once it was heard from another address than its first.

qh3 has a path for each address, goes over to one when the client answers its challenge there (RFC 9000 8.2), and stays
with that. Four things it lacks are done here. What qh3 calls a path by is a *name* then, and not always where the
client of that path is.

- A client that comes back to an address which it has proved gets there what it is due: qh3 goes on with the path that
  it has, and what it sends on that goes to where the client was heard from last.
- A challenge may be lost. It is sent again whenever the client is heard from there: the same packet, which who has it
  already ignores (RFC 9000 12.3). qh3 would wait for it to be missed, by acknowledgements of what it sends to the old
  address.
- Nobody may answer: the client has left, or somebody else has sent its packet on from elsewhere (RFC 9000 9.3.2). qh3
  sends such a challenge again and again, and nothing at all on any path as soon as it may send no more on that one. So
  it is told of more bytes than came there, and how many may be sent is counted here. Once the client is heard from an
  address which is proved, a path whose challenge it leaves open is taken to be that address: it answers there.
- An answer may be lost. qh3 takes it that the peer sends it again, as it does itself; others do not (RFC 9000 13.3).
  After a while the address is a new one for qh3, under another name.

An address is proved by the handshake, or by the answer to a challenge that was sent to it. Before, it gets no more than
three times what came from it. qh3 has four paths and forgets none, so of new addresses it takes three.
"""

from typing import TYPE_CHECKING

from pounce_h3.ids import ID_LENGTH
from pounce_h3.packets import VERSION_1

if TYPE_CHECKING:
    from pounce.plugin import Address

__all__ = ["Moves"]

AMPLIFICATION = 3
"""RFC 9000 8.1: how many times the bytes that came from an address may be sent there before it is proved."""
AHEAD = 60
"""Bytes by which datagrams are longer for qh3: three times that are a few challenges, and no room for much else."""
PATHS = 4
"""Of a connection in qh3."""
LEFT_AFTER = 3
"""How often the client is heard from a proved address before it has left those that it has not proved."""
LEFT_FOR = 0.1
"""Seconds that it is not heard from one meanwhile: what it sent before it moved there may come late."""
RENEWED_AFTER = 1.0
"""Seconds after which a challenge that was not answered is followed by another one (RFC 9000 8.2.4)."""
KEPT = 2
"""Datagrams that are sent again to an address: before the challenge there may be the answer to one of the client's."""


def _ahead(connection_id: bytes) -> bytes:
    """A packet of a handshake that is over, which is skipped (RFC 9000 12.2)."""
    version, names = VERSION_1.to_bytes(4), bytes((len(connection_id), *connection_id, 0))
    return b"\xe0" + version + names + (0x4000 | AHEAD).to_bytes(2) + bytes(AHEAD)


class Challenged:
    """A path to an address that is not proved."""

    __slots__ = ("allowed", "elsewhere", "heard", "is_due", "is_left", "sent", "since", "where")

    def __init__(self, where: Address, now: float) -> None:
        self.where = where
        self.since = self.heard = now
        self.allowed = 0
        """Bytes that may be sent there."""
        self.sent: list[bytes] = []
        """The last that was to be sent there."""
        self.is_due = False
        """It may be sent again: the client was heard from there, or it was more than was allowed."""
        self.elsewhere = 0
        """How often the client was heard from another address since it was from this one."""
        self.is_left = False
        """It is elsewhere, at an address that is proved, and the path is that from now on: who answers need not be
        where it was."""


class Moves:
    """The addresses of one client."""

    __slots__ = ("_asked", "_challenged", "_names", "_proved", "active", "at")

    def __init__(self, first: Address) -> None:
        self.active = first
        """Name of the path that qh3 sends on."""
        self.at = first
        """Where the client is."""
        self._proved = {first}
        self._challenged: dict[Address, Challenged] = {}
        """By name."""
        self._names = {first}
        self._asked: Address | None = None
        """Name of a path that is left, on which the client was challenged where it is."""

    def name(self, address: Address, now: float) -> Address:
        """The path on which qh3 is to take what has come from this address."""
        if address in self._proved:
            return self._left() or self.active
        own: Address | None = None
        for name, path in self._challenged.items():
            if path.where == address and not path.is_left:
                own = name
        if own is not None and (now < self._challenged[own].since + RENEWED_AFTER or len(self._names) == PATHS):
            return own
        # What is the name of another path cannot be that of a new one.
        return address if address not in self._names else ("0.0.0.0", len(self._names))

    def _left(self) -> Address | None:
        """A path that is left: that on which qh3 has sent its challenge last, else each in turn."""
        if self._asked in self._challenged:
            # Only one that is left is ever asked there, and it stays so.
            return self._asked
        for name, path in self._challenged.items():
            if path.is_left:
                self._challenged[name] = self._challenged.pop(name)
                return name
        return None

    def enlarged(self, datagrams: list[bytes], name: Address) -> list[bytes]:
        """What qh3 is to be given of them on the path of that name: they are longer where that is not proved."""
        if name == self.active:
            return datagrams
        return [data if data[0] & 0x80 else _ahead(data[1 : 1 + ID_LENGTH]) + data for data in datagrams]

    def received(self, address: Address, name: Address, size: int, active: Address, is_new: bool, now: float) -> None:
        """qh3 has taken `size` bytes from this address under that name, and sends on the path `active` now. `is_new` is
        true when it could read them and did not have them."""
        if active != self.active:
            self.active = active
            path = self._challenged.pop(active, None)
            if path is not None and not path.is_left:
                self._proved.add(path.where)
                self.at = path.where
                for other in self._challenged.values():
                    other.is_left = other.is_left or other.where == path.where
        if not is_new:
            return
        is_proved = address in self._proved
        for path in self._challenged.values():
            if path.where != address:
                path.elsewhere += 1
                if is_proved and path.elsewhere >= LEFT_AFTER and now >= path.heard + LEFT_FOR:
                    path.is_left = True
        if is_proved:
            self.at = address
            return
        own = self._challenged.get(name)
        if own is None:
            if len(self._names) == PATHS:
                return
            own = self._challenged[name] = Challenged(address, now)
            self._names.add(name)
        own.allowed += AMPLIFICATION * size
        own.elsewhere = 0
        own.heard = now
        own.is_due = bool(own.sent)

    def to_send(self, datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """What qh3 wants to send, with where it goes, and what is sent again."""
        found: list[tuple[bytes, Address]] = []
        for data, name in datagrams:
            path = self._challenged.get(name)
            if path is None or path.is_left:
                if path is not None:
                    self._asked = name
                found.append((data, self.at if name in self._names else name))
            else:
                path.is_due = path.allowed < len(data)
                path.sent = [*path.sent[1 - KEPT :], data]
                if not path.is_due:
                    path.allowed -= len(data)
                    found.append((data, path.where))
        for path in self._challenged.values():
            if path.is_due and not path.is_left and sum(map(len, path.sent)) <= path.allowed:
                path.is_due = False
                path.allowed -= sum(map(len, path.sent))
                found += [(data, path.where) for data in path.sent]
        return found
