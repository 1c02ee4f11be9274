"""Streams of requests that are valid, or nearly.

`stream` builds requests from their parts and makes some parts wrong. `one_mistake` builds a request that is right but
for one thing. `mutate` takes the bytes of the corpus and damages them. `repeat` makes connections whose requests are
much like each other, as those of real clients are. All they need is a source of chance: hypothesis gives them one
that it can make small, and a long run a plain one, which is ten times as fast.
"""

import random
from pathlib import Path

from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"


def corpus(folder: str) -> list[Path]:
    return sorted((CORPUS / folder).glob("*.http"))


SEEDS = [path.read_bytes() for folder in ("accepted", "refused", "unfinished") for path in corpus(folder)]

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FIELD_BYTES = bytes({9, *range(32, 127), *range(128, 256)})

CONTROLS = [b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\r", b"\n", b"\r\r", b"\n\n", b"\r\n "]
SEPARATORS = [bytes([byte]) for byte in b' \t"(),/:;<=>?@[\\]{}']

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"M-SEARCH", b"get", b"FROB"]
BAD_METHODS = [b"CONNECT", b"", b"G(T", b"GE\tT", b"GET\n", b"G\xc9T", b"GET ", b"\rGET", b"PRI"]
PATHS = [
    b"/",
    b"/a/b?c=d&e=%20",
    b"/%00",
    b"//x",
    b"/*",
    b"/http://other/",
    b"/a:b@c;d",
    b'/["{|}^`\\<>]',
    b"/" + b"p" * 90,
]
BAD_TARGETS = [
    b"*",
    b"",
    b"x",
    b"example.org:80",
    b"/a#b",
    b"/a b",
    b"/\x7f",
    b"/\xff",
    b"/\t",
    b"http://other.org/",
    b"http://u@example.org/",
    b"http:///",
    b"ftp://example.org/",
    b"http://example.org",
    b"http://example.org/#f",
    b"HTTP://EXAMPLE.ORG?q",
    b"https://example.org/",
]
VERSIONS = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9"]
BAD_VERSIONS = [
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"HTTP/1",
    b"HTTP/1.",
    b"HTTP/1.10",
    b"HTTP/01.1",
    b"http/1.1",
    b"HTTP/1,1",
    b"HTTP/1.1 ",
    b"HTTP/1.1\t",
    b"HTTPS/1.1",
    b"",
]
HOSTS = [b"example.org", b"example.org:8080", b"EXAMPLE.org", b"127.0.0.1", b"[2001:db8::1]:8080", b"", b"a%20b"]
BAD_HOSTS = [b"a, b", b"a,b", b"a/b", b"u@a", b"a b", b"a:b", b"a:123456", b"[::1", b"a\x00", b"\xe4", b"a?b", b"a#b"]
NAMES = [
    b"Accept",
    b"accept-encoding",
    b"User-Agent",
    b"Cookie",
    b"X-A",
    b"x_a",
    b"Authorization",
    b"Content-Type",
    b"TE",
    b"Trailer",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Range",
    b"X-Forwarded-For",
]
BAD_NAMES = [b"", b"A ", b"A\t", b" A", b"A(", b"A\x00", b"\xc3\xa4", b"A\r", b"A\n", b"Content-Length ", b"\x0bHost"]
VALUES = [
    b"",
    b"x",
    b"*/*",
    b"gzip, deflate, br",
    b"a: b",
    b"a=b; c=d",
    b'"quoted \\" x"',
    b"\xc3\xa9 \xff\x80",
    b"a\tb",
    b"1",
]
BLANKS = [b" "] * 6 + [b"", b"\t", b"  \t "]
BEHIND = [b""] * 8 + [b" ", b"\t", b" \t "]
FRAMING = [
    (b"Connection", [b"close", b"keep-alive", b"Keep-Alive, x", b"x, CLOSE", b"Upgrade", b"upgrade, close", b"", b","]),
    (b"Upgrade", [b"websocket", b"WebSocket", b"h2c, x", b"", b","]),
    (b"Expect", [b"100-continue", b"100-Continue"]),
]
BAD_EXPECTS = [b"200-ok", b"", b"100-continue, x", b"100-continue;x"]
BAD_LENGTHS = [
    b"+5",
    b"-0",
    b"1_0",
    b"0x5",
    b"5 5",
    b"5,5",
    b"5, 6",
    b"",
    b"5.0",
    b"\xb2",
    b"\xd9\xa5",
    b"1" * 20,
    b"9" * 19,
    b"0" * 19 + b"5",
    b"5;x",
    b'"5"',
    b"5\x00",
]
CODINGS = [b"chunked", b"Chunked", b"CHUNKED"]
BAD_CODINGS = [
    b"identity",
    b"gzip",
    b"xchunked",
    b"chunkedx",
    b"gzip, chunked",
    b"chunked, identity",
    b"chunked, chunked",
    b"chunked,",
    b",chunked",
    b"chunked;x",
    b"chunked;x=y",
    b'"chunked"',
    b"chunked x",
    b"",
    b"chunked\x0b",
    b"chunked\x00",
    b"\x0cchunked",
    b"chunke\xc4\x91",
]
EXTENSIONS = [b"", b"", b"", b"", b";a", b";a=b", b';a="b;\\"c"', b";a;b=c;d", b';a="\xff\t"']
BAD_EXTENSIONS = [
    b";",
    b" ;a",
    b"; a",
    b";a =b",
    b";a= b",
    b";a=",
    b';a="',
    b';a="\n"',
    b";a\r",
    b";\x00",
    b" ",
    b"\t",
    b";a=b,c",
]
BAD_SIZES = [
    b"",
    b"+5",
    b"-1",
    b"0x5",
    b"5_0",
    b"g",
    b" 5",
    b"5 ",
    b"00000000000000005",
    b"f" * 16,
    b"f" * 17,
    b"\xb2",
    b"5\n",
]
TRAILERS = [b"Checksum: 9", b"X-T:", b"Server-Timing: a;dur=1", b'ETag:\t"x" ']
BAD_TRAILERS = [
    b"Host: x",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Authorization: x",
    b"Cookie: a",
    b"Connection: close",
    b"no colon",
    b" folded: x",
    b"A : b",
    b"A: b\x00",
    b"A: b\n",
    b"\nA: b",
    b": x",
]
# None that joins two lines: that may be more than one mistake.
BAD_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\n", b"\r\n ", b"\r\n\t", b" \r\n", b"\x00\r\n", b"\r\n\r"]
BODY = [b"", b"x", b"hello", b"0\r\n\r\n", b"\r\n", b"\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00\xff" * 30]


