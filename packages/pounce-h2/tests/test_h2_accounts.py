"""What a connection keeps count of is right after any conversation, and nothing of one is left when it ends."""

import asyncio
import gc
import logging
import random
from typing import Any

import pytest
from h2_peer import Peer, echo, in_loop, request, say

from pounce.exchange.http import HttpExchange
from pounce.exchange.service import Service
from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing.memory import memory_service
from pounce_h2.connection import Tables
from pounce_h2.frames import ACK, END_HEADERS, END_STREAM, Kind, Setting, frame, settings_frame, window_update_frame
from pounce_h2.plugin import plugin
from pounce_h2.settings import H2Settings
from pounce_h2.stream import H2Stream

CONVERSATIONS = 200


async def app(scope: Any, receive: Any, send: Any) -> None:
    match scope["path"]:
        case "/early":
            await say(send, b"no", 403)
        case "/big":
            await say(send, bytes(200_000))
        case "/fails":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            raise RuntimeError("on purpose")
        case "/pieces":
            await send({"type": "http.response.start", "status": 200, "trailers": True})
            for _ in range(5):
                await send({"type": "http.response.body", "body": bytes(3000), "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body"})
            await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})
        case "/empty":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await receive()
            await send({"type": "http.response.body"})
        case "/waits":
            while (await receive())["type"] != "http.disconnect":
                pass
        case _:
            await echo(scope, receive, send)


class Client:
    """Says at random what a client may say."""

    def __init__(self, choice: random.Random, peer: Peer) -> None:
        self.choice = choice
        self.peer = peer
        self.top = -1
        self.uploads: list[int] = []

    def frames(self) -> bytes:
        return b"".join(self.frame() for _ in range(self.choice.randrange(1, 6)))

    def frame(self) -> bytes:
        choice = self.choice
        if self.top < 0 or choice.random() < 0.4:
            return self.request()
        if self.uploads and choice.random() < 0.4:
            return self.piece(choice.choice(self.uploads))
        stream = choice.randrange(1, self.top + 1, 2)
        match choice.randrange(6):
            case 0:
                if stream in self.uploads:
                    self.uploads.remove(stream)
                return frame(Kind.RST_STREAM, 0, stream, bytes(4))
            case 1:
                return settings_frame({Setting.INITIAL_WINDOW_SIZE: choice.choice([0, 1, 100, 16_384, 65_535, 70_000])})
            case 2:
                return frame(Kind.PRIORITY_UPDATE, 0, 0, stream.to_bytes(4) + b"u=2")
            case _:
                return window_update_frame(choice.choice([0, stream]), choice.choice([1, 1000, 65_535]))

    def request(self) -> bytes:
        choice = self.choice
        self.top += 2
        path = choice.choice([b"/early", b"/big", b"/fails", b"/pieces", b"/empty", b"/waits", b"/echo"])
        fields = request(choice.choice([b"GET", b"POST", b"HEAD"]), path)
        if choice.random() < 0.1:
            fields.append((b"content-length", b"%d" % choice.randrange(2000)))
        if choice.random() < 0.3:
            fields.append((b"priority", choice.choice([b"u=1", b"i", b"u=7, i"])))
        flags = END_HEADERS
        if choice.random() < 0.5:
            flags |= END_STREAM
        else:
            self.uploads.append(self.top)
        return frame(Kind.HEADERS, flags, self.top, self.peer.block(fields))

    def piece(self, stream: int) -> bytes:
        ends = self.choice.random() < 0.4
        if ends:
            self.uploads.remove(stream)
            if self.choice.random() < 0.3:
                return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, self.peer.block([(b"t", b"v")]))
        return frame(Kind.DATA, END_STREAM if ends else 0, stream, bytes(self.choice.randrange(3000)))


@pytest.mark.parametrize("part", range(4))
@in_loop
async def test_accounts_are_right_after_any_conversation(part: int, caplog: pytest.LogCaptureFixture) -> None:
    # Tracebacks of the application that fails take longer than all else.
    caplog.set_level(logging.CRITICAL, "pounce")
    service = memory_service(app, Registry.of(h1, plugin), date_header=False, request_timeout=5.0)
    for seed in range(part, CONVERSATIONS, 4):
        await converse(seed, service)


