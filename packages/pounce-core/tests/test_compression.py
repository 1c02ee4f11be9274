"""Compression as plain ASGI, without a server: what is coded, how, and what is left alone."""

import asyncio
import base64
import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from compression import zstd
from contextlib import suppress
from pathlib import Path
from typing import Any

import brotlicffi
import pytest

from pounce import AppError, ConfigError, load_dictionary
from pounce.middleware.compression import CHUNK, LARGE, Compression
from pounce.middleware.dictionaries import MAGIC

TEXT = b"the quick brown fox jumps over the lazy dog. " * 40
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.decompress,
    "br": brotlicffi.decompress,
    "gzip": gzip.decompress,
}


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        start = next(each for each in messages if each["type"] == "http.response.start" and each["status"] >= 200)
        self.status = start["status"]
        self.fields = [(name.decode(), value.decode()) for name, value in start["headers"]]
        self.pieces = [each["body"] for each in messages if each["type"] == "http.response.body" and "body" in each]
        self.body = b"".join(self.pieces)

    def __getitem__(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key == name]
        assert len(found) < 2, found
        return found[0] if found else None

    @property
    def coding(self) -> str | None:
        return self["content-encoding"]

    @property
    def decoded(self) -> bytes:
        return DECODERS[self.coding](self.body) if self.coding else self.body


def says(*pieces: bytes, status: int = 200, kind: str | None = "text/plain", length: bool = True, **fields: str) -> Any:
    """An application that sends these pieces as its body."""
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    if kind is not None:
        headers.append((b"content-type", kind.encode()))
    if length:
        headers.append((b"content-length", b"%d" % len(b"".join(pieces))))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = pieces if scope["method"] != "HEAD" else [b""]
        for index, piece in enumerate(body):
            await send({"type": "http.response.body", "body": piece, "more_body": index < len(body) - 1})

    return app


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ask(loop: asyncio.Runner) -> Callable[..., Answer]:
    def ask(
        app: Any,
        accept: str | None = "gzip, br, zstd",
        method: str = "GET",
        path: str = "/",
        more: Any = (),
        **settings: Any,
    ) -> Answer:
        headers = [] if accept is None else [(b"accept-encoding", accept.encode())]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": [*headers, *more],
        }
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def run() -> None:
            await Compression(app, **settings)(scope, None, send)

        loop.run(run())
        return Answer(messages)

    return ask


