"""Applications that send, from the thread of one worker, to clients of all: each gets what was sent, whole, once, and
in the order in which any one sender sent it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from tests.threads.elsewhere import PATIENCE
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pounce import AppError, ClientGone
from pounce.testing import TestServer

CLIENTS, MESSAGES = 8, 9


@pytest.fixture(
    params=[("asyncio", 2), ("asyncio", 4), ("uvloop", 2), ("uvloop", 4)], ids=lambda param: f"{param[0]}-{param[1]}"
)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    loop, workers = request.param
    return {"loop": loop, "workers": workers, "worker_mode": "thread"}


@pytest.fixture(autouse=True)
def nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither application nor server fail behind their clients' backs."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(3 * PATIENCE):
            await test()

    asyncio.run(main())


class Room:
    """Sends every message to everybody who is there, as those who write chats do."""

    def __init__(self) -> None:
        self.there: list[Any] = []
        self.loops: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        self.loops.add(asyncio.get_running_loop())
        self.there.append(send)
        await send({"type": "websocket.send", "text": "welcome"})
        try:
            while (message := await receive())["type"] == "websocket.receive":
                if message["text"] == "close the last":
                    await self.there.pop()({"type": "websocket.close", "code": 4000})
                else:
                    await self.tell_all({"type": "websocket.send", "text": message["text"]})
        finally:
            if send in self.there:
                self.there.remove(send)

    async def tell_all(self, message: Any) -> None:
        for send in self.there.copy():
            try:
                await send(message)
            except ClientGone:
                pass
            except AppError:
                # Somebody has closed it.
                assert send not in self.there


def text(who: int, number: int) -> str:
    return f"{who} {number} " + chr(ord("a") + number) * 2000


class Listener:
    """A client, and what it has heard."""

    def __init__(self, who: int, connection: ClientConnection) -> None:
        self.who = who
        self.connection = connection
        self.leaves = False
        self.heard: dict[int, list[int]] = defaultdict(list)

    async def speak(self) -> None:
        try:
            for number in range(MESSAGES):
                await self.connection.send(text(self.who, number))
        except ConnectionClosed:
            assert self.leaves

    async def listen(self, senders: int, count: int = MESSAGES) -> None:
        """Until `count` messages of each of the first `senders` have come; each is looked at."""
        while any(len(self.heard[who]) < count for who in range(senders)):
            message = await self.connection.recv()
            assert isinstance(message, str)
            who, number, _ = message.split(" ", 2)
            assert message == text(int(who), int(number))
            self.heard[int(who)].append(int(number))


async def opened(server: TestServer, who: int, path: str = "/") -> Listener:
    # Without a bound for what it has not taken, a client that closes still reads.
    connection = await connect(
        f"ws://{server.host}:{server.port}{path}", open_timeout=PATIENCE, close_timeout=PATIENCE, max_queue=None
    )
    assert await connection.recv() == "welcome"
    assert [extension.name for extension in connection.protocol.extensions] == ["permessage-deflate"]
    return Listener(who, connection)


def test_broadcast_reaches_the_clients_of_all_workers_whole(settings: dict[str, Any]) -> None:
    room = Room()

    async def test() -> None:
        listeners = [await opened(server, who) for who in range(CLIENTS)]
        assert len(room.loops) == settings["workers"]
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                group.create_task(listener.speak())
                group.create_task(listener.listen(CLIENTS))
        for listener in listeners:
            assert listener.heard == {who: list(range(MESSAGES)) for who in range(CLIENTS)}
            await listener.connection.close()

    with TestServer(room, **settings) as server:
        run(test)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_leave_in_the_middle_take_nothing_from_those_that_stay(settings: dict[str, Any], how: str) -> None:
    room = Room()

    async def leave(listener: Listener, after: int) -> None:
        await listener.listen(1, after)
        listener.leaves = True
        if how == "close":
            await listener.connection.close()
        else:
            listener.connection.transport.abort()

    async def test() -> None:
        staying = [await opened(server, who) for who in range(CLIENTS)]
        leaving = [await opened(server, CLIENTS + who) for who in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for number, listener in enumerate(leaving):
                group.create_task(listener.speak())
                group.create_task(leave(listener, 1 + number))
            for listener in staying:
                group.create_task(listener.speak())
                group.create_task(listener.listen(CLIENTS))
        for listener in staying:
            for who in range(CLIENTS):
                assert listener.heard[who] == list(range(MESSAGES))
            for who in range(CLIENTS, 2 * CLIENTS):
                assert listener.heard[who] == sorted(set(listener.heard[who]))
            await listener.connection.close()

    with TestServer(room, **settings) as server:
        run(test)


def test_clients_that_others_close_in_the_middle_have_got_whole_messages_until_then(settings: dict[str, Any]) -> None:
    room = Room()

    async def stay(listener: Listener) -> None:
        for number in range(MESSAGES):
            await listener.connection.send(text(listener.who, number))
            if number == MESSAGES // 2:
                await listener.connection.send("close the last")

    async def until_closed(listener: Listener) -> int | None:
        with pytest.raises(ConnectionClosed):
            await listener.listen(CLIENTS, 10**6)
        return listener.connection.close_code

    async def test() -> None:
        staying = [await opened(server, who) for who in range(CLIENTS)]
        closed = [await opened(server, CLIENTS + who) for who in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(until_closed(listener)) for listener in closed]
            for listener in staying:
                group.create_task(stay(listener))
                group.create_task(listener.listen(CLIENTS))
        assert [end.result() for end in ends] == [4000] * CLIENTS
        for listener in staying:
            assert listener.heard == {who: list(range(MESSAGES)) for who in range(CLIENTS)}
            await listener.connection.close()
        for listener in closed:
            for numbers in listener.heard.values():
                assert numbers == list(range(len(numbers)))

    with TestServer(room, **settings) as server:
        run(test)


def test_server_that_ends_in_the_middle_of_a_broadcast_tells_everybody_and_ends(settings: dict[str, Any]) -> None:
    room = Room()

    async def converse(listener: Listener) -> int | None:
        with pytest.raises(ConnectionClosed):
            while True:
                await listener.connection.send(text(listener.who, 0))
                listener.heard.clear()
                await listener.listen(CLIENTS, 1)
                rounds[listener.who] += 1
        return listener.connection.close_code

    rounds = [0] * CLIENTS

    async def test() -> None:
        listeners = [await opened(server, who) for who in range(CLIENTS)]
        conversing = [asyncio.ensure_future(converse(listener)) for listener in listeners]
        while min(rounds) < 3:
            await asyncio.sleep(0)
        server.shutdown()
        assert await asyncio.gather(*conversing) == [1012] * CLIENTS

    with TestServer(room, shutdown_timeout=PATIENCE, **settings) as server:
        run(test)


class Hub:
    """Server-sent events: what is posted goes to every stream, whoever has it."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.loops: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.loops.add(asyncio.get_running_loop())
        if scope["method"] == "POST":
            body = b""
            while (message := await receive())["more_body"]:
                body += message["body"]
            body += message["body"]
            for stream in self.streams.copy():
                try:
                    await stream({"type": "http.response.body", "body": b"data: %b\n\n" % body, "more_body": True})
                except ClientGone:
                    self.streams.remove(stream)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: welcome\n\n", "more_body": True})
        self.streams.append(send)
        while (await receive())["type"] != "http.disconnect":
            pass


