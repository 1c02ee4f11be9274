"""HTTP/2 with clients that nobody here wrote: curl, nghttp, h2load, httpx. The browser has a file of its own."""

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.interop.conftest import CONTENT, Sites
from tests.interop.test_curl import DIGEST, curl, head_and_body

from pounce.testing import TestServer

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_nghttp = pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp is not installed")


@pytest.fixture
def http2(url: str) -> tuple[str, ...]:
    """What makes curl speak HTTP/2 to the server."""
    return ("--http2",) if url.startswith("https") else ("--http2-prior-knowledge",)


@needs_curl
def test_curl_gets(url: str, http2: tuple[str, ...]) -> None:
    status, fields, body = head_and_body(curl(*http2, "--include", f"{url}/hello"))
    assert (status, body) == ("HTTP/2 200 ", b"hello over 2\n")
    assert fields["content-length"] == str(len(body))


@needs_curl
def test_curl_uploads_and_downloads(url: str, http2: tuple[str, ...], content_file: Path) -> None:
    answer = json.loads(curl(*http2, "--upload-file", str(content_file), f"{url}/echo"))
    assert (answer["bytes"], answer["sha256"]) == (len(CONTENT), DIGEST)
    assert hashlib.sha256(curl(*http2, f"{url}/file")).hexdigest() == DIGEST


@needs_curl
def test_curl_reads_an_answer_that_stops_its_upload(url: str, http2: tuple[str, ...], content_file: Path) -> None:
    output = curl(*http2, "--include", "--data-binary", f"@{content_file}", f"{url}/refuse")
    status, _, body = head_and_body(output)
    assert (status, body) == ("HTTP/2 403 ", b"no\n")


@needs_curl
def test_curl_waits_for_100_continue(url: str, http2: tuple[str, ...], content_file: Path) -> None:
    output = curl(
        *http2, "--include", "--header", "Expect: 100-continue", "--expect100-timeout", "20",
        "--data-binary", f"@{content_file}", f"{url}/echo",
    )  # fmt: skip
    interim, _, rest = output.partition(b"\r\n\r\n")
    assert interim == b"HTTP/2 100 "
    assert json.loads(head_and_body(rest)[2])["sha256"] == DIGEST


@needs_curl
def test_curl_uses_one_connection_for_many_transfers(sites: Sites, tmp_path: Path) -> None:
    curl(
        "--http2",
        "--parallel",
        "--parallel-max",
        "30",
        "--output",
        f"{tmp_path}/#1",
        f"{sites.https.url}/stream?[1-90]",
    )
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 90
    assert contents == {b"".join(b"%05d\n" % number for number in range(100))}


@pytest.fixture
def changing() -> Iterator[str]:
    """A server that lets clients change to HTTP/2 by Upgrade."""
    with TestServer(answer, lifespan="off", plugin_settings={"h2": {"upgrade": True}}) as server:
        yield server.url


async def answer(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s %d " % (scope["http_version"].encode(), len(body))})


@needs_curl
def test_curl_changes_to_http_2(changing: str) -> None:
    first, _, rest = curl("--http2", "--include", f"{changing}/a", f"{changing}/b").partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 101 ")
    assert (rest.count(b"HTTP/2 200"), rest.count(b"2 0 ")) == (2, 2)


@needs_curl
def test_curl_does_not_change_with_a_body(changing: str) -> None:
    output = curl("--http2", "--include", "--data", "body", f"{changing}/")
    assert output.startswith(b"HTTP/1.1 200 ")
    assert output.endswith(b"1.1 4 ")


@needs_curl
def test_curl_is_answered_over_http_1_where_changing_is_off(sites: Sites) -> None:
    assert curl("--http2", "--include", f"{sites.http.url}/hello").startswith(b"HTTP/1.1 200 ")


@needs_nghttp
def test_nghttp_changes_to_http_2(changing: str) -> None:
    output = run("nghttp", "--upgrade", "--verbose", f"{changing}/a", f"{changing}/b")
    assert "HTTP Upgrade success" in output
    assert output.count("2 0 ") == 2
    assert "recv GOAWAY" not in output


@needs_curl
def test_curl_over_a_unix_socket(sites: Sites) -> None:
    output = curl("--http2-prior-knowledge", "--unix-socket", sites.unix, "http://localhost/hello")
    assert output == b"hello over 2\n"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace")


@needs_nghttp
def test_nghttp_gets_trailers_and_many_streams(url: str) -> None:
    output = run("nghttp", "--no-verify-peer", "--verbose", f"{url}/trailers", f"{url}/hello", f"{url}/file")
    assert "x-sum: 42" in output
    assert "hello over 2" in output
    assert "recv GOAWAY" not in output
    assert "recv RST_STREAM" not in output


@needs_nghttp
def test_nghttp_uploads_with_padding_and_small_frames(url: str, content_file: Path) -> None:
    output = run(
        "nghttp", "--no-verify-peer", "--data", str(content_file), "--padding=255", "--window-bits=16",
        "--header-table-size=0", "--header-table-size=100", f"{url}/echo",
    )  # fmt: skip
    assert DIGEST in output


@needs_nghttp
def test_h2load_gets_an_answer_to_every_request(url: str) -> None:
    output = run("h2load", "--requests=3000", "--clients=10", "--max-concurrent-streams=50", f"{url}/hello")
    assert re.search(r"3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored", output), output


def test_httpx_runs_requests_side_by_side(url: str, sites: Sites) -> None:
    async def requests() -> None:
        context = sites.certificate.client_context()
        async with httpx.AsyncClient(http1=False, http2=True, verify=context, trust_env=False) as client:
            answers = await asyncio.gather(*(client.post(f"{url}/echo", content=CONTENT[:70_000]) for _ in range(50)))
            digest = hashlib.sha256(CONTENT[:70_000]).hexdigest()
            assert {(answer.http_version, answer.json()["sha256"]) for answer in answers} == {("HTTP/2", digest)}

    asyncio.run(requests())