class Maker:
    """Makes requests out of parts, of which it gets at most `errors` wrong altogether."""

    def __init__(self, rng: random.Random, errors: int) -> None:
        self.rng = rng
        self.errors = errors

    def pick(self, good: list, wrong: list | None = None):
        """One of `good`, or now and then one of `wrong` while there are errors left to make."""
        if wrong and self.errors and self.rng.randrange(12) == 11:
            self.errors -= 1
            return self.rng.choice(wrong)
        return self.rng.choice(good)

    def chance(self, one_in: int) -> bool:
        return self.rng.randint(1, one_in) == one_in

    def end(self) -> bytes:
        return self.pick([b"\r\n"], BAD_ENDS) if self.errors else b"\r\n"

    def token(self) -> bytes:
        return bytes(self.rng.choices(TOKEN, k=self.rng.randint(1, 8)))

    def name(self) -> bytes:
        name = self.token() if self.chance(5) else self.pick(NAMES, BAD_NAMES)
        return name.upper() if self.chance(6) else name

    def value(self) -> bytes:
        value = self.pick(VALUES)
        if self.errors and self.chance(12):
            self.errors -= 1
            at = self.rng.randint(0, len(value))
            value = value[:at] + self.rng.choice(CONTROLS) + value[at:]
        elif self.chance(20):
            value = bytes(self.rng.choices(FIELD_BYTES, k=self.rng.randrange(12)))
        return value

    def field(self, name: bytes, value: bytes) -> bytes:
        colon = self.pick([b":"], [b"", b" :", b"\t:", b"::", b";", b"\r\n:"])
        return name + colon + self.pick(BLANKS) + value + self.pick(BEHIND)

    def request(self) -> bytes:
        method = self.pick(METHODS, BAD_METHODS)
        version = self.pick(VERSIONS, BAD_VERSIONS)
        host = self.pick(HOSTS[:1] * 6 + HOSTS, BAD_HOSTS)
        target = self.pick(PATHS, BAD_TARGETS)
        if host and self.chance(6):
            target = self.pick([b"http://", b"HTTPS://"]) + host + self.pick([b"", b"?q", *PATHS])
        if method == b"OPTIONS" and self.chance(2):
            target = b"*"
        space = self.pick([b" "], [b"  ", b"\t", b"", b" \x0b", b"\r\n", b"\n"])
        lines = [method + space + target + b" " + version]
        if version != b"HTTP/1.0" or self.chance(2):
            lines.append(self.field(b"Host", host))
            if self.errors and self.chance(30):
                self.errors -= 1
                lines.pop() if self.chance(2) else lines.append(self.field(b"host", host))
        lines += [self.field(self.name(), self.value()) for _ in range(self.rng.randint(0, 4))]
        if self.chance(3):
            name, values = self.rng.choice(FRAMING)
            lines.append(self.field(name, self.pick(values, BAD_EXPECTS if name == b"Expect" else None)))
            if name == b"Upgrade" and self.chance(2):
                lines.append(b"Connection: upgrade")
        body = self.body(lines, version)
        at = self.rng.randint(1, len(lines))
        lines[1:] = lines[at:] + lines[1:at]
        lead = b"\r\n" * self.pick([0] * 9 + [1, 2])
        return lead + b"".join(line + self.end() for line in lines) + self.end() + body

    def body(self, lines: list[bytes], version: bytes) -> bytes:
        """Add the fields that announce a body, and return it."""
        kind = self.rng.choice(["none", "none", "length", "chunked"])
        if kind == "chunked" and version == b"HTTP/1.0":
            if self.errors:
                self.errors -= 1
            else:
                kind = "length"
        if kind == "length":
            body = self.rng.choice(BODY)
            length = b"0" * self.pick([0, 0, 0, 1, 3]) + b"%d" % len(body)
            lines.append(self.field(self._case(b"Content-Length"), self.pick([length], BAD_LENGTHS)))
            if self.errors and self.chance(12):
                self.errors -= 1
                lines.append(
                    self.rng.choice(
                        [
                            b"Transfer-Encoding: chunked",
                            b"transfer-encoding: identity",
                            b"Content-Length: " + length,
                        ]
                    )
                )
            return body
        if kind == "chunked":
            lines.append(self.field(self._case(b"Transfer-Encoding"), self.pick(CODINGS, BAD_CODINGS)))
            return self.chunks()
        return b""

    def chunks(self) -> bytes:
        made = b""
        for _ in range(self.rng.randint(0, 3)):
            data = self.rng.choice(BODY[1:])
            made += self.chunk_line(b"%x" % len(data)) + data + self.pick([b"\r\n"], [b"", *BAD_ENDS])
        made += self.chunk_line(b"0")
        if self.chance(3):
            for _ in range(self.rng.randint(1, 2)):
                made += self.pick(TRAILERS, BAD_TRAILERS) + self.end()
        return made + self.end()

    def chunk_line(self, size: bytes) -> bytes:
        size = b"0" * self.pick([0, 0, 0, 0, 2]) + (size.upper() if self.chance(2) else size)
        return self.pick([size], BAD_SIZES) + self.pick(EXTENSIONS, BAD_EXTENSIONS) + self.end()

    def _case(self, name: bytes) -> bytes:
        return self.pick([name, name, name.lower(), name.upper()])


