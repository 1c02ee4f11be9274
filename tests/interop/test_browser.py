"""A real browser, without a window."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.frameworks.wires import Certificate

from pounce.testing import TestServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


class WithAnEnd:
    """The example, but its stream of events ends: the browser's virtual time stands still while one is open."""

    def __init__(self) -> None:
        self.app = importlib.import_module("examples.fastapi_app").app
        self.streams = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/events":
            await self.app(scope, receive, send)
            return
        self.streams += 1
        # To a browser that comes back for more events, 204 says that there are none.
        status = 200 if self.streams == 1 else 204
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"retry: 10\ndata: 7\n\n" if status == 200 else b""})


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_page_of_the_example_is_filled_in_by_its_script(tls: bool, tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    with TestServer(WithAnEnd(), **(certificate.settings if tls else {})) as server:
        page = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--ignore-certificate-errors", f"--user-data-dir={tmp_path / 'profile'}", "--no-proxy-server",
                "--virtual-time-budget=5000", "--dump-dom", f"{server.url}/",
            ],
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout.decode()  # fmt: skip
    assert "<h1>It works</h1>" in page
    assert re.findall(r'<span id="version">([^<]*)</span>', page) == ["2" if tls else "1.1"]
    assert re.findall(r'<code id="events">([^<]*)</code>', page) == ["7"]
