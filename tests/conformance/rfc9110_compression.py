"""Compression by the server over every wire."""

import gzip
from compression import zstd
from typing import Any

from tests.conformance.wires import Wire

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
