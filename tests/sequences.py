"""Sequences of related requests, for whatever remembers what it has read.

A parser or a decoder that takes a part of a request from one before it must read it as on a connection of its own. What
it may confuse is alike: the same fields with other values, one more, one less, one twice, in other letters, without a
value, in another order; none at all; other bodies between them. `Message` is such a request, whatever wire carries it,
`sequence` makes some that are related, and says which connection each belongs to. A wire's test puts them into its own
bytes, as variously as its clients might, feeds `feedings` of them, and compares what the application sees with what it
sees when each request is the only one.

`trials` gives the chances: a few, always the same, to `make test`; new ones for as long as it takes to `make fuzz`.
"""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

__all__ = [
    "COUNTS",
    "FUZZ_SECONDS",
    "Message",
    "Seen",
    "Step",
    "StreamRequest",
    "Trial",
    "Witness",
    "changed",
    "cut",
    "feedings",
    "sequence",
    "trials",
]

FUZZ_SECONDS = float(os.environ.get("POUNCE_FUZZ", "0"))
"""How long a test goes on in a long run; 0 in the short one of every day."""

COUNTS: Counter[str] = Counter()
"""What a long run tells of itself at its end."""

type Field = tuple[bytes, bytes]


class Message(NamedTuple):
    """A request as a client means it; Host and what frames the body are fields like any other."""

    method: bytes
    target: bytes
    fields: tuple[Field, ...]
    body: tuple[bytes, ...] = ()
    """The pieces in which it is sent."""
    trailers: tuple[Field, ...] = ()
    version: bytes = b"1.1"
    """For wires that have one in every request."""


class Step(NamedTuple):
    """A message, and the number of the connection that it is sent on."""

    connection: int
    message: Message


METHODS = [b"GET"] * 6 + [b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"get"]
TARGETS = [b"/", b"/", b"/a", b"/a?b=c", b"/a?b=d", b"/%00", b"/" + b"p" * 90]
ODD_TARGETS = [
    b"*",
    b"/a#b",
    b"x",
    b"http://example.org/x",
    b"HTTP://EXAMPLE.org",
    b"http://victim/",
    b"",
    b"//x",
    b"/\xff",
]
HOSTS = [b"example.org", b"example.org", b"victim", b"example.org:8080", b"EXAMPLE.ORG", b"[::1]"]
ODD_HOSTS = [b"", b"a, b", b"a/b", b"u@a", b"a b"]
NAMES = [
    b"Accept",
    b"Accept-Encoding",
    b"User-Agent",
    b"Cookie",
    b"Authorization",
    b"X-A",
    b"x_a",
    b"X-A-B",
    b"X",
    b"Content-Type",
    b"Referer",
    b"Via",
    b"X-Forwarded-For",
    b"Priority",
    b"X-" + b"n" * 60,
]
VALUES = [
    b"",
    b"1",
    b"2",
    b"22",
    b"*/*",
    b"gzip, br",
    b"a: b",
    b"a=b; c=d",
    b"a\tb",
    b"\xc3\xa9\xff",
    b"u" * 100,
    b"v" * 300,
]
BAD_VALUES = [b"a\0b", b"a\nb", b"a\rb", b"a\r\nX-Injected: 1", b"a\r\n\r\nb", b"\x7f", b"a\r\n b", b"\r", b"\n"]
BAD_NAMES = [b"", b"A ", b"A(", b" A", b"A\tB", b"A\0", b"\xc3\xa4", b":a", b":method"]
TELLING = [
    (b"Connection", b"close"),
    (b"Connection", b"keep-alive"),
    (b"Connection", b"keep-alive, x"),
    (b"Connection", b"upgrade"),
    (b"Upgrade", b"x"),
    (b"Upgrade", b"h2c, x"),
    (b"Expect", b"100-continue"),
    (b"Expect", b"x"),
    (b"Content-Length", b"0"),
    (b"Content-Length", b"2"),
    (b"Content-Length", b"02"),
    (b"Content-Length", b"x"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Transfer-Encoding", b"gzip"),
    (b"TE", b"trailers"),
    (b"TE", b"gzip"),
    (b"Host", b"example.org"),
]
"""Fields that say what a request is, where it ends or for whom it is, in some version of HTTP."""
BODIES = [
    (b"ab",),
    (b"cd",),
    (b"a", b"b"),
    (b"hello", b" ", b"world"),
    (b"0\r\n\r\n",),
    (b"GET / HTTP/1.1\r\n", b"Host: a\r\n\r\n"),
]
TRAILERS = [((b"Sum", b"1"),), ((b"X-A", b"1"), (b"X-A", b"2")), ((b"sum", b""),)]
ODD_TRAILERS = [
    ((b"Host", b"victim"),),
    ((b"Content-Length", b"2"),),
    ((b"Cookie", b"a"),),
    ((b"A ", b"b"),),
    ((b"A", b"\n"),),
]


def sequence(rng: random.Random, connections: int = 3, length: int = 8) -> list[Step]:
    """Two messages or more, on one connection or a few: each is like one before it, or the first of its kind."""
    count = rng.randint(1, connections)
    steps = [Step(0, _first(rng))]
    for _ in range(rng.randint(1, length - 1)):
        # Most often the one just before; a long memory is asked for the others.
        like = steps[-1] if rng.randrange(3) else rng.choice(steps)
        message = like.message
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 3])):
            message = changed(rng, message)
        steps.append(Step(rng.randrange(count), message if rng.randrange(30) else _first(rng)))
    return steps


