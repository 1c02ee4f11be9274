"""Compression by the server over every wire."""

import asyncio
import gzip
from compression import zstd
from typing import Any

import pytest
from tests.conformance.wires import Wire

from pounce.middleware import Compression

TEXT = b"the quick brown fox jumps over the lazy dog. " * 400
HEADERS = [(b"content-type", b"text/plain"), (b"etag", b'"v"')]


def app(pieces: int = 1) -> Any:
    async def sends(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        for index in range(pieces):
            body = TEXT if scope["method"] == "GET" else b""
            await send({"type": "http.response.body", "body": body, "more_body": index < pieces - 1})

    return sends


oops = app()


def test_client_that_accepts_it_gets_it_coded(wire: Wire) -> None:
    with wire.share(app()).connect() as client:
        plain = client.request("GET", "/")
        assert plain.body == TEXT
        coded = client.request("GET", "/", [(b"accept-encoding", b"gzip;q=0.5, zstd")])
        fields = dict(coded.headers)
        assert (fields[b"content-encoding"], fields[b"vary"], fields[b"etag"]) == (
            b"zstd",
            b"accept-encoding",
            b'W/"v"',
        )
        assert zstd.decompress(coded.body) == TEXT
        assert int(fields[b"content-length"]) == len(coded.body) < len(TEXT)
        head = client.request("HEAD", "/", [(b"accept-encoding", b"gzip")])
        assert (dict(head.headers)[b"content-encoding"], head.body) == (b"gzip", b"")
        assert b"content-length" not in dict(head.headers)
        # The next request of the connection finds its own answer.
        assert client.request("GET", "/").body == TEXT


def test_stream_is_coded_as_one(wire: Wire) -> None:
    with wire.share(app(5)).connect() as client:
        coded = client.request("GET", "/", [(b"accept-encoding", b"gzip")])
        assert gzip.decompress(coded.body) == TEXT * 5


@pytest.mark.parametrize("coding", [b"gzip", b"zstd", b"identity"])
@pytest.mark.parametrize("pieces", [(TEXT, TEXT), (TEXT, TEXT, b"")], ids=["2", "3"])
@pytest.mark.parametrize("more", [-1, 1])
def test_body_of_another_length_than_was_said_does_not_look_whole(
    wire: Wire, coding: bytes, pieces: tuple[bytes, ...], more: int, caplog: pytest.LogCaptureFixture
) -> None:
    length = b"%d" % (len(b"".join(pieces)) - more)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-type", b"text/plain"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for at, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": at < len(pieces) - 1})

    server = wire.start(app, lifespan="off")
    assert not server.request("GET", "/", [(b"accept-encoding", coding)]).complete
    server.stop()
    assert f"is {'longer' if more > 0 else 'shorter'} than its Content-Length" in caplog.text


def test_it_can_be_switched_off(wire: Wire) -> None:
    with wire.share(app(), compression=False).connect() as client:
        plain = client.request("GET", "/", [(b"accept-encoding", b"gzip")])
        assert plain.body == TEXT
        assert b"vary" not in dict(plain.headers)


def test_small_static_file_is_coded_and_a_part_of_it_is_not(wire: Wire, tmp_path: Any) -> None:
    (tmp_path / "a.css").write_bytes(TEXT)
    with wire.start(app(), static_files={"/static": str(tmp_path)}).connect() as client:
        whole = client.request("GET", "/static/a.css", [(b"accept-encoding", b"zstd")])
        assert zstd.decompress(whole.body) == TEXT
        tag = dict(whole.headers)[b"etag"]
        assert tag.startswith(b"W/")
        for field, value in ((b"if-none-match", tag), (b"if-none-match", b'"other", ' + tag)):
            same = client.request("GET", "/static/a.css", [(b"accept-encoding", b"zstd"), (field, value)])
            fields = dict(same.headers)
            assert (same.status, fields[b"etag"], fields[b"vary"]) == (304, tag, b"accept-encoding")
        head = client.request("HEAD", "/static/a.css", [(b"accept-encoding", b"zstd")])
        assert {name: value for name, value in head.headers if name != b"date"} == {
            name: value for name, value in whole.headers if name not in (b"date", b"content-length")
        }
        part = client.request("GET", "/static/a.css", [(b"accept-encoding", b"zstd"), (b"range", b"bytes=0-999")])
        assert (part.status, part.body) == (206, TEXT[:1000])


@pytest.mark.parametrize("size", [0, 20, 499, 500, 5000])
@pytest.mark.parametrize("length", [True, False])
def test_exchange_asks_for_the_same_as_the_middleware_makes(wire: Wire, size: int, length: bool) -> None:
    """Where compression is the outermost, the exchange asks it; under another middleware it wraps the application."""

    async def sends(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = [*HEADERS, (b"content-length", b"%d" % size)] if length else HEADERS
        # May be had only once.
        await send({"type": "http.response.start", "status": 200, "headers": iter(headers)})
        await send({"type": "http.response.body", "body": TEXT[:size]})

    def wrapped(app: Any) -> Any:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            await coded(scope, receive, send)

        coded = Compression(app)
        return outer

    with (
        wire.share(sends).connect() as client,
        wire.share(sends, compression=False, middleware=(wrapped,)).connect() as other,
    ):
        for method in ("GET", "HEAD"):
            for fields in ([], [(b"accept-encoding", b"gzip")], [(b"accept-encoding", b"zstd;q=0, br")]):
                found = client.request(method, "/", fields)
                expected = other.request(method, "/", fields)
                assert found.body == expected.body
                own = (b"date", b"alt-svc")
                assert [each for each in found.headers if each[0] not in own] == [
                    each for each in expected.headers if each[0] not in own
                ]


def test_what_the_application_does_not_answer_is_left_as_it_is(wire: Wire) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise RuntimeError("on purpose")

    with wire.share(fails, error_pages={"500": f"{__name__}:oops"}).connect() as client:
        answer = client.request("GET", "/", [(b"accept-encoding", b"gzip")])
        assert (answer.status, answer.body) == (500, TEXT)
        assert b"content-encoding" not in dict(answer.headers)


def test_pieces_of_several_tasks_are_coded_as_one(wire: Wire) -> None:
    async def sends(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(send({"type": "http.response.body", "body": TEXT, "more_body": True}))
        await send({"type": "http.response.body", "body": b""})

    with wire.share(sends).connect() as client:
        coded = client.request("GET", "/", [(b"accept-encoding", b"gzip")])
        assert gzip.decompress(coded.body) == TEXT * 40
