"""HTTP/3 clients that nobody here wrote."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qh3.tls import ClientHello, Group
from tests.clients.chromium import needs_chromium, page_at
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, answer, read_body

from pounce_h3 import qh3_tls
from pounce_h3.qh3_tls import Context

Start = Callable[..., Started]

PAGE = b"""<!doctype html><p id=how></p><p id=post></p><p id=gone></p><p id=socket></p><img src="/hold"><script>
(async () => {
  how.textContent = performance.getEntriesByType("navigation")[0].nextHopProtocol
  const body = new Uint8Array(300000)
  post.textContent = await (await fetch("/echo", {method: "POST", body})).text()
  const controller = new AbortController()
  const answer = await fetch("/endless", {signal: controller.signal})
  await answer.body.getReader().read()
  controller.abort()
  let told = "no"
  while (told === "no") told = await (await fetch("/told")).text()
  gone.textContent = told
  let said = ""
  const socket = new WebSocket("wss://" + location.host + "/socket")
  socket.onmessage = (event) => { said = event.data }
  socket.onerror = () => { said = "failed" }
  while (!said) await (await fetch("/told")).text()
  document.getElementById("socket").textContent = said
  await fetch("/done")
})()
</script>"""


class Site:
    """The page is loaded, as far as the browser knows, when its script is done: its image comes then."""

    def __init__(self) -> None:
        self.told = "no"
        self.done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": f"hello over {scope['http_version']}"})
            await receive()
        elif scope["path"] == "/":
            await answer(send, PAGE, headers=[(b"content-type", b"text/html")])
        elif scope["path"] == "/echo":
            await answer(send, b"%d bytes over %s" % (len(await read_body(receive)), scope["http_version"].encode()))
        elif scope["path"] == "/endless":
            await send({"type": "http.response.start", "status": 200})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            except OSError as exc:
                self.told = type(exc).__name__
        elif scope["path"] == "/done":
            self.done.set()
            await answer(send)
        elif scope["path"] == "/hold":
            await asyncio.wait_for(self.done.wait(), PATIENCE)
            await answer(send)
        else:
            await answer(send, self.told.encode())


@needs_chromium
def test_chromium_loads_posts_breaks_off_and_opens_a_websocket(start: Start, tmp_path: Path) -> None:
    server = start(Site())
    flags = ["--enable-features=EnableWebsocketsOverHttp3"]
    page = page_at(server.server.port, server.certificate.certfile, tmp_path, *flags)
    found = dict(re.findall(r'<p id="(\w+)">([^<]*)</p>', page))
    assert found == {"how": "h3", "post": "300000 bytes over 3", "gone": "ClientGone", "socket": "hello over 3"}


@needs_chromium
def test_chromium_makes_a_key_of_the_one_group_that_the_server_knows(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it makes keys of two others: it is asked for one by a HelloRetryRequest (RFC 8446 4.1.4)."""
    asked: list[set[int]] = []
    retry = Context._retry

    def counted(context: Context, hello: ClientHello, *rest: Any) -> None:
        asked.append({group for group, _ in hello.key_share or ()})
        retry(context, hello, *rest)

    monkeypatch.setattr(qh3_tls, "GROUPS", {Group.SECP256R1})
    monkeypatch.setattr(Context, "_retry", counted)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello over %b" % scope["http_version"].encode())

    server = start(app)
    assert "hello over 3" in page_at(server.server.port, server.certificate.certfile, tmp_path)
    assert asked[0] >= {Group.X25519, Group.X25519ML768}


def test_alpn_must_be_h3(start: Start) -> None:
    from tests.conformance.h3 import H3Client

    server = start(Site())
    with (
        pytest.raises(OSError),
        H3Client(server.server.host, server.server.port, server.certificate.certfile, alpn=("hq-interop",)),
    ):
        pass
