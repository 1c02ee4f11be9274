"""An application of ASGI messages and anyio alone, with nothing in between."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from tests.frameworks.gates import Gate
from tests.frameworks.wires import PATIENCE, ServerLog, Site


async def answer(send: Any, body: bytes = b"", status: int = 200, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


class TestTaskGroups:
    def test_body_flows_through_a_memory_stream_between_two_tasks(self, serve: Callable[..., Site]) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            producer, consumer = anyio.create_memory_object_stream[bytes]()

            async def read() -> None:
                async with producer:
                    while True:
                        message = await receive()
                        await producer.send(message["body"].upper())
                        if not message["more_body"]:
                            return

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                async with consumer:
                    async for piece in consumer:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})

        with serve(app, lifespan="off").client() as client:
            assert client.post("/", content=iter([b"one ", b"two ", b"three"])).text == "ONE TWO THREE"

    def test_disconnect_listener_cancels_the_work(self, serve: Callable[..., Site]) -> None:
        gate = Gate()
        cancelled: list[bool] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()

            async def listen() -> None:
                assert await receive() == {"type": "http.disconnect"}
                group.cancel_scope.cancel()

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                gate.reached.set()
                await anyio.sleep_forever()
            cancelled.append(group.cancel_scope.cancelled_caught)
            gate.left.set()

        site = serve(app, lifespan="off")

        async def run() -> None:
            async with site.async_client() as client:
                waiting = asyncio.create_task(client.get("/"))
                assert await asyncio.to_thread(gate.was_reached)
                waiting.cancel()
            assert await asyncio.to_thread(gate.was_left)

        asyncio.run(run())
        assert cancelled == [True]

    def test_receive_after_the_answer_is_a_disconnect(self, serve: Callable[..., Site]) -> None:
        seen: list[str] = []
        gate = Gate()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def listen() -> None:
                seen.append((await receive())["type"])

            seen.append((await receive())["type"])
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                await anyio.lowlevel.checkpoint()
                await answer(send, b"done")
            gate.left.set()

        with serve(app, lifespan="off").client() as client:
            assert client.get("/").text == "done"
            assert gate.was_left()
        assert seen == ["http.request", "http.disconnect"]

    def test_cancelled_wait_for_the_body_can_be_resumed(self, serve: Callable[..., Site]) -> None:
        gate = Gate()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            pieces = []
            impatient = 0
            while True:
                with anyio.move_on_after(0.001) as scope_:
                    message = await receive()
                if scope_.cancelled_caught:
                    impatient += 1
                    gate.reached.set()
                    continue
                pieces.append(message["body"].decode())
                if not message["more_body"]:
                    break
            await answer(send, json.dumps([impatient > 0, "".join(pieces)]).encode())

        def content() -> Any:
            yield b"first "
            assert gate.was_reached()
            yield b"second"

        with serve(app, lifespan="off").client() as client:
            assert client.post("/", content=content()).json() == [True, "first second"]

    def test_blocking_call_in_a_thread_leaves_the_loop_free(self, serve: Callable[..., Site]) -> None:
        gate = Gate()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/open":
                gate.open()
            else:
                await anyio.to_thread.run_sync(gate.wait_in_thread)
            await answer(send, scope["path"].encode())

        site = serve(app, lifespan="off")

        async def run() -> list[str]:
            async with site.async_client() as client:
                waiting = asyncio.create_task(client.get("/wait"))
                assert await asyncio.to_thread(gate.was_reached)
                return [(await client.get("/open")).text, (await waiting).text]

        assert asyncio.run(run()) == ["/open", "/wait"]


class TestFairness:
    def test_answer_that_never_waits_does_not_keep_others_from_theirs(self, serve: Callable[..., Site]) -> None:
        gate = Gate()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/short":
                await answer(send, b"short")
                return
            try:
                await answer(send, b"begin", more=True)
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            finally:
                gate.left.set()

        with serve(app, lifespan="off").client() as client, client.stream("GET", "/endless") as response:
            next(response.iter_raw())
            assert client.get("/short").text == "short"
        assert gate.was_left()

    def test_answer_to_head_that_never_ends_is_given_up_with_its_client(self, serve: Callable[..., Site]) -> None:
        gate = Gate()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await answer(send, b"begin", more=True)
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            finally:
                gate.left.set()

        with serve(app, lifespan="off").client() as client:
            assert client.head("/").status_code == 200
        assert gate.was_left()


class TestMistakes:
    def test_application_that_answers_nothing_is_a_500(self, serve: Callable[..., Site], server_log: ServerLog) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()

        with serve(app, lifespan="off").client() as client:
            assert client.get("/").status_code == 500
        assert server_log.take(1) == ["ASGI application returned without completing its response"]

    def test_application_that_stops_midway_is_broken_off(
        self, serve: Callable[..., Site], server_log: ServerLog
    ) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"begin", more=True)

        with serve(app, lifespan="off").client() as client, pytest.raises(httpx.RemoteProtocolError):
            client.get("/")
        assert server_log.take(1) == ["ASGI application returned without completing its response"]


class TestShutdown:
    @pytest.mark.parametrize("turns", range(6))
    def test_server_stops_as_soon_as_its_last_request_ends(self, serve: Callable[..., Site], turns: int) -> None:
        """Whichever turn of the loop that is."""
        ready = threading.Event()
        end: list[Callable[[], None]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()

            def stop_and_end() -> None:
                site.server.shutdown()
                ended.set()

            end.append(lambda: loop.call_soon_threadsafe(stop_and_end) and None)
            await answer(send, b"answered")
            ready.set()
            await ended.wait()
            for _ in range(turns):
                await asyncio.sleep(0)

        site = serve(app, lifespan="off", shutdown_timeout=2 * PATIENCE)
        with site.client(headers={"connection": "close"}) as client:
            assert client.get("/").text == "answered"
        assert ready.wait(PATIENCE)
        began = time.monotonic()
        end[0]()
        site.server.stop()
        assert time.monotonic() - began < PATIENCE
