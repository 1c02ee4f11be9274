"""What the parser takes from earlier requests changes none: sequences of related ones, as the application sees them.

The same bytes go to a server with this parser and to one with h11, on the same connections, in the same pieces; and
each request goes to the first server alone, on a connection that is the first to be read with its tables. All three
applications must see the same, field by field, and all clients get the same answers.
"""

import asyncio
import random
import re

import judges
from tests.sequences import Message, Seen, Witness, feedings, sequence, trials

from pounce.contract.head import RequestHead
from pounce.exchange.service import Service
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin, Switch
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce_h1fast.plugin import plugin as h1fast

TRIALS = 400
"""In the short run."""


def as_http1(rng: random.Random, message: Message) -> bytes:
    """The bytes of a message: what it says of its body is up to its fields, whatever body it has."""
    lines = [b"%b %b HTTP/%b" % (message.method, message.target, message.version)]
    lines += [name + _colon(rng, name) + value for name, value in message.fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + _body(rng, message)


def _colon(rng: random.Random, name: bytes) -> bytes:
    """The same for the same name, because clients have habits; now and then none."""
    if not rng.randrange(300):
        return b""
    return b":" if name.islower() else b": "


def _body(rng: random.Random, message: Message) -> bytes:
    names = {name.lower() for name, _ in message.fields}
    if b"transfer-encoding" not in names:
        return b"".join(message.body) if b"content-length" in names else b""
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), rng.choice([b"", b"", b";a=b"]), piece) for piece in message.body]
    trailers = [name + b": " + value + b"\r\n" for name, value in message.trailers]
    return b"".join([*chunks, b"0\r\n", *trailers, b"\r\n"])


def told(seen: list[Seen]) -> list[Seen]:
    """How much of a body comes before it is broken off is up to the pieces in which it is given out."""
    return [request if request.ended else request._replace(body=b"") for request in seen]


class Server:
    """A server in memory with one of the parsers."""

    def __init__(self, parser: str) -> None:
        noting = Plugin(
            name="noting",
            api=API_VERSION,
            parsers=h1fast.parsers if parser == "h1fast" else (),
            switches=(Switch(token=b"x", connect=self._offered),),
        )
        self.witness = Witness()
        self.service: Service = memory_service(
            self.witness,
            Registry.of(h1, noting),
            http_parser=parser,
            date_header=False,
            server_header="",
            max_header_size=1400,
            max_headers=14,
        )

    def _offered(self, service: Service, head: RequestHead) -> None:
        """Take no request over, but see that it is there to be taken."""
        self.witness.offers += 1

    def connect(self, number: int) -> MemoryConnection:
        return MemoryConnection(service=self.service, extra={"peername": ("192.0.2.1", number)})

    async def serve(self, fed: list[tuple[int, bytes]], patience: int) -> dict[int, tuple[list[Seen], bytes]]:
        """What the application saw and what came back on each connection; the loop turns after so many pieces."""
        self.witness.seen = {}
        connections = {number: self.connect(number) for number in dict.fromkeys(number for number, _ in fed)}
        for count, (number, data) in enumerate(fed):
            connections[number].feed(data)
            if count % patience == 0:
                await connections[number].settle(2)
        await self._settle(list(connections.values()))
        for connection in connections.values():
            connection.feed_eof()
        await self._settle(list(connections.values()))
        for connection in connections.values():
            connection.lose()
        await asyncio.sleep(0)
        assert not self.service.connections and not self.service.tasks
        return {n: (told(self.witness.seen.get(n, [])), connection.received) for n, connection in connections.items()}

    async def _settle(self, connections: list[MemoryConnection]) -> None:
        """Until nothing happens any more."""
        before = None
        while before != (now := [len(connection.transport.received) for connection in connections]):
            before = now
            await connections[0].settle(6)


# Without 100 (Continue), which depends on what has come of the body.
_statuses = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) ").findall


async def check(rng: random.Random, fast: Server, reference: Server) -> None:
    """One sequence, read by everybody."""
    steps = sequence(rng)
    sent = [(step.connection, as_http1(rng, step.message)) for step in steps]
    fed = feedings(rng, sent)
    patience = rng.choice([1, 2, 5, 1000])
    ours, theirs = await fast.serve(fed, patience), await reference.serve(fed, patience)
    assert ours.keys() == theirs.keys()
    for number, (seen, received) in ours.items():
        reference_saw, answered = theirs[number]
        assert seen == reference_saw, f"on connection {number} of {fed}: {seen} is what h11 reads as {reference_saw}"
        assert received == answered, f"on connection {number} of {fed}"
    for number in ours:
        await _check_alone(fast, [data for of, data in sent if of == number], *ours[number])


async def _check_alone(server: Server, requests: list[bytes], seen: list[Seen], received: bytes) -> None:
    """What was seen on a connection is what is seen of each of its requests when there is no other."""
    statuses = _statuses(received)
    for data in requests:
        with judges.empty_table():
            alone, answered = (await server.serve([(0, data)], 1))[0]
        expected = _statuses(answered)
        if len(expected) != 1 or (alone and not alone[0].ended):
            # What follows it is read as a part of it, or the other way round.
            return
        assert seen[: len(alone)] == alone, f"{data!r} is {alone} alone, and {seen} behind {requests}"
        assert statuses[: len(expected)] == expected, f"{data!r} is answered {expected} alone, and {statuses}"
        if alone and not any(name == b"transfer-encoding" for name, _ in alone[0].headers):
            body = data.partition(b"\r\n\r\n")[2]
            if len(body) != len(alone[0].body):
                # Its end is the beginning of the next.
                return
        if b"connection: close" in answered:
            assert not seen[len(alone) :] and not statuses[len(expected) :], requests
            return
        seen, statuses = seen[len(alone) :], statuses[len(expected) :]


def test_no_request_is_read_with_anything_of_another() -> None:
    async def run() -> None:
        fast, reference = Server("h1fast"), Server("h11")
        for number, trial in enumerate(trials("sequences, h1fast against h11", TRIALS)):
            with trial as rng:
                if number % 2:
                    # The other half finds in the table what sequences before have left there.
                    with judges.empty_table():
                        await check(rng, fast, reference)
                else:
                    await check(rng, fast, reference)

    asyncio.run(run())