async def converse(seed: int, service: Service) -> None:
    choice = random.Random(seed)
    peer = Peer(None, settings={Setting.INITIAL_WINDOW_SIZE: choice.choice([0, 10, 65_535])}, service=service)
    client = Client(choice, peer)
    if choice.random() < 0.1:
        peer.transport.stall()
    for _ in range(choice.randrange(5, 60)):
        data = client.frames()
        at = choice.randrange(len(data))
        peer.feed(data[:at])
        await peer.settle(choice.randrange(2))
        peer.feed(data[at:])
        await peer.settle(choice.randrange(4))
        if choice.random() < 0.05:
            peer.after(choice.choice([1, 6, 40]))
    await peer.settle(50)
    check(peer, seed)
    peer.lose()
    await peer.settle(50)
    assert (peer.service.tasks, peer.service.connections) == ({}, set()), seed


def check(peer: Peer, seed: int) -> None:
    h2: Any = peer.protocol
    if peer.failed is not None or peer.transport.ended or peer.closed:
        return
    streams = h2.streams.open.values()
    uploads = [stream.upload for stream in streams if stream.upload is not None]
    assert h2.output.parked_size == sum(stream.parked_size for stream in streams), seed
    assert h2.windows.held_pieces == sum(upload.pieces for upload in uploads), seed
    assert h2.streams.head_memory == sum(stream.head_size for stream in streams), seed
    held = sum(upload.held for upload in uploads)
    assert h2.windows.room + h2.windows._credit + held == H2Settings().connection_window, seed
    for stream in h2.output.scheduler.ready:
        assert stream in streams, seed
        assert stream.parked_size, seed
        assert stream.send_window > 0, seed


def exchanges() -> set[int]:
    """Those that there are, and their streams; other tests may have left some."""
    return {id(found) for found in gc.get_objects() if issubclass(type(found), (H2Stream, HttpExchange))}


def connections() -> set[int]:
    """The same of connections and everything that they are composed of, but for what is the worker's."""
    return {
        id(found)
        for found in gc.get_objects()
        if str(type(found).__module__).startswith("pounce_h2.") and not isinstance(found, (H2Settings, Tables))
    }


@in_loop
async def test_requests_that_are_over_are_freed_at_once() -> None:
    """Nothing is left to the collector of cycles, which comes rarely."""
    gc.collect()
    gc.disable()
    others = exchanges()
    try:
        peer = Peer(app)
        peer.open_window(0, 2**20)
        for stream, path in ((1, b"/big"), (3, b"/early"), (5, b"/pieces"), (7, b"/empty"), (9, b"/echo")):
            peer.headers(stream, request(b"POST", path))
        await peer.settle(50)
        peer.open_window(1, 2**20)
        await peer.settle(50)
        assert peer.ended(1)
        assert exchanges() == others
        peer.headers(15, request(path=b"/waits"))
        await peer.settle()
        peer.lose()
        await peer.settle(50)
        assert exchanges() == others
    finally:
        gc.enable()


@pytest.mark.parametrize("ends", ["the peer leaves", "an error", "a drain", "a stream that goes on"])
@in_loop
async def test_connection_that_is_over_is_freed_at_once(ends: str) -> None:
    gc.collect()
    gc.disable()
    others = connections()
    try:
        peer = Peer(app)
        peer.headers(1, request(b"POST", b"/big"))
        await peer.settle(50)
        match ends:
            case "an error":
                peer.send(Kind.PING, 0, 1, bytes(8))
            case "a drain":
                peer.open_window(0, 2**20)
                peer.open_window(1, 2**20)
                peer.protocol.drain()
                await peer.settle(50)
                peer.send(Kind.PING, ACK, 0, b"drain\0\0\0")
            case "a stream that goes on":
                peer.headers(3, request(path=b"/waits"))
        await peer.settle(50)
        peer.lose()
        await peer.settle(50)
        # As the transports of asyncio do.
        peer.transport.set_protocol(None)
        del peer
        assert connections() == others
    finally:
        gc.enable()
