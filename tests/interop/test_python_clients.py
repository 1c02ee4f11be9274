"""HTTP clients of the Python world."""

import asyncio
import hashlib
import http.client
import io
import ssl
from collections.abc import Iterator
from contextlib import closing

import aiohttp
import httpx
import pytest
import urllib3
from tests.interop.conftest import CONTENT, Sites

DIGEST = hashlib.sha256(CONTENT).hexdigest()
NUMBERS = b"".join(b"%05d\n" % number for number in range(100))

CONNECTIONS, REQUESTS = 100, 120
"""Not many more: what the pool of httpx does for each grows with the number that waits."""


def pieces() -> Iterator[bytes]:
    for at in range(0, len(CONTENT), 65_536):
        yield CONTENT[at : at + 65_536]


@pytest.fixture
def context(sites: Sites) -> ssl.SSLContext:
    return sites.certificate.client_context()


class TestHTTPClient:
    @pytest.fixture
    def connection(self, url: str, context: ssl.SSLContext) -> Iterator[http.client.HTTPConnection]:
        scheme, _, rest = url.partition("://")
        if scheme == "https":
            made = http.client.HTTPSConnection(rest, context=context, timeout=60)
        else:
            made = http.client.HTTPConnection(rest, timeout=60)
        with closing(made):
            yield made

    def test_requests_follow_each_other_on_one_connection(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        sock = connection.sock
        for _ in range(3):
            connection.request("GET", "/stream")
            assert connection.getresponse().read() == NUMBERS
        assert connection.sock is sock

    def test_upload_with_and_without_a_length(self, connection: http.client.HTTPConnection) -> None:
        for body, chunked in ((CONTENT, False), (pieces(), True)):
            connection.request("POST", "/echo", body=body, encode_chunked=chunked)
            assert DIGEST in connection.getresponse().read().decode()

    def test_head_and_unknown_method(self, connection: http.client.HTTPConnection) -> None:
        connection.request("HEAD", "/hello")
        assert connection.getresponse().read() == b""
        connection.request("FROBNICATE", "/hello")
        response = connection.getresponse()
        response.read()
        assert response.status == 405


class TestHTTPX:
    def test_hundred_connections_at_once(self, url: str, context: ssl.SSLContext) -> None:
        async def run() -> list[bytes]:
            limits = httpx.Limits(max_connections=CONNECTIONS)
            async with httpx.AsyncClient(
                base_url=url, verify=context, limits=limits, trust_env=False, timeout=60
            ) as client:
                asked = [client.post("/echo", content=b"%d" % number) for number in range(REQUESTS)]
                answers = await asyncio.gather(*asked)
            return [answer.json()["sha256"] for answer in answers]

        assert asyncio.run(run()) == [hashlib.sha256(b"%d" % number).hexdigest() for number in range(REQUESTS)]

    def test_sync_client_downloads_and_uploads(self, url: str, context: ssl.SSLContext) -> None:
        with httpx.Client(base_url=url, verify=context, trust_env=False, timeout=60) as client:
            assert hashlib.sha256(client.get("/file").content).hexdigest() == DIGEST
            assert client.post("/echo", content=pieces()).json()["sha256"] == DIGEST
            assert client.get("/stream").content == NUMBERS


class TestURLLib3:
    @pytest.fixture
    def pool(self, url: str, context: ssl.SSLContext) -> Iterator[urllib3.HTTPConnectionPool]:
        with urllib3.PoolManager(ssl_context=context) as manager:
            yield manager.connection_from_url(url)

    def test_pool_uses_its_connection_again(self, pool: urllib3.HTTPConnectionPool) -> None:
        for _ in range(3):
            assert pool.request("GET", "/stream").data == NUMBERS
        assert pool.request("PUT", "/echo", body=CONTENT).json()["sha256"] == DIGEST
        assert pool.request("POST", "/echo", fields={"a": "1"}).json()["bytes"] > 0
        assert (pool.num_connections, pool.num_requests) == (1, 5)

    def test_answer_is_read_in_pieces(self, pool: urllib3.HTTPConnectionPool) -> None:
        digest = hashlib.sha256()
        response = pool.request("GET", "/file", preload_content=False)
        for piece in response.stream(10_000):
            digest.update(piece)
        response.release_conn()
        assert digest.hexdigest() == DIGEST


class TestAIOHTTP:
    def test_session_of_many_requests(self, url: str, context: ssl.SSLContext) -> None:
        async def upload() -> object:
            for piece in pieces():
                yield piece

        async def run() -> tuple[list[bytes], str, str]:
            async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=context)) as session:

                async def get(path: str) -> bytes:
                    async with session.get(path) as response:
                        return await response.read()

                streams = await asyncio.gather(*(get("/stream") for _ in range(50)))
                async with session.post("/echo", data=upload()) as response:
                    chunked = (await response.json())["sha256"]
                async with session.post("/echo", data=io.BytesIO(CONTENT), expect100=True) as response:
                    expected = (await response.json())["sha256"]
                return streams, chunked, expected

        assert asyncio.run(run()) == ([NUMBERS] * 50, DIGEST, DIGEST)
