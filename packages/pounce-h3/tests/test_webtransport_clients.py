"""WebTransport with clients that nobody here wrote: Chromium, and aioquic in an ordinary Python (see tests/clients)."""

import asyncio
import html
import importlib
import json
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients.chromium import needs_chromium, page_at
from tests.clients.ordinary import run_client
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, answer

from pounce.webtransport import Closed, Session, Stream, StreamReset
from pounce_h3.codes import WT_BUFFERED_STREAM_REJECTED, code_of_application

from .relay import Relay

Start = Callable[..., Started]

ON: dict[str, Any] = {"http3_webtransport_enabled": True, "http3_webtransport_drain_timeout": 0.5}


async def sessions(scope: Any, receive: Any, send: Any) -> None:
    """What comes goes back: on the same stream, on one of our own, as a datagram; a reset with another code."""
    session = Session(scope, receive, send)
    await session.accept(session.subprotocols[-1] if session.subprotocols else None)
    async with session, asyncio.TaskGroup() as tasks:

        async def both(stream: Stream) -> None:
            try:
                async for data in stream:
                    await stream.send(data)
                await stream.end()
            except StreamReset as exc:
                await stream.reset((exc.code or 0) + 1)

        async def back(stream: Stream) -> None:
            other = await session.open_stream(bidirectional=False)
            async for data in stream:
                await other.send(data)
            await other.end()

        async def datagrams() -> None:
            async for data in session.datagrams():
                await session.send_datagram(data)

        tasks.create_task(datagrams())
        async for stream in session.streams():
            tasks.create_task(both(stream) if stream.bidirectional else back(stream))


def test_example_tells_everybody_what_one_says(start: Start) -> None:
    app = importlib.import_module("examples.webtransport_app").app
    report = aioquic(start(app, **ON), ["open", "/chat"], ["push", 3, 1000], ["close", 0, ""])
    assert report == [200, 3, True]


def aioquic(server: Started, *steps: list[Any], port: int = 0) -> Any:
    where = {"host": server.server.host, "port": port or server.server.port, "ca": server.certificate.certfile}
    return run_client("aioquic_session", **where, steps=steps)


def test_aioquic_does_all_there_is(start: Start) -> None:
    told: queue.SimpleQueue[Closed | None] = queue.SimpleQueue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def heard() -> Any:
            message = await receive()
            if message["type"] == "webtransport.disconnect":
                told.put(Closed(message["code"], message["reason"]))
            return message

        await sessions(scope, heard, send)

    report = aioquic(
        start(app, **ON),
        ["open", "/"],
        ["send_datagrams", 20],
        ["echo", 60, 5000],
        ["push", 100, 5000],
        ["echo", 1, 2_000_000],
        ["give_up", code_of_application(7)],
        ["close", 3, "enough"],
    )
    assert report == [200, 20, 60, 100, 1, code_of_application(8), True]
    assert told.get(timeout=PATIENCE) == Closed(3, "enough")