async def chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    assert await reader.readline() == b"\r\n"
    return data


def test_events_reach_the_streams_of_all_workers_whole(settings: dict[str, Any]) -> None:
    hub = Hub()

    async def stream(opened: asyncio.Event) -> dict[int, list[int]]:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        data, heard = b"", defaultdict[int, list[int]](list)
        while sum(map(len, heard.values())) < CLIENTS * MESSAGES:
            data += await chunk(reader)
            while b"\n\n" in data:
                event, _, data = data.partition(b"\n\n")
                assert event.startswith(b"data: ")
                if event == b"data: welcome":
                    opened.set()
                    continue
                who, number, _ = event[6:].decode().split(" ", 2)
                assert event[6:].decode() == text(int(who), int(number))
                heard[int(who)].append(int(number))
        writer.close()
        await writer.wait_closed()
        return heard

    async def post(who: int) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        for number in range(MESSAGES):
            body = text(who, number).encode()
            writer.write(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        opened = [asyncio.Event() for _ in range(CLIENTS)]
        streams = [asyncio.ensure_future(stream(each)) for each in opened]
        for each in opened:
            await each.wait()
        while len(hub.streams) < CLIENTS:
            await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            for who in range(CLIENTS):
                group.create_task(post(who))
        assert len(hub.loops) == settings["workers"]
        for heard in await asyncio.gather(*streams):
            assert heard == {who: list(range(MESSAGES)) for who in range(CLIENTS)}

    with TestServer(hub, **settings) as server:
        run(test)


# As the documentation of FastAPI shows it

site = FastAPI()
connections: list[WebSocket] = []


@site.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    await websocket.send_text("welcome")
    try:
        while True:
            message = await websocket.receive_text()
            for connection in connections.copy():
                await connection.send_text(message)
    except WebSocketDisconnect:
        connections.remove(websocket)


def test_list_of_websockets_at_module_level_is_all_that_fastapi_needs(settings: dict[str, Any]) -> None:
    connections.clear()

    async def test() -> None:
        listeners = [await opened(server, who, "/ws") for who in range(6)]
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                group.create_task(listener.speak())
                group.create_task(listener.listen(6))
        for listener in listeners:
            assert listener.heard == {who: list(range(MESSAGES)) for who in range(6)}
            await listener.connection.close()

    with TestServer(site, **settings) as server:
        run(test)
