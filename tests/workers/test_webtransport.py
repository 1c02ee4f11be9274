"""A session of WebTransport over a reload: it is asked to come to an end, does so in its own time, and others begin."""

import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.clients.chromium import command, needs_chromium
from tests.clients.ordinary import run_client
from tests.conformance.client import PATIENCE
from tests.workers.running import Running

APP = '''
import sys
from pounce.webtransport import Session

VERSION = 1

async def app(scope, receive, send):
    if scope["type"] != "webtransport":
        raise NotImplementedError
    async with Session(scope, receive, send) as session:
        print(f"open in {VERSION}", file=sys.stderr, flush=True)
        if scope["path"] == "/short":
            await session.close(VERSION, "")
            return
        await session.wait_draining()
        stream = await session.open_stream(bidirectional=False)
        await stream.send(b"last words" * 1000, end=True)
        await session.wait_closed()
        print(f"closed by {session.closed}", file=sys.stderr, flush=True)
'''


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_session_ends_in_good_order_when_its_worker_is_replaced(
    mode: str, tmp_path: Path, tls_files: tuple[str, str]
) -> None:
    flags = ("--workers", "2", "--worker-mode", mode, "--http3", "--http3-webtransport-enabled")
    tls = ("--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    with Running(tmp_path, *flags, *tls, "--http3-webtransport-drain-timeout", "60", app=APP) as server:

        def client(*steps: list[Any]) -> Any:
            host, port = server.address
            return run_client("aioquic_session", host=host, port=port, ca=tls_files[0], steps=steps)

        report: queue.SimpleQueue[Any] = queue.SimpleQueue()
        steps: tuple[list[Any], ...] = (["open", "/long"], ["wait_pushed", 1], ["close", 4, "seen"])
        thread = threading.Thread(target=lambda: report.put(client(*steps)))
        thread.start()
        server.wait_for_message("open in 1")
        server.write(APP.replace("VERSION = 1", "VERSION = 2"))
        server.kill(signal.SIGHUP)
        # Its client was asked, got the last words, and was the one to close it.
        assert report.get(timeout=PATIENCE) == [200, [10_000], True]
        server.wait_for_message("closed by Closed(code=4, reason='seen')")
        thread.join()
        server.wait_for_message("Reloaded")
        assert client(["open", "/short"], ["wait_closed"]) == [200, "6843040000" "0002"]

PAGE = """<!doctype html><script>(async () => {
    const where = `https://${location.host}`;
    const long = new WebTransport(where + "/long");
    const {value: stream} = await long.incomingUnidirectionalStreams.getReader().read();
    const words = await new Response(stream).text();
    long.close({closeCode: 4, reason: "seen"});
    let code = 0;
    // Until the old one is gone, it may be that one which answers, or refuses.
    while (code != 2) {
        try { code = (await new WebTransport(where + "/short").closed).closeCode; } catch {}
        await new Promise(resolve => setTimeout(resolve, 100));
    }
    await fetch(`/told?${words.length},${code}`);
})();</script>"""

APP_WITH_PAGE = APP.replace(
    '''    if scope["type"] != "webtransport":
''',
    '''    if scope["type"] == "http":
        print(f"page said {scope['query_string'].decode()}", file=sys.stderr, flush=True)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": PAGE if scope["path"] == "/" else b""})
        return
    if scope["type"] != "webtransport":
''',
)


@pytest.mark.faults
@needs_chromium
def test_page_hears_of_a_reload_and_goes_on_with_the_new_worker(tmp_path: Path, tls_files: tuple[str, str]) -> None:
    app = f"PAGE = {PAGE.encode()!r}\n{APP_WITH_PAGE}"
    flags = ("--workers", "2", "--worker-mode", "process", "--http3", "--http3-webtransport-enabled")
    tls = ("--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    with Running(tmp_path, *flags, *tls, "--http3-webtransport-drain-timeout", "60", app=app) as server:
        browser = command(server.address[1], tls_files[0], tmp_path)
        with subprocess.Popen(browser, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                server.wait_for_message("open in 1")
                server.write(app.replace("VERSION = 1", "VERSION = 2"))
                server.kill(signal.SIGHUP)
                server.wait_for_message("closed by Closed(code=4, reason='seen')")
                server.wait_for_message("page said 10000,2")
            finally:
                process.terminate()