def test_stream_that_nobody_reads_holds_up_others_for_a_time(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with Session(scope, receive, send) as session:
            async for stream in session.streams():
                if stream.bidirectional:
                    await stream.send(await stream.read_all(), end=True)

    server = start(app, **ON, http3_webtransport_read_timeout=0.2)
    report = aioquic(server, ["open", "/"], ["overfill", 1_600_000], ["echo", 3, 5000])
    assert report == [200, WT_BUFFERED_STREAM_REJECTED, 3]


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_streams_arrive_whole_where_packets_are_lost(start: Start, loss: float) -> None:
    server = start(sessions, **ON)
    relay = Relay((server.server.host, server.server.port), loss, 0, seed=7)
    with relay.running():
        report = aioquic(
            server, ["open", "/"], ["echo", 20, 5000], ["push", 20, 5000], ["echo", 1, 300_000], port=relay.port
        )
    assert report == [200, 20, 20, 1]
    assert relay.lost > 0


def test_server_that_drains_asks_its_sessions_to_end_and_then_closes_them(start: Start) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with Session(scope, receive, send) as session:
            told.put("open")
            await session.wait_draining()
            told.put("draining")
            told.put(await session.wait_closed())

    server = start(app, **ON)
    report: queue.SimpleQueue[Any] = queue.SimpleQueue()

    thread = threading.Thread(target=lambda: report.put(aioquic(server, ["open", "/"], ["wait_closed"])))
    thread.start()
    assert told.get(timeout=PATIENCE) == "open"
    server.stop()
    thread.join()
    status, capsules = report.get(timeout=PATIENCE)
    assert status == 200
    # Drain, without a payload; close, with code 0 and its reason.
    assert bytes.fromhex(capsules) == bytes.fromhex("800078ae00 6843 1b 00000000") + b"server is shutting down"
    assert [told.get(timeout=PATIENCE) for _ in range(2)] == ["draining", Closed(0, "server is shutting down")]


SCRIPT = """
const session = new WebTransport(`https://${location.host}/session`, {protocols: ["echo-2", "echo"]});
await session.ready;
const found = {protocol: session.protocol};
const bytes = async stream => new Uint8Array(await new Response(stream).arrayBuffer());
const send = async (stream, data) => {
    const writer = stream.getWriter();
    await writer.write(data);
    await writer.close();
};

const out = session.datagrams.writable.getWriter(), back = session.datagrams.readable.getReader();
back.read().then(({value}) => found.datagram = Array.from(value));
while (!found.datagram) {
    await out.write(new Uint8Array([1, 2, 3]));
    await new Promise(resolve => setTimeout(resolve, 20));
}

const number = n => new Uint8Array([n, n, n]);
found.echoed = (await Promise.all(Array.from({length: 100}, async (_, n) => {
    const stream = await session.createBidirectionalStream();
    const [answer] = await Promise.all([bytes(stream.readable), send(stream.writable, number(n))]);
    return answer.join() == number(n).join();
}))).filter(Boolean).length;

const incoming = session.incomingUnidirectionalStreams.getReader();
const pushed = (async () => {
    const seen = new Set();
    for (let n = 0; n < 100; n++) seen.add((await bytes((await incoming.read()).value)).join());
    return seen.size;
})();
for (let n = 0; n < 100; n++) await send(await session.createUnidirectionalStream(), number(n));
found.pushed = await pushed;

const large = new Uint8Array(SIZE).map((_, n) => n * 31 >> 3);
const stream = await session.createBidirectionalStream();
const [answer] = await Promise.all([bytes(stream.readable), send(stream.writable, large)]);
found.large = answer.length == large.length && answer.every((byte, n) => byte == large[n]);

const given = await session.createBidirectionalStream();
const writer = given.writable.getWriter(), reader = given.readable.getReader();
await writer.write(number(1));
await reader.read();
writer.abort(new WebTransportError({streamErrorCode: 40})).catch(() => {});
found.reset = await reader.read().catch(error => [error.source, error.streamErrorCode]);

session.close({closeCode: 9, reason: "enough"});
found.closed = await session.closed;
return found;
"""


def in_chromium(server: Started, folder: Path, port: int = 0) -> Any:
    """What the script of the page returns."""
    page = page_at(port or server.server.port, server.certificate.certfile, folder)
    found = re.search('<pre id="told">([^<]*)</pre>', page)
    assert found is not None, page
    return json.loads(html.unescape(found[1]))


class Page:
    """A page whose script reports when it is done, and the sessions that it opens."""

    def __init__(self, script: str) -> None:
        self._page = f"""<!doctype html><pre id="told"></pre><img src="/hold"><script>(async () => {{
            let told;
            try {{ told = await (async () => {{ {script} }})(); }} catch (error) {{ told = `${{error}}`; }}
            document.getElementById("told").textContent = JSON.stringify(told);
            await fetch("/done");
        }})();</script>"""
        self._done = asyncio.Event()
        self.origins: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "webtransport":
            self.origins.append(dict(scope["headers"])[b"origin"])
            await sessions(scope, receive, send)
        elif scope["path"] == "/":
            await answer(send, self._page.encode(), headers=[(b"content-type", b"text/html")])
        elif scope["path"] == "/done":
            self._done.set()
            await answer(send)
        else:
            await asyncio.wait_for(self._done.wait(), 4 * PATIENCE)
            await answer(send)


DONE = {
    "protocol": "echo",
    "datagram": [1, 2, 3],
    "echoed": 100,
    "pushed": 100,
    "large": True,
    "reset": ["stream", 41],
    "closed": {"closeCode": 9, "reason": "enough"},
}


@needs_chromium
@pytest.mark.parametrize("size", [2_000_000, pytest.param(50_000_000, marks=pytest.mark.soak)])
def test_chromium_does_all_there_is(start: Start, tmp_path: Path, size: int) -> None:
    page = Page(SCRIPT.replace("SIZE", str(size)))
    server = start(page, **ON)
    assert in_chromium(server, tmp_path) == DONE
    assert page.origins == [b"https://localhost:%d" % server.server.port]


@needs_chromium
@pytest.mark.parametrize("loss", [pytest.param(0.01, marks=pytest.mark.soak), 0.05])
def test_chromium_does_all_there_is_where_packets_are_lost(start: Start, tmp_path: Path, loss: float) -> None:
    server = start(Page(SCRIPT.replace("SIZE", "500_000")), **ON)
    relay = Relay((server.server.host, server.server.port), loss, 0, seed=7)
    with relay.running():
        assert in_chromium(server, tmp_path, relay.port) == DONE
    assert relay.lost > 0
