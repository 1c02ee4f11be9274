"""HTTP/3 clients that nobody here wrote."""

import asyncio
import base64
import re
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, answer, read_body

Start = Callable[..., Started]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

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


def spki(certfile: str) -> str:
    key = x509.load_pem_x509_certificate(Path(certfile).read_bytes()).public_key()
    return base64.b64encode(sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_chromium_loads_posts_breaks_off_and_opens_a_websocket(start: Start, tmp_path: Path) -> None:
    server = start(Site())
    origin = f"localhost:{server.server.port}"
    page = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}", "--no-proxy-server", f"--origin-to-force-quic-on={origin}",
            "--host-resolver-rules=MAP localhost 127.0.0.1", "--enable-features=EnableWebsocketsOverHttp3",
            f"--ignore-certificate-errors-spki-list={spki(server.certificate.certfile)}",
            "--dump-dom", f"https://{origin}/",
        ],
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout.decode()  # fmt: skip
    found = dict(re.findall(r'<p id="(\w+)">([^<]*)</p>', page))
    assert found == {"how": "h3", "post": "300000 bytes over 3", "gone": "ClientGone", "socket": "hello over 3"}


def test_alpn_must_be_h3(start: Start) -> None:
    from tests.conformance.h3 import H3Client

    server = start(Site())
    with (
        pytest.raises(OSError),
        H3Client(server.server.host, server.server.port, server.certificate.certfile, alpn=("hq-interop",)),
    ):
        pass