def _first(rng: random.Random) -> Message:
    fields = [(b"Host", rng.choice(HOSTS)), *[_field(rng) for _ in range(rng.choice([0, 1, 2, 2, 3, 4, 12]))]]
    if not rng.randrange(4):
        fields.insert(rng.randrange(len(fields) + 1), rng.choice(TELLING[:5]))
    if not rng.randrange(8):
        rng.shuffle(fields)
    message = Message(rng.choice(METHODS), rng.choice(TARGETS), tuple(fields))
    return _other_body(rng, message) if not rng.randrange(3) else message


def changed(rng: random.Random, message: Message) -> Message:
    """Another message, which differs from this one in one thing."""
    return rng.choice(CHANGES)(rng, message)


def _field(rng: random.Random) -> Field:
    return rng.choice(NAMES), _value(rng)


def _value(rng: random.Random) -> bytes:
    return rng.choice(VALUES) if rng.randrange(3) else b"%x" % rng.getrandbits(rng.choice([4, 8, 64]))


def _at(rng: random.Random, message: Message) -> int:
    return rng.randrange(len(message.fields))


def _with(message: Message, at: int, *fields: Field) -> Message:
    """With these fields in place of the one at `at`."""
    return message._replace(fields=(*message.fields[:at], *fields, *message.fields[at + 1 :]))


def _other_values(rng: random.Random, message: Message) -> Message:
    share = rng.choice([1, 2, 4])
    return message._replace(
        fields=tuple(
            (name, _value(rng)) if name not in _TELLING_NAMES and not rng.randrange(share) else (name, value)
            for name, value in message.fields
        )
    )


_TELLING_NAMES = {name for name, _ in TELLING}


def _other_value(rng: random.Random, message: Message) -> Message:
    """Of any field."""
    at = _at(rng, message)
    name = message.fields[at][0]
    telling = [value for found, value in TELLING if found.lower() == name.lower()]
    return _with(message, at, (name, rng.choice(telling) if telling and rng.randrange(4) else _value(rng)))


def _other_host(rng: random.Random, message: Message) -> Message:
    host = rng.choice(HOSTS if rng.randrange(4) else ODD_HOSTS)
    return message._replace(
        fields=tuple((name, host if name.lower() == b"host" else value) for name, value in message.fields)
    )


def _added(rng: random.Random, message: Message) -> Message:
    at = rng.randrange(len(message.fields) + 1)
    field = _field(rng) if rng.randrange(3) else rng.choice(TELLING)
    return message._replace(fields=(*message.fields[:at], field, *message.fields[at:]))


def _removed(rng: random.Random, message: Message) -> Message:
    return _with(message, _at(rng, message))


def _only_some(rng: random.Random, message: Message) -> Message:
    """The first ones, or the last: what is shorter begins or ends like what is longer."""
    at = rng.randrange(len(message.fields) + 1)
    return message._replace(fields=message.fields[:at] if rng.randrange(2) else message.fields[at:])


def _no_fields(rng: random.Random, message: Message) -> Message:
    return message._replace(fields=(), body=(), trailers=())


def _only_host(rng: random.Random, message: Message) -> Message:
    return message._replace(fields=((b"Host", rng.choice(HOSTS)),), body=(), trailers=())


