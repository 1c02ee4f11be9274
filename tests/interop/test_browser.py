"""A real browser, without a window."""

import asyncio
import html
import importlib
import json
import random
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.clients.chromium import CHROMIUM, needs_chromium, trusting
from tests.frameworks.wires import Certificate, ServerLog
from tests.workers.running import eventually
from websockets.sync.client import connect

from pounce import load_dictionary
from pounce.testing import TestServer

PATIENCE = 60

pytestmark = needs_chromium


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


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
)  # fmt: skip


def shown(url: str, folder: Path, *flags: str) -> str:
    """The page as it is when everything on it is loaded."""
    return subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", url],
        capture_output=True,
        timeout=90,
        check=True,
    ).stdout.decode()



@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_page_of_the_example_is_filled_in_by_its_script(tls: bool, tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    with TestServer(WithAnEnd(), **(certificate.settings if tls else {})) as server:
        page = shown(f"{server.url}/", tmp_path, "--virtual-time-budget=5000", trusting(certificate.certificate))
    assert "<h1>It works</h1>" in page
    assert re.findall(r'<span id="version">([^<]*)</span>', page) == ["2" if tls else "1.1"]
    assert re.findall(r'<code id="events">([^<]*)</code>', page) == ["7"]


@contextmanager
def opened(url: str, folder: Path, *flags: str) -> Iterator[Callable[[str], Any]]:
    """A browser with this page, by what gives the value of an expression in it (DevTools protocol); None before the
    page is there."""
    profile = folder / "profile"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", *flags, url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as browser:
        try:
            where = profile / "DevToolsActivePort"
            eventually(lambda: where.exists() and where.read_text().count("\n") == 1)
            port = where.read_text().split()[0]
            eventually(lambda: len(pages(port)) == 1)
            with connect(pages(port)[0], max_size=None, proxy=None) as socket:

                def value(expression: str) -> Any:
                    socket.send(
                        json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression}})
                    )
                    told = json.loads(socket.recv(PATIENCE))
                    return told.get("result", {}).get("result", {}).get("value")

                yield value
        finally:
            browser.kill()


def pages(port: str) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
        return [each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"]


@pytest.mark.parametrize("tls", [False, True], ids=["h1", "h2"])
def test_status_page_shows_what_the_server_does(tls: bool, tmp_path: Path) -> None:
    """What it reads has no end."""
    certificate = Certificate.make(tmp_path)
    settings = certificate.settings if tls else {}
    with (
        TestServer(WithAnEnd(), status_page_enabled=True, **settings) as server,
        opened(f"{server.url}/_pounce/", tmp_path, trusting(certificate.certificate)) as value,
    ):
        eventually(lambda: f"over h{2 if tls else 1}" in (value("document.body.textContent") or ""))
        assert value("document.getElementById('state').textContent") == "live"


class Scripted:
    """A page whose script reports when it is done: until then one of its images is not there."""

    def __init__(self, script: str) -> None:
        self._page = f"""<!doctype html><pre id="told"></pre><img src="/hold"><script>(async () => {{
            let told;
            try {{ told = await (async () => {{ {script} }})(); }} catch (error) {{ told = `${{error}}`; }}
            document.getElementById("told").textContent = JSON.stringify(told);
            await fetch("/done");
        }})();</script>"""
        self._done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        match scope["path"]:
            case "/fails":
                self.fail("<b>&amp;</b>", f"hunter{1 + 1}")
            case "/done":
                self._done.set()
            case "/hold":
                async with asyncio.timeout(PATIENCE):
                    await self._done.wait()
        body = self._page.encode() if scope["path"] == "/" else b""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": body})

    def fail(self, markup: str, password: str) -> None:
        raise LookupError(f"nothing for {markup}", len(password))

    def told(self, url: str, folder: Path, *flags: str) -> Any:
        page = shown(url, folder, *flags)
        found = re.search('<pre id="told">([^<]*)</pre>', page)
        assert found is not None, page
        return json.loads(html.unescape(found[1]))


def test_browser_takes_a_file_as_the_difference_to_its_earlier_version(tmp_path: Path) -> None:
    """RFC 9842, over https; the browser needs a moment before it has the dictionary."""
    folder = tmp_path / "static"
    folder.mkdir()
    chance = random.Random(7)
    earlier = "".join(f"function f{number}() {{ return {chance.random()} }}\n" for number in range(2000))
    (folder / "app.v1.js").write_text(earlier)
    (folder / "app.v2.js").write_text(earlier + "// the end")
    page = Scripted("""
        await (await fetch("/static/app.v1.js")).text();
        for (let number = 0; ; number++) {
            const url = "/static/app.v2.js?" + number;
            const answer = await fetch(url);
            const text = await answer.text();
            const coding = answer.headers.get("content-encoding");
            const size = performance.getEntriesByName(new URL(url, location)).pop().encodedBodySize;
            if (coding == "dcz" || number == 200) return [coding, text.length, text.slice(-7), size];
            await new Promise(resolve => setTimeout(resolve, 50));
        }
    """)
    dictionary = load_dictionary(folder / "app.v1.js", match="/static/app.*.js", url="/static/app.v1.js")
    settings = {"static_files": {"/static": str(folder)}, "compression_dictionaries": [dictionary]}
    certificate = Certificate.make(tmp_path)
    with TestServer(page, **settings, **certificate.settings) as server:
        url = f"https://localhost:{server.port}/"
        coding, length, end, size = page.told(url, tmp_path, trusting(certificate.certificate))
    assert (coding, length, end) == ("dcz", len(earlier) + 10, "the end")
    assert size < 200


def test_debug_page_shows_the_failure_and_its_button_works(tmp_path: Path, server_log: ServerLog) -> None:
    page = Scripted("""
        const frame = document.createElement("iframe");
        frame.src = "/fails";
        await new Promise(resolve => { frame.onload = resolve; document.body.append(frame); });
        const shown = frame.contentDocument;
        shown.getElementById("copy").click();
        await new Promise(resolve => setTimeout(resolve, 0));
        for (let n = 0; n < 100 && shown.getElementById("copy").textContent != "Copied"; n++)
            await new Promise(resolve => setTimeout(resolve, 50));
        const opened = shown.querySelectorAll("details[open] > summary");
        return {
            title: shown.querySelector("h1").textContent,
            message: shown.querySelector(".message").textContent,
            first: opened[0].textContent,
            here: shown.querySelector("li.here").textContent,
            button: shown.getElementById("copy").textContent,
            styled: shown.defaultView.getComputedStyle(shown.querySelector("li")).whiteSpaceCollapse,
            bold: shown.querySelectorAll("main b").length,
            secret: shown.documentElement.textContent.includes("hunter" + 2),
        };
    """)
    with TestServer(page, debug=True) as server:
        found = page.told(f"http://localhost:{server.port}/", tmp_path)
    assert len(server_log.take()) == 1
    assert found["first"].endswith("in Scripted.fail")
    found.pop("first")
    assert found == {
        "title": "LookupError",
        "message": "('nothing for <b>&amp;</b>', 7)",
        "here": '        raise LookupError(f"nothing for {markup}", len(password))',
        "button": "Copied",
        "styled": "preserve",
        "bold": 0,
        "secret": False,
    }
