"""Calls that come from another loop than the one that an exchange belongs to."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from tests.threads.elsewhere import PATIENCE, Elsewhere

from pounce import AppError, ClientGone
from pounce.contract.head import RequestHead
from pounce.contract.stream import Body
from pounce.exchange.crossing import Crossing
from pounce.exchange.service import Service
from pounce.testing import RecordingStream, TestServer
from pounce.testing.memory import memory_service
from pounce.worker.loop import loop_factory

START = {"type": "http.response.start", "status": 200, "headers": []}
GET = RequestHead(b"GET", b"/", [(b"host", b"example.org")], "1.1")
POST = RequestHead(b"POST", b"/", [(b"host", b"example.org")], "1.1", content_length=None)
LOOPS = ("asyncio", "uvloop")


@pytest.fixture(params=LOOPS)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    with Elsewhere(request.param) as started:
        yield started


@pytest.fixture(params=LOOPS)
def here(request: pytest.FixtureRequest) -> str:
    """The owner's loop."""
    name: str = request.param
    return name


def on(loop: str, test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())


async def until(true: Callable[[], object]) -> None:
    """Let this loop turn until it has come true; the timeout of the test ends it."""
    while not true():
        await asyncio.sleep(0)


async def arrived(elsewhere: Elsewhere, coroutine: Coroutine[Any, Any, Any]) -> tuple[Future[Any], asyncio.Task[Any]]:
    """Begin something there that waits for something here: that, and the task that waits here on its behalf."""
    before = asyncio.all_tasks()
    begun = elsewhere.start(coroutine)
    await until(lambda: asyncio.all_tasks() - before)
    (task,) = asyncio.all_tasks() - before
    return begun, task


async def nothing() -> None: ...