def _doubled(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    field = message.fields[at]
    return _with(message, at, field, (field[0], rng.choice([field[1], _value(rng)])))


def _in_other_letters(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    name, value = message.fields[at]
    return _with(message, at, (rng.choice([name.upper(), name.lower(), name.swapcase(), name.title()]), value))


def _value_in_other_letters(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    name, value = message.fields[at]
    return _with(message, at, (name, rng.choice([value.upper(), value.lower(), value.swapcase()])))


def _emptied(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    return _with(message, at, (message.fields[at][0], b""))


def _swapped(rng: random.Random, message: Message) -> Message:
    """Two fields, or the values of two."""
    one, two = _at(rng, message), _at(rng, message)
    fields = list(message.fields)
    if rng.randrange(2):
        fields[one], fields[two] = fields[two], fields[one]
    else:
        fields[one], fields[two] = (fields[one][0], fields[two][1]), (fields[two][0], fields[one][1])
    return message._replace(fields=tuple(fields))


def _renamed(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    name, value = message.fields[at]
    return _with(message, at, (rng.choice([*NAMES, name + b"x", name[:-1] or b"X", name.replace(b"-", b"_")]), value))


def _moved_border(rng: random.Random, message: Message) -> Message:
    """The same bytes, of which others are the name: `A-b: c` for `A: -bc`."""
    at = _at(rng, message)
    name, value = message.fields[at]
    both = name + value
    return _with(message, at, (both[: len(name) + 1], both[len(name) + 1 :]))


def _blank(rng: random.Random, message: Message) -> Message:
    at = _at(rng, message)
    name, value = message.fields[at]
    return _with(message, at, (name, rng.choice([b" ", b"\t", b" \t", b""]) + value + rng.choice([b" ", b"\t", b""])))


def _spoilt(rng: random.Random, message: Message) -> Message:
    """Not valid on any wire."""
    if not message.fields:
        return message
    at = _at(rng, message)
    name, value = message.fields[at]
    return _with(message, at, (name, rng.choice(BAD_VALUES)) if rng.randrange(3) else (rng.choice(BAD_NAMES), value))


def _other_target(rng: random.Random, message: Message) -> Message:
    if not rng.randrange(4):
        return message._replace(target=rng.choice(ODD_TARGETS))
    return message._replace(target=rng.choice([*TARGETS, b"/%d" % rng.randrange(1000)]))


def _other_method(rng: random.Random, message: Message) -> Message:
    return message._replace(method=rng.choice([*METHODS, b"CONNECT", b"G T"] if not rng.randrange(4) else METHODS))


def _other_version(rng: random.Random, message: Message) -> Message:
    return message._replace(version=rng.choice([b"1.1", b"1.1", b"1.0", b"1.2", b"2.0"]))


def _other_body(rng: random.Random, message: Message) -> Message:
    """With a body that is announced as it should be: by its length, by chunks, by none at all."""
    framing = (b"content-length", b"transfer-encoding")
    fields = [field for field in message.fields if field[0].lower() not in framing]
    fields = [field for field in fields if field[0].lower() != b"expect" or rng.randrange(2)]
    kind = rng.randrange(4)
    body: tuple[bytes, ...] = ()
    trailers: tuple[Field, ...] = ()
    if kind:
        body = rng.choice(BODIES)
        field = (b"Content-Length", b"%d" % sum(map(len, body)))
        if kind == 3:
            field = (b"Transfer-Encoding", b"chunked")
            trailers = rng.choice([(), (), *TRAILERS, rng.choice(ODD_TRAILERS)])
        fields.insert(rng.choice([len(fields), rng.randrange(len(fields) + 1)]), field)
        if not rng.randrange(6):
            fields.append((b"Expect", b"100-continue"))
    method = b"POST" if kind and message.method == b"GET" and rng.randrange(4) else message.method
    return message._replace(method=method, fields=tuple(fields), body=body, trailers=trailers)


def _if_any(change: Callable[[random.Random, Message], Message]) -> Callable[[random.Random, Message], Message]:
    """A change of a field; where there is none, one is added."""
    return lambda rng, message: change(rng, message) if message.fields else _added(rng, message)


CHANGES = [
    *[_other_values] * 8,
    *[_if_any(_other_value)] * 2,
    *[_added] * 3,
    *[_if_any(_removed)] * 3,
    *[_no_fields] * 2,
    *[_other_body] * 3,
    *[_other_target] * 2,
    *map(
        _if_any,
        (_doubled, _in_other_letters, _value_in_other_letters, _emptied, _swapped, _renamed, _moved_border, _blank),
    ),
    _only_some,
    _only_host,
    _other_host,
    _other_method,
    _other_version,
    _spoilt,
]


# Feeding


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """`data` in one piece, in a few, or byte by byte."""
    how = rng.randrange(8)
    if how < 3 or len(data) < 2:
        return [data] if data else []
    if how == 3:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = [0, *sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randint(1, 6)))), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def feedings(rng: random.Random, sent: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """What is sent on some connections, in the order in which it arrives: several messages together or each in pieces,
    those of one connection in their order."""
    waiting: dict[int, list[bytes]] = {}
    together = rng.randrange(3)
    for connection, data in sent:
        pieces = waiting.setdefault(connection, [])
        if pieces and together and rng.randrange(together + 1):
            pieces[-1] += data
        else:
            pieces.append(data)
    arriving = {number: [piece for data in pieces for piece in cut(rng, data)] for number, pieces in waiting.items()}
    arriving = {number: pieces for number, pieces in arriving.items() if pieces}
    fed = []
    while arriving:
        number = rng.choice(list(arriving))
        # Some at a time, so that heads are whole when another connection has its turn, and also when not.
        for _ in range(rng.choice([1, 3, 1000])):
            if not arriving[number]:
                break
            fed.append((number, arriving[number].pop(0)))
        if not arriving[number]:
            del arriving[number]
    return fed


# What comes of it


class Seen(NamedTuple):
    """A request as the application saw it; `ended` is False when its client went before its end."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    scheme: str
    headers: list[tuple[bytes, bytes]]
    offers: int
    """How many were asked to take it over."""
    body: bytes
    trailers: list[tuple[bytes, bytes]] | None
    ended: bool


class Witness:
    """An application that notes what it sees on each connection, by the port of its client.

    It says in X-Number where in the list of its connection the request is that is answered.
    """

    def __init__(self) -> None:
        self.seen: dict[int, list[Seen]] = {}
        self.offers = 0
        """Counted up by whoever is asked to take the next request over."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        offers, self.offers = self.offers, 0
        headers = scope["headers"]
        begun = Seen(
            scope["method"],
            scope["path"],
            scope["raw_path"],
            scope["query_string"],
            scope["http_version"],
            scope["scheme"],
            list(headers),
            offers,
            b"",
            None,
            False,
        )
        # Whoever gets to see this has got the list of another request.
        headers.append((b"x-scribble", b"by the application"))
        headers[0] = (b"host", b"scribble")
        seen = self.seen.setdefault(scope["client"][1], [])
        number = len(seen)
        seen.append(begun)
        body, trailers, more, ended = b"", None, True, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                more = ended = False
            else:
                body += event["body"]
                more = event["more_body"]
                trailers = event.get("trailers")
        seen[number] = begun._replace(body=body, trailers=trailers, ended=ended)
        if ended:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-number", b"%d" % number)]})
            await send({"type": "http.response.body", "body": b"ok"})


class StreamRequest(NamedTuple):
    """A message of which is settled how HTTP/2 and HTTP/3 write it: the same with whatever table."""

    fields: list[Field]
    body: tuple[bytes, ...]
    trailers: list[Field]

    @classmethod
    def of(cls, rng: random.Random, message: Message) -> Self:
        trailers = [(name.lower() if rng.randrange(20) else name, value) for name, value in message.trailers]
        return cls(_fields_of_streams(rng, message), message.body, trailers)

    def with_other_path(self, rng: random.Random) -> Self:
        """What such a client asks for next: everything is the same but for the path."""
        path = rng.choice([*TARGETS, *ODD_TARGETS])
        return self._replace(fields=[(name, path if name == b":path" else value) for name, value in self.fields])


def _fields_of_streams(rng: random.Random, message: Message) -> list[Field]:
    """The message as HTTP/2 and HTTP/3 write it: its Host is `:authority`, its names are in small letters.

    Now and then one is left as it is, which those wires refuse.
    """
    authority, others = [], []
    for name, value in message.fields:
        lower = name.lower()
        if lower == b"host" and not authority and rng.randrange(20):
            authority.append((b":authority", value))
        elif lower not in (b"transfer-encoding", b"connection", b"upgrade") or not rng.randrange(10):
            others.append((lower if rng.randrange(100) else name, value))
    fields = [(b":method", message.method), (b":scheme", b"http"), *authority, (b":path", message.target)]
    if not rng.randrange(60):
        fields.append(rng.choice(fields))
    if not rng.randrange(60):
        fields.pop(rng.randrange(len(fields)))
    if not rng.randrange(4):
        rng.shuffle(fields)
    return fields + others


# Trials


class Trial:
    """A source of chance, and a note on what fails inside that tells how to have it again."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> random.Random:
        return random.Random(self.seed)

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if exc is not None:
            exc.add_note(f"with Trial({self.seed})")


def trials(name: str, least: int) -> Iterator[Trial]:
    """`least` trials; in a long run new ones for as long as there is time."""
    seed = time.time_ns() if FUZZ_SECONDS else 0
    until = time.monotonic() + FUZZ_SECONDS
    count = 0
    while count < least or time.monotonic() < until:
        count += 1
        yield Trial(seed + count)
        COUNTS[name] += 1
