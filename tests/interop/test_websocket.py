"""WebSocket clients that nobody here wrote: websockets, aiohttp, and a browser over HTTP/1.1 and over HTTP/2."""

import asyncio
import json
import queue
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from tests.clients.chromium import CHROMIUM, needs_chromium, trusting
from tests.frameworks.wires import Certificate
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from pounce.testing import TestServer

PATIENCE = 60.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echo; a text `close CODE` closes, `version` tells the version of HTTP."""
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    offered = scope["subprotocols"]
    if scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"teapot")]})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": offered[-1] if offered else None,
            "headers": [(b"set-cookie", b"seen=yes")],
        }
    )
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None and text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text[6:]), "reason": "as you wish"})
        elif text == "version":
            await send({"type": "websocket.send", "text": scope["http_version"]})
        else:
            await send({**message, "type": "websocket.send"})


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    certificate = Certificate.make(tmp_path_factory.mktemp("tls"))
    with TestServer(app) as plain, TestServer(app, **certificate.settings) as tls:
        yield {"tcp": (plain, None), "tls": (tls, certificate.client_context())}


@pytest.fixture(params=["tcp", "tls"])
def place(request: pytest.FixtureRequest, servers: dict[str, Any]) -> tuple[str, ssl.SSLContext | None]:
    """The address of a server, and what a client needs in order to trust it."""
    server, context = servers[request.param]
    return server.url.replace("http", "ws", 1), context


MESSAGES: list[str | bytes] = ["", b"", "grüße", b"\x00\xff", "x" * 100_000, bytes(range(256)) * 5000, "☃" * 70_000]


class TestWebsockets:
    @pytest.mark.parametrize(
        "extensions",
        [
            [],
            [ClientPerMessageDeflateFactory()],
            [ClientPerMessageDeflateFactory(client_max_window_bits=True)],
            [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)],
            [ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)],
        ],
        ids=["plain", "deflate", "client bits", "no takeover", "9 bits"],
    )
    def test_messages(self, place: Any, extensions: Any) -> None:
        url, context = place

        async def run() -> None:
            async with websockets.connect(
                url, ssl=context, compression=None, extensions=extensions, max_size=None
            ) as ws:
                assert ws.response is not None
                assert ws.response.headers["set-cookie"] == "seen=yes"
                assert len(ws.protocol.extensions) == len(extensions)
                for message in MESSAGES * 2:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send(["in ", "three ", "fragments"])
                assert await ws.recv() == "in three fragments"
                await asyncio.wait_for(await ws.ping(b"anyone?"), PATIENCE)
            assert ws.close_code == 1000

        asyncio.run(asyncio.wait_for(run(), PATIENCE))

    def test_many_messages_before_the_first_answer_is_read(self, place: Any) -> None:
        url, context = place

        async def run() -> None:
            async with websockets.connect(url, ssl=context) as ws:
                for number in range(2000):
                    await ws.send(f"number {number}")
                assert [await ws.recv() for _ in range(2000)] == [f"number {number}" for number in range(2000)]

        asyncio.run(asyncio.wait_for(run(), PATIENCE))

    def test_close_of_the_application(self, place: Any) -> None:
        url, context = place

        async def run() -> None:
            async with websockets.connect(url, ssl=context, subprotocols=["a", "b"]) as ws:  # type: ignore[list-item]
                assert ws.subprotocol == "b"
                await ws.send("close 4321")
                with pytest.raises(websockets.ConnectionClosedError):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (4321, "as you wish")

        asyncio.run(asyncio.wait_for(run(), PATIENCE))

    def test_too_large_a_message_is_told_while_it_is_sent(self, place: Any) -> None:
        url, context = place

        async def run() -> None:
            async with websockets.connect(url, ssl=context, compression=None) as ws:
                with pytest.raises(websockets.ConnectionClosedError):
                    await ws.send(bytes(20_000_000))
                    await ws.recv()
                assert ws.close_code == 1009

        asyncio.run(asyncio.wait_for(run(), PATIENCE))

    def test_denial(self, place: Any) -> None:
        url, context = place

        async def run() -> None:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with websockets.connect(f"{url}/deny", ssl=context):
                    pass
            response = refused.value.response
            assert (response.status_code, response.headers["x-why"], response.body) == (418, "teapot", b"no")

        asyncio.run(asyncio.wait_for(run(), PATIENCE))

    def test_shutdown_is_1012(self) -> None:
        async def run() -> None:
            async with TestServer(app) as server, websockets.connect(server.url.replace("http", "ws", 1)) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                server.shutdown()
                with pytest.raises(websockets.ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == 1012

        asyncio.run(asyncio.wait_for(run(), PATIENCE))


@pytest.mark.parametrize("compress", [0, 15, 9])
def test_aiohttp(place: Any, compress: int) -> None:
    url, context = place

    async def run() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, ssl=context or True, compress=compress, max_msg_size=0) as ws,
        ):
            for message in MESSAGES * 2:
                if isinstance(message, str):
                    await ws.send_str(message)
                    assert await ws.receive_str() == message
                else:
                    await ws.send_bytes(message)
                    assert await ws.receive_bytes() == message
            response = ws._response
            transport = response.connection and response.connection.transport
            await ws.send_str("close 3000")
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
            assert ws.close_code == 3000
            if transport is not None:
                # aiohttp leaves the end of TLS to turns of the loop that never come.
                transport.abort()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


PAGE = """<!doctype html><title>test</title><script>
const seen = [];
const ws = new WebSocket(location.href.replace("http", "ws") + "chat", ["one", "two"]);
ws.binaryType = "arraybuffer";
const send = ["version", "grüße ☃", new Uint8Array([0, 255]).buffer, "x".repeat(200000), "close 4000"];
ws.onopen = () => { seen.push(ws.protocol, ws.extensions); ws.send(send.shift()); };
ws.onmessage = (event) => {
  const data = event.data;
  seen.push(typeof data == "string" ? (data.length < 100 ? data : data.length) : [...new Uint8Array(data)]);
  ws.send(send.shift());
};
let told;
const closed = new Promise((resolve) => { told = resolve; });
ws.onclose = (event) => { seen.push(event.code, event.reason, event.wasClean); told(); };
closed.then(() => fetch("/result", {method: "POST", body: JSON.stringify(seen)}));
</script>"""


class Page:
    """Serves the page, and takes what it has seen."""

    def __init__(self) -> None:
        self.seen: queue.Queue[list[Any]] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError
        if scope["path"] == "/result":
            self.seen.put(json.loads((await receive())["body"]))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]}
        )
        await send({"type": "http.response.body", "body": PAGE.encode() if scope["path"] == "/" else b""})


@needs_chromium
@pytest.mark.parametrize(("tls", "version"), [(False, "1.1"), (True, "2")], ids=["h1", "h2"])
def test_browser(tls: bool, version: str, tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    page = Page()
    with TestServer(page, **(certificate.settings if tls else {})) as server:
        browser = subprocess.Popen(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                trusting(certificate.certificate), f"--user-data-dir={tmp_path / 'profile'}", "--no-proxy-server",
                f"{server.url}/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            protocol, extensions, *seen = page.seen.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait(60)
    assert protocol == "two"
    assert extensions.startswith("permessage-deflate")
    assert seen == [version, "grüße ☃", [0, 255], 200_000, 4000, "as you wish", True]