type Ask = Callable[..., Answer]


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
@pytest.mark.parametrize("pieces", [(TEXT,), (TEXT, TEXT), (TEXT, b"", TEXT), (b"a", b"b"), (TEXT, b"")])
@pytest.mark.parametrize("length", [True, False])
def test_body_is_coded_and_decodes_to_what_was_sent(ask: Ask, coding: str, pieces: Any, length: bool) -> None:
    answer = ask(says(*pieces, length=length), coding, min_size=1)
    assert (answer.coding, answer.decoded) == (coding, b"".join(pieces))
    assert answer["vary"] == "accept-encoding"
    assert answer["content-length"] in (None, str(len(answer.body)))
    assert (answer["content-length"] is not None) is (len(pieces) == 1)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("zstd;q=0, *", "br"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("identity", None),
        ("identity;q=0", None),
        ("identity;q=1, gzip;q=0.1", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("deflate", None),
        ("", None),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0.000", None),
        ("gzip;q=bad", None),
        (" GZip ;Q=1 ", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=0, x-gzip", None),
        ("*, x-gzip;q=0, br;q=0, zstd;q=0", None),
        (None, None),
    ],
)
def test_coding_is_the_one_that_the_client_likes_best(ask: Ask, accept: str | None, coding: str | None) -> None:
    answer = ask(says(TEXT), accept)
    assert (answer.coding, answer.decoded) == (coding, TEXT)


def test_client_that_takes_none_gets_an_answer_that_caches_keep_for_its_like(ask: Ask) -> None:
    assert ask(says(TEXT), "identity")["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    "app",
    [
        says(b"x" * 499),
        says(b"x" * 499, length=False),
        says(TEXT, kind="image/png"),
        says(TEXT, kind="video/mp4"),
        says(TEXT, kind="application/zip"),
        says(TEXT, kind="application/octet-stream"),
        says(TEXT, kind="font/woff2"),
        says(TEXT, kind=None),
        says(TEXT, kind="text/event-stream"),
        says(TEXT, content_encoding="gzip"),
        says(TEXT, cache_control="public, no-transform"),
        says(TEXT, status=206, content_range="bytes 0-1799/9999"),
        says(TEXT, content_range="bytes 0-1799/9999"),
        says(TEXT, repr_digest="sha-256=:AAAA:"),
        says(b"", status=204, length=False),
        says(b"", status=304, length=False),
    ],
)
def test_what_would_lose_by_it_is_left_alone(ask: Ask, app: Any) -> None:
    answer, plain = ask(app), ask(app, None)
    assert (answer.coding, answer.body) == (plain.coding, plain.body)
    assert [[field for field in each.fields if field[0] != "vary"] for each in (answer, plain)] == [
        [field for field in plain.fields if field[0] != "vary"]
    ] * 2


@pytest.mark.parametrize(
    "kind",
    [
        "text/html; charset=utf-8",
        "TEXT/CSS",
        "application/json",
        "application/problem+json",
        "image/svg+xml",
        "application/javascript",
        "application/wasm",
        "application/vnd.api+json; x=y",
        "text/javascript",
    ],
)
def test_types_that_shrink_are_coded(ask: Ask, kind: str) -> None:
    assert ask(says(TEXT, kind=kind)).coding == "zstd"


def test_types_can_be_chosen(ask: Ask) -> None:
    assert ask(says(TEXT, kind="model/obj"), types="model/").coding == "zstd"
    assert ask(says(TEXT), types="model/").coding is None


def test_streams_of_events_are_coded_where_asked_for(ask: Ask) -> None:
    answer = ask(says(b"data: 1\n\n", b"data: 2\n\n", kind="text/event-stream", length=False), event_streams=True)
    assert (answer.coding, answer.decoded) == ("zstd", b"data: 1\n\ndata: 2\n\n")


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
def test_each_piece_of_a_stream_can_be_decoded_when_it_comes(ask: Ask, coding: str) -> None:
    import zlib

    answer = ask(says(b"first ", b"second ", b"third", length=False), coding)
    decoder: Any = {
        "zstd": zstd.ZstdDecompressor,
        "br": brotlicffi.Decompressor,
        "gzip": lambda: zlib.decompressobj(31),
    }
    decode = decoder[coding]()
    seen = [decode.decompress(piece) for piece in answer.pieces if piece]
    assert [piece for piece in seen if piece] == [b"first ", b"second ", b"third"]


def test_strong_etag_becomes_weak_and_ranges_are_not_offered(ask: Ask) -> None:
    answer = ask(says(TEXT, etag='"v1"', accept_ranges="bytes"))
    assert (answer["etag"], answer["accept-ranges"]) == ('W/"v1"', None)
    assert ask(says(TEXT, etag='W/"v1"'))["etag"] == 'W/"v1"'


@pytest.mark.parametrize(
    ("vary", "expected"),
    [("cookie", ["cookie", "accept-encoding"]), ("Accept-Encoding", ["Accept-Encoding"]), ("*", ["*"])],
)
def test_vary_is_added_to_what_is_there(ask: Ask, vary: str, expected: list[str]) -> None:
    fields = [value for name, value in ask(says(TEXT, vary=vary)).fields if name == "vary"]
    assert fields == expected


def test_head_is_answered_as_get_would_be(ask: Ask) -> None:
    get, head = ask(says(TEXT, etag='"v"')), ask(says(TEXT, etag='"v"'), method="HEAD")
    assert head.coding == get.coding
    assert (head["etag"], head["vary"], head.body) == (get["etag"], get["vary"], b"")
    assert head["content-length"] is None
    assert ask(says(b"small"), method="HEAD")["content-length"] == "5"


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("pieces", [(TEXT,), (TEXT, TEXT), (b"small",), ()])
def test_head_of_an_application_that_sends_its_body_all_the_same_is_that_of_get(
    ask: Ask, pieces: tuple[bytes, ...], length: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(*pieces, b"", length=length)({**scope, "method": "GET"}, receive, send)

    def but_length(answer: Answer) -> list[Any]:
        return [field for field in answer.fields if field[0] != "content-length"]

    get, head = ask(app), ask(app, method="HEAD")
    if pieces or length:
        assert but_length(head) == but_length(get)
    if head.coding:
        assert head["content-length"] is None
        # What the server makes no Content-Length of.
        assert head.messages[1]["more_body"]


@pytest.mark.parametrize("of", [bytearray, memoryview, lambda value: memoryview(bytearray(value))])
@pytest.mark.parametrize("accept", ["gzip", None])
def test_fields_may_be_in_whatever_holds_bytes(ask: Ask, of: Callable[[bytes], Any], accept: str | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [[of(b"Content-Type"), of(b"text/plain")], (of(b"content-length"), of(b"%d" % len(TEXT)))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": TEXT})

    answer = ask(app, accept)
    fields = {bytes(name).lower(): bytes(value) for name, value in answer.messages[0]["headers"]}
    assert (fields.get(b"content-encoding"), fields[b"vary"]) == (accept and accept.encode(), b"accept-encoding")


@pytest.mark.parametrize("headers", [[(1, b"x")], [("content-type", "text/plain")], [b"x"], [(b"a", b"b", b"c")]])
def test_fields_that_are_none_are_left_to_who_checks_them(ask: Ask, headers: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        seen.append(start)

    with suppress(Exception):
        ask(app)
    assert seen[0]["headers"] == headers


@pytest.mark.parametrize("fields", [0, 10])
def test_answer_that_another_client_would_get_coded_says_so_whatever_else_was_asked(ask: Ask, fields: int) -> None:
    answer = ask(says(TEXT), None, more=[(b"x-%d" % number, b"1") for number in range(fields)])
    assert (answer.coding, answer["vary"]) == (None, "accept-encoding")


@pytest.mark.parametrize(
    ("given", "tag", "vary"),
    [('W/"v"', 'W/"v"', "accept-encoding"), ('"a", W/"v"', 'W/"v"', "accept-encoding"), ('"v"', '"v"', None)],
)
def test_not_modified_has_the_tag_of_the_answer_that_the_client_has(
    ask: Ask, given: str, tag: str, vary: str | None
) -> None:
    app = says(b"", status=304, kind=None, length=False, etag='"v"')
    answer = ask(app, more=[(b"if-none-match", given.encode())])
    assert (answer["etag"], answer["vary"]) == (tag, vary)
    assert ask(says(TEXT, etag='"v"'))["etag"] == 'W/"v"'


def test_interim_answers_and_trailers_pass(ask: Ask) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a>")]})
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain")],
                "trailers": True,
            }
        )
        await send({"type": "http.response.body", "body": TEXT})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    answer = ask(app)
    assert [message["type"].rpartition(".")[2] for message in answer.messages] == ["start", "start", "body", "trailers"]
    assert answer.decoded == TEXT


def sends_a_file(message: Any, kind: str = "text/plain", before: bytes = b"", after: bytes | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        if before:
            await send({"type": "http.response.body", "body": before, "more_body": True})
        await send(message)
        if after is not None:
            await send({"type": "http.response.body", "body": after})

    return app


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(TEXT * (2 * CHUNK // len(TEXT) + 1))
    return path


def test_file_of_a_type_that_shrinks_is_coded(ask: Ask, large_file: Path) -> None:
    for kind in ("http.response.pathsend", "pounce.response.sendfile"):
        answer = ask(sends_a_file({"type": kind, "path": str(large_file)}))
        assert answer.coding == "zstd"
        assert answer.decoded == large_file.read_bytes()


@pytest.mark.parametrize("before", [b"", b"before"])
def test_parts_of_open_files_are_coded_in_their_place(ask: Ask, large_file: Path, before: bytes) -> None:
    whole = large_file.read_bytes()
    with large_file.open("rb") as file:
        file.seek(7)
        sent = {"type": "http.response.zerocopysend", "file": file, "count": CHUNK + 1, "more_body": True}
        answer = ask(sends_a_file(sent, before=before, after=b"after"))
        # As the server leaves it.
        assert file.tell() == CHUNK + 8
    assert answer.decoded == before + whole[7 : CHUNK + 8] + b"after"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system cannot tell what is in the page cache")
def test_small_file_is_read_without_a_thread(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small"
    path.write_bytes(TEXT)

    def in_cache(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        # Which file systems can tell is not this test's concern.
        buffers[0][:] = TEXT[offset : offset + len(buffers[0])]
        return len(buffers[0])

    def in_thread(*args: Any) -> bytes:
        raise AssertionError("read in a thread")

    monkeypatch.setattr(os, "preadv", in_cache)
    monkeypatch.setattr(os, "pread", in_thread)
    answer = ask(sends_a_file({"type": "http.response.pathsend", "path": str(path)}))
    assert answer.coding is not None
    assert answer.decoded == TEXT


def test_file_that_does_not_shrink_is_left_to_the_server(ask: Ask, large_file: Path) -> None:
    sent = {"type": "http.response.pathsend", "path": str(large_file)}
    answer = ask(sends_a_file(sent, kind="image/png"))
    assert answer.messages[1:] == [sent]
    assert answer.coding is None


def test_file_that_becomes_shorter_breaks_the_answer(ask: Ask, large_file: Path, monkeypatch: Any) -> None:
    pread = os.pread

    def cut_before(fd: int, count: int, offset: int) -> bytes:
        large_file.write_bytes(b"x")
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", cut_before)
    with pytest.raises(AppError, match="shorter"):
        ask(sends_a_file({"type": "http.response.pathsend", "path": str(large_file)}))


def test_large_body_is_coded_beside_the_loop(ask: Ask, monkeypatch: Any) -> None:
    body = TEXT * (LARGE // len(TEXT) + 1)
    threads: list[Any] = []
    import threading

    original = Compression.coder

    def coder(self: Compression, coding: bytes, size: int | None) -> Any:
        made = original(self, coding, size)

        class Watched:
            def compress(self, data: bytes) -> bytes:
                threads.append(threading.current_thread())
                return made.compress(data)

            finish, flush = made.finish, made.flush

        return Watched()

    monkeypatch.setattr(Compression, "coder", coder)
    answer = ask(says(body), "zstd")
    assert answer.decoded == body
    assert threads != [threading.current_thread()]


def test_bytes_like_bodies_are_taken(ask: Ask) -> None:
    assert ask(says(bytearray(TEXT), length=False), "gzip").decoded == TEXT  # type: ignore[arg-type]


def test_other_scopes_pass_untouched(loop: asyncio.Runner) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((receive, send))

    async def run() -> None:
        await Compression(app)({"type": "websocket", "headers": []}, 1, 2)  # type: ignore[arg-type]

    loop.run(run())
    assert seen == [1, 2]


@pytest.mark.parametrize("settings", [{"zstd_level": 99}, {"gzip_level": 10}, {"br_level": 12}, {"types": "("}])
def test_setting_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Compression(None, **settings)


def test_coding_without_a_level_is_not_offered(ask: Ask) -> None:
    assert ask(says(TEXT), zstd_level=None).coding == "br"


def test_may_be_configured_first_and_given_its_application_later(loop: asyncio.Runner) -> None:
    wrapped = Compression(min_size=7).wrap(says(TEXT))
    assert wrapped.min_size == 7
    assert wrapped.app is not None


# Dictionaries (RFC 9842)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "app.v1.js"
    path.write_bytes(TEXT)
    return path


NEW = TEXT + b"one line more"


def has(path: Path) -> list[tuple[bytes, bytes]]:
    digest = base64.b64encode(hashlib.sha256(path.read_bytes()).digest())
    return [(b"available-dictionary", b":" + digest + b":")]


def ask_with(ask: Ask, old: Path, *more: Any, accept: str = "gzip, br, zstd, dcb, dcz", **fields: str) -> Answer:
    dictionary = load_dictionary(old, "/static/app.*.js")
    return ask(
        says(NEW, kind="text/javascript", **fields),
        accept,
        path="/static/app.v2.js",
        more=[*has(old), *more],
        dictionaries=[dictionary],
    )


def test_difference_to_what_the_client_has_is_sent(ask: Ask, old: Path) -> None:
    answer = ask_with(ask, old)
    assert answer.coding == "dcz"
    assert answer.body[:40] == MAGIC + hashlib.sha256(TEXT).digest()
    frame = answer.body[40:]
    assert zstd.decompress(frame, zstd_dict=zstd.ZstdDict(TEXT, is_raw=True)) == NEW
    assert len(answer.body) < 100
    assert answer["vary"] == "accept-encoding, available-dictionary"


def test_client_must_accept_dcz(ask: Ask, old: Path) -> None:
    assert ask_with(ask, old, accept="zstd").coding == "zstd"
    assert ask_with(ask, old, accept="zstd, dcz;q=0").coding == "zstd"


def test_other_dictionary_is_not_used(ask: Ask, old: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    for available in (has(other), [(b"available-dictionary", b"nonsense")], [(b"available-dictionary", b":AAAA:")]):
        answer = ask(
            says(NEW), "zstd, dcz", path="/static/app.v2.js", more=available, dictionaries=[load_dictionary(old, "/*")]
        )
        assert answer.coding == "zstd"


def test_dictionary_is_for_its_own_paths(ask: Ask, old: Path) -> None:
    answer = ask(says(NEW), "dcz", path="/other", more=has(old), dictionaries=[load_dictionary(old, "/static/*")])
    assert answer.coding is None


@pytest.mark.parametrize(
    ("site", "mode", "allowed", "coding"),
    [
        ("same-origin", "cors", None, "dcz"),
        ("cross-site", "navigate", None, "dcz"),
        ("cross-site", "no-cors", None, "zstd"),
        ("cross-site", "cors", None, "zstd"),
        ("cross-site", "cors", "*", "dcz"),
        ("cross-site", "cors", "https://a.example", "dcz"),
        ("cross-site", "cors", "https://b.example", "zstd"),
    ],
)
def test_page_that_may_not_read_the_answer_does_not_get_a_difference(
    ask: Ask, old: Path, site: str, mode: str, allowed: str | None, coding: str
) -> None:
    fetch = [
        (b"sec-fetch-site", site.encode()),
        (b"sec-fetch-mode", mode.encode()),
        (b"origin", b"https://a.example"),
    ]
    fields = {"access_control_allow_origin": allowed} if allowed else {}
    assert ask_with(ask, old, *fetch, accept="zstd, dcz", **fields).coding == coding


def test_dictionary_at_an_address_of_its_own_is_linked_to_and_served(ask: Ask, old: Path) -> None:
    dictionary = load_dictionary(old, "/static/app.*.js", id="v1")
    answer = ask(says(NEW), "gzip", path="/static/app.v2.js", dictionaries=[dictionary])
    link = answer["link"]
    assert link is not None
    url, _, parameters = link.partition(">")
    assert parameters == '; rel="compression-dictionary"'
    served = ask(says(b"app"), None, path=url[1:], dictionaries=[dictionary])
    assert (served.status, served.body) == (200, TEXT)
    assert served["use-as-dictionary"] == 'match="/static/app.*.js", id="v1"'
    assert served["cache-control"] == "public, max-age=604800, immutable"
    assert ask(says(NEW), "gzip", path="/other", dictionaries=[dictionary])["link"] is None


def test_dictionary_that_is_not_there_is_404(ask: Ask, old: Path) -> None:
    dictionary = load_dictionary(old, "/*")
    path = "/.well-known/compression-dictionary/" + "0" * 64
    assert ask(says(b"app"), None, path=path, dictionaries=[dictionary]).status == 404


def test_resource_of_the_site_says_what_it_is_good_for(ask: Ask, old: Path) -> None:
    dictionary = load_dictionary(old, "/static/app.*.js", url="/static/app.v1.js")
    answer = ask(says(TEXT, kind="text/javascript"), "gzip", path="/static/app.v1.js", dictionaries=[dictionary])
    assert answer["use-as-dictionary"] == 'match="/static/app.*.js"'
    assert ask(says(TEXT), "gzip", path="/static/app.v2.js", dictionaries=[dictionary])["link"] is None


@pytest.mark.parametrize("match", ["static/*", '/a"b', "/a(b)", "/a?b", "/é", ""])
def test_match_that_is_no_path_is_refused(old: Path, match: str) -> None:
    with pytest.raises(ConfigError, match="match"):
        load_dictionary(old, match)


def test_dictionary_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dictionary(tmp_path / "none", "/*")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ConfigError):
        load_dictionary(tmp_path / "empty", "/*")


@pytest.mark.parametrize("size", [2, 2000])
def test_fields_that_can_be_had_only_once_reach_the_client(ask: Ask, size: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-type", b"text/plain"), (b"x-mine", b"1"), (b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": iter(fields)})
        await send({"type": "http.response.body", "body": b"a" * size})

    answer = ask(app)
    assert (answer["content-type"], answer["x-mine"]) == ("text/plain", "1")
    assert answer.decoded == b"a" * size