class Stream(RecordingStream):
    """Notes whether it was called on another thread than the one it was made on."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.thread = threading.get_ident()
        self.strays = 0

    def write(self, body: Body, more: bool) -> None:
        self.strays += threading.get_ident() != self.thread
        super().write(body, more)


class Held:
    """An application whose request stays open, with what it was called with."""

    def __init__(self, head: RequestHead = GET, **settings: Any) -> None:
        self.scope: Any = None
        self.receive: Any = None
        self.send: Any = None
        self.over = asyncio.Event()
        self.service: Service = memory_service(self, **settings)
        self.stream = Stream()
        self.exchange: Any = self.service.open(head, self.stream)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        await self.over.wait()


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


# send()


def test_answer_sent_from_another_loop_is_written_on_its_own(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()

        async def answer() -> None:
            await held.send(START)
            for number in range(200):
                await held.send(piece(b"%d;" % number))
            await held.send(piece(b"", False))

        await elsewhere.wait(answer())
        assert held.stream.body == b"".join(b"%d;" % number for number in range(200))
        assert (held.stream.ended, held.stream.strays) == (True, 0)

    on(here, test)


def test_messages_of_one_loop_keep_their_order_also_without_being_awaited_one_by_one(
    here: str, elsewhere: Elsewhere
) -> None:
    async def test() -> None:
        held = Held()

        async def answer() -> None:
            await held.send(START)
            await asyncio.gather(*(held.send(piece(b"%d;" % number)) for number in range(300)))

        await elsewhere.wait(answer())
        assert held.stream.body == b"".join(b"%d;" % number for number in range(300))

    on(here, test)


def test_loop_elsewhere_waits_for_a_slow_client(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()
        await held.send(START)
        held.stream.writable = False
        sending = asyncio.wrap_future(elsewhere.start(held.send(piece(b"a"))))
        await until(lambda: held.stream.body)
        # What need not wait makes the whole way there and back meanwhile.
        await elsewhere.wait(held.service.crossing.call(nothing))
        assert not sending.done()
        held.stream.writable = True
        held.exchange.resume_writing()
        await sending

    on(here, test)


def test_client_gone_reaches_a_loop_elsewhere_that_waits(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()
        await held.send(START)
        held.stream.writable = False
        sending = asyncio.wrap_future(elsewhere.start(held.send(piece(b"a"))))
        await until(lambda: held.stream.body)
        held.exchange.stream_lost(None)
        with pytest.raises(ClientGone, match="client closed"):
            await sending
        with pytest.raises(ClientGone):
            await elsewhere.wait(held.send(piece(b"b")))

    on(here, test)


def test_message_that_is_wrong_is_an_error_for_the_loop_that_sent_it(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()
        with pytest.raises(AppError, match="out of order"):
            await elsewhere.wait(held.send(piece(b"a")))
        with pytest.raises(KeyError):
            await elsewhere.wait(held.send({}))
        await held.send(START)

    on(here, test)


def test_caller_that_is_cancelled_is_free_though_the_loop_stands_still_and_nothing_is_sent(
    here: str, elsewhere: Elsewhere
) -> None:
    async def test() -> None:
        held = Held()
        await held.send(START)

        async def send() -> None:
            sending = asyncio.ensure_future(held.send(piece(b"never")))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending

        elsewhere.run(send())  # this loop has no turn meanwhile
        await elsewhere.wait(held.send(piece(b"after")))
        assert held.stream.body == b"after"

    on(here, test)


def test_caller_that_is_cancelled_while_it_waits_for_a_slow_client_leaves_nothing_behind(
    here: str, elsewhere: Elsewhere
) -> None:
    async def test() -> None:
        held = Held()
        await held.send(START)
        held.stream.writable = False
        sending, task = await arrived(elsewhere, held.send(piece(b"a")))
        sending.cancel()
        await until(task.done)
        assert task.cancelled()
        assert not held.exchange._writers

    on(here, test)


# receive()


def test_body_is_received_on_another_loop(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held(POST)

        async def read() -> bytes:
            body, more = b"", True
            while more:
                message = await held.receive()
                body, more = body + message["body"], message["more_body"]
            return body

        reading = asyncio.wrap_future(elsewhere.start(read()))
        for number in range(50):
            held.exchange.data_received(b"%d;" % number)
            await asyncio.sleep(0)
        held.exchange.eof_received()
        assert await reading == b"".join(b"%d;" % number for number in range(50))
        assert held.stream.consumed_bytes == len(await reading)

    on(here, test)


def test_receive_elsewhere_that_is_cancelled_while_it_waits_takes_nothing(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held(POST)
        receiving, task = await arrived(elsewhere, held.receive())
        receiving.cancel()
        await until(task.done)
        held.exchange.data_received(b"body")
        assert (await held.receive())["body"] == b"body"

    on(here, test)


@pytest.mark.parametrize("last", [False, True], ids=["more", "last"])
def test_message_that_is_on_its_way_to_a_cancelled_caller_is_not_lost(
    here: str, elsewhere: Elsewhere, last: bool
) -> None:
    async def test() -> None:
        held = Held(POST)
        async with elsewhere.cancelled_too_late(held.receive()):
            await until(lambda: held.exchange._readers)
            held.exchange.data_received(b"body")
            if last:
                held.exchange.eof_received()
            await until(lambda: not held.service.crossing._calls)
        # Together with what has come since; the wire is told of each byte once.
        if not last:
            held.exchange.data_received(b" and more")
        assert await held.receive() == {
            "type": "http.request", "body": b"body" if last else b"body and more", "more_body": not last,
        }  # fmt: skip
        assert held.stream.consumed_bytes == (4 if last else 13)

    on(here, test)


def test_loop_elsewhere_that_ends_takes_no_message_along(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held(POST)
        _, task = await arrived(elsewhere, held.receive())
        elsewhere.end()
        await until(task.done)
        held.exchange.data_received(b"body")
        assert (await held.receive())["body"] == b"body"

    on(here, test)


# The owner's end


def test_calls_end_with_the_worker_that_they_are_for(here: str, elsewhere: Elsewhere) -> None:
    calls: list[Any] = []

    async def test() -> None:
        held = Held(POST)
        calls.append(held)
        receiving, _ = await arrived(elsewhere, held.receive())
        held.service.crossing.close()
        with pytest.raises(ClientGone, match="ended"):
            await asyncio.wrap_future(receiving)
        with pytest.raises(ClientGone, match="ended"):
            await elsewhere.wait(held.send(START))

    on(here, test)
    with pytest.raises(ClientGone, match="ended"):
        elsewhere.run(calls[0].send(START))


def test_call_to_a_loop_that_is_closed_finds_the_client_gone(here: str, elsewhere: Elsewhere) -> None:
    calls: list[Any] = []

    async def test() -> None:
        calls.append(Held())

    on(here, test)
    with pytest.raises(ClientGone, match="ended"):
        elsewhere.run(calls[0].send(START))


def test_call_that_a_closing_loop_cancels_does_not_look_like_a_cancellation_of_the_caller(
    here: str, elsewhere: Elsewhere
) -> None:
    receiving: list[Any] = []

    async def test() -> None:
        held = Held(POST)
        call, task = await arrived(elsewhere, held.receive())
        receiving.append(call)
        task.cancel()
        await until(task.done)

    on(here, test)
    with pytest.raises(ClientGone, match="ended"):
        receiving[0].result(PATIENCE)


# Without a loop


def test_call_where_no_loop_runs_says_so() -> None:
    def step(coroutine: Any) -> BaseException | None:
        found: list[BaseException] = []

        def run() -> None:
            try:
                coroutine.send(None)
            except BaseException as exc:
                found.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(PATIENCE)
        return found[0] if found else None

    async def test() -> None:
        held = Held(POST)
        for coroutine in (held.send(START), held.receive(), held.service.drain_notice.wait()):
            error = step(coroutine)
            assert isinstance(error, AppError)
            assert error.code == "POUNCE_APP_NO_LOOP"
            assert error.hint is not None and "run_coroutine_threadsafe" in error.hint
        await held.send(START)

    on("asyncio", test)


# What else an application is given


def test_drain_notice_is_waited_for_on_any_loop(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()
        notice = held.scope["extensions"]["pounce.worker.draining"]
        waiting = [asyncio.wrap_future(elsewhere.start(notice.wait())) for _ in range(3)]
        waiting.append(asyncio.ensure_future(notice.wait()))
        await elsewhere.wait(held.service.crossing.call(nothing))
        assert not any(each.done() for each in waiting)
        held.service.drain_begun.set()
        await asyncio.gather(*waiting)
        await elsewhere.wait(notice.wait())

    on(here, test)


def test_drain_notice_of_a_worker_that_has_ended_is_not_waited_for(here: str, elsewhere: Elsewhere) -> None:
    async def test() -> None:
        held = Held()
        notice = held.scope["extensions"]["pounce.worker.draining"]
        waiting, _ = await arrived(elsewhere, notice.wait())
        held.service.crossing.close()
        await asyncio.wrap_future(waiting)
        await elsewhere.wait(notice.wait())

    on(here, test)


def test_nothing_that_an_application_gets_can_begin_a_drain() -> None:
    async def test() -> None:
        notice = Held().scope["extensions"]["pounce.worker.draining"]
        assert [name for name in dir(notice) if not name.startswith("_")] == ["is_set", "wait"]

    on("asyncio", test)


@pytest.mark.parametrize("scope", ["worker", "process"])
def test_lifespan_is_answered_from_another_loop(scope: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"

        async def live() -> None:
            for event in ("startup", "shutdown"):
                seen.append((await receive())["type"])
                await send({"type": f"lifespan.{event}.complete"})

        await asyncio.to_thread(asyncio.run, live())

    with TestServer(app, workers=2, worker_mode="thread", lifespan="on", lifespan_scope=scope):
        pass
    assert sorted(seen) == sorted(["lifespan.startup", "lifespan.shutdown"] * (2 if scope == "worker" else 1))


def test_event_of_the_lifespan_is_not_lost_with_a_caller_elsewhere_that_is_cancelled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        with Elsewhere() as elsewhere:
            async with elsewhere.cancelled_too_late(receive()):
                await until(lambda: receive.__self__._asked)
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})

    with TestServer(app, lifespan="on"):
        pass


# Many at a time


def test_calls_of_many_loops_all_arrive_each_loops_in_its_order(here: str) -> None:
    async def test() -> None:
        owner = asyncio.get_running_loop()
        crossing, thread = Crossing(owner), threading.get_ident()
        taken: list[tuple[int, int]] = []

        async def take(who: int, number: int) -> int:
            assert threading.get_ident() == thread
            taken.append((who, number))
            if number % 3 == 0:
                await asyncio.sleep(0)
            return number

        async def give(who: int) -> None:
            for number in range(300):
                assert await crossing.call(take, who, number) == number

        loops = [Elsewhere(LOOPS[number % 2]) for number in range(4)]
        for loop in loops:
            loop.__enter__()
        try:
            await asyncio.gather(*(loop.wait(give(who)) for who, loop in enumerate(loops)))
        finally:
            for loop in loops:
                loop.end()
        for who in range(4):
            assert [number for found, number in taken if found == who] == list(range(300))
        assert not crossing._calls

    on(here, test)