def stream(rng: random.Random) -> bytes:
    """Up to four requests, with no error or a few."""
    maker = Maker(rng, rng.choice([0, 1, 1, 2, 3]))
    return b"".join(maker.request() for _ in range(rng.randint(1, 4)))


def one_mistake(rng: random.Random) -> bytes:
    """A request with at most one error, perhaps behind one without."""
    first = Maker(rng, 0).request() if rng.randrange(2) else b""
    return first + Maker(rng, 1).request()


def mutate(rng: random.Random) -> bytes:
    """Bytes of the corpus, damaged in one to five places, half of which are near the end of a line."""
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5])):
        start = rng.randrange(len(data) + 1)
        if rng.randrange(2):
            start = min(len(data), max(0, data.find(b"\r\n", start)) + rng.randrange(3))
        rng.choice(MUTATIONS)(rng, data, start, min(len(data), start + rng.randint(1, 12)))
    return bytes(data)


def _insert(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start:start] = rng.choice(SNIPPETS)


def _insert_byte(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data.insert(start, rng.randrange(256))


def _delete(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    del data[start:end]


def _delete_byte(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    del data[start : start + 1]


def _replace(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start : start + 1] = rng.choice(SNIPPETS)


def _replace_byte(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start : start + 1] = bytes([rng.randrange(256)])


def _swap(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start:end] = data[start:end][::-1]


def _repeat(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start:start] = data[start:end]


def _move_line(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """A line of somewhere else, here: framing fields come twice, request lines become fields."""
    begin = data.find(b"\r\n", rng.randrange(len(data) + 1)) + 2
    here = data.find(b"\r\n", start) + 2
    data[here:here] = data[begin : data.find(b"\r\n", begin) + 2]


def _flip_case(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data[start:end] = data[start:end].swapcase()


def _splice(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    other = rng.choice(SEEDS)
    data[start:] = other[rng.randrange(len(other) + 1) :]


def _follow(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    data += rng.choice(SEEDS)


def _cut_off(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    del data[start:]


MUTATIONS = [
    _insert,
    _insert,
    _insert_byte,
    _delete,
    _delete_byte,
    _replace,
    _replace_byte,
    _swap,
    _repeat,
    _move_line,
    _flip_case,
    _splice,
    _follow,
    _cut_off,
]
_TELLING = [
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"Expect: other",
    b"Content-Length: 0",
    b"Content-Length: 3",
    b"Content-Length: 03",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Host: a",
    b"Host: b",
    b"Bad Name: x",
]
SNIPPETS = [
    *CONTROLS,
    *SEPARATORS,
    *BAD_METHODS,
    *BAD_TARGETS,
    *BAD_VERSIONS,
    *BAD_ENDS,
    *BAD_SIZES,
    *EXTENSIONS,
    *BAD_EXTENSIONS,
    b"0",
    b"5",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    *(line + b"\r\n" for line in _TELLING + TRAILERS + BAD_TRAILERS),
    *(b"Transfer-Encoding: " + coding + b"\r\n" for coding in CODINGS + BAD_CODINGS),
    *(b"Content-Length: " + length + b"\r\n" for length in BAD_LENGTHS),
    *(b"Host: " + host + b"\r\n" for host in HOSTS + BAD_HOSTS),
    b"Transfer-Encoding:\r\n chunked\r\n",
]

_LINES = [
    b"GET / HTTP/1.1",
    b"GET /2 HTTP/1.1",
    b"POST /3?x HTTP/1.1",
    b"HEAD / HTTP/1.0",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"OPTIONS * HTTP/1.1",
    b"GET * HTTP/1.1",
    b"GET http://a/ HTTP/1.1",
    b"GET http://b/ HTTP/1.1",
    b"GET /#f HTTP/1.1",
    b"CONNECT a:80 HTTP/1.1",
    b"CONNECT /x HTTP/1.1",
    b"GET / HTTP/1.1 ",
]
_PLAIN = [b"Accept: */*", b"X-Id: 1", b"X-Id: 2", b"Cookie: a=1", b"Cookie: a=2", b"User-Agent: " + b"u" * 200]


def repeat(rng: random.Random) -> bytes:
    """Two to six requests of one client: most fields stay, a few change."""
    fields = [b"Host: a", *rng.choices(_PLAIN, k=rng.randrange(3))]
    made = b""
    for _ in range(rng.randint(2, 6)):
        ours = list(fields)
        change = rng.choice(["none", "none", "none", "value", "value", "value", "add", "tell", "drop", "replace"])
        if change == "add":
            ours.insert(rng.randrange(len(ours) + 1), rng.choice(_PLAIN))
        elif change == "tell":
            ours.insert(rng.randrange(len(ours) + 1), rng.choice(_TELLING))
        elif change == "drop" and ours:
            ours.pop(rng.randrange(len(ours)))
        elif change == "replace" and ours:
            ours[rng.randrange(len(ours))] = rng.choice(_PLAIN + _TELLING)
        elif change == "value" and ours:
            at = rng.randrange(len(ours))
            value = rng.choice(
                [b"", b" ", b" a", b"b\t", b" a: b", b"\xff", b" %d" % rng.randrange(1000), b"\r", b" \0"]
            )
            ours[at] = ours[at].partition(b":")[0] + b":" + value
        if rng.randrange(2):
            fields = ours
        line = rng.choice(_LINES if rng.randrange(2) else _LINES[:3])
        made += line + b"\r\n" + b"".join(field + b"\r\n" for field in ours) + b"\r\n"
        joined = b"\r\n".join(ours)
        if b"Content-Length: 3" in joined or b"Content-Length: 03" in joined:
            made += b"abc"
        elif b"chunked" in joined:
            made += rng.choice([b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\nX-Id: 1\r\n\r\n"])
    return made


_chance = st.randoms(use_true_random=False)
streams = _chance.map(stream)
single_mistakes = _chance.map(one_mistake)
mutants = _chance.map(mutate)
repeats = _chance.map(repeat)


@st.composite
def cuts(draw) -> list[int] | range:
    """Where to cut a stream: nowhere, after every byte, or at a few offsets."""
    if draw(st.integers(0, 3)) == 3:
        return range(1 << 16)
    return draw(st.lists(st.integers(1, 600), max_size=6))
