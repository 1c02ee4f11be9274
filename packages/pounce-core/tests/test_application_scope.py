"""One application for all workers, or one for each; and what is said when one is used on several event loops."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest

from pounce import AppImportError, ConfigError, LifespanError, ServerConfig
from pounce.testing import TestServer
from pounce.worker.loop_advice import LoopAdvice
from pounce.worker.shared import OnePerWorker, has_one_per_worker

THREADS: dict[str, Any] = {"workers": 3, "worker_mode": "thread"}


class App:
    """Answers with its number; knows on which threads and loops it was used."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loops.add(asyncio.get_running_loop())
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                self.events.append(message["type"])
                await send({"type": message["type"] + ".complete"})
            return
        body = b"%d of worker %d" % (self.number, scope["extensions"]["pounce.worker"]["worker_id"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})


class Factory:
    """Makes applications, and notes where."""

    def __init__(self) -> None:
        self.made: list[App] = []
        self.threads: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop | None] = []

    def __call__(self) -> App:
        self.threads.append(threading.current_thread().name)
        self.loops.append(asyncio._get_running_loop())
        self.made.append(App(len(self.made)))
        return self.made[-1]


def answers(server: TestServer) -> set[str]:
    """What each of three workers answers: the dispatcher gives the least loaded one the next connection."""
    with httpx.Client(verify=False) as one, httpx.Client(verify=False) as two, httpx.Client(verify=False) as three:
        return {client.get(server.url).text for client in (one, two, three)}


def test_factory_makes_an_application_for_each_worker_on_its_loop() -> None:
    factory = Factory()
    with TestServer(factory, factory=True, **THREADS) as server:
        assert sorted(factory.threads) == [f"pounce worker {number}" for number in range(3)]
        assert {answer[0] for answer in answers(server)} == {"0", "1", "2"}
        assert {answer[-1] for answer in answers(server)} == {"0", "1", "2"}
    for app, loop in zip(factory.made, factory.loops, strict=True):
        assert app.loops == {loop}
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("settings", [{"application_scope": "process"}, {"lifespan_scope": "process"}], ids=str)
def test_factory_makes_one_application_for_all_where_it_is_to(settings: dict[str, Any]) -> None:
    factory = Factory()
    with TestServer(factory, factory=True, **THREADS, **settings) as server:
        assert {answer[0] for answer in answers(server)} == {"0"}
    assert len(factory.made) == 1


def test_object_is_one_for_all() -> None:
    app = App(7)
    with TestServer(app, **THREADS) as server:
        assert {answer[0] for answer in answers(server)} == {"7"}
    assert len(app.loops) == 3


def test_one_worker_calls_the_factory_once_on_its_loop() -> None:
    factory = Factory()
    with TestServer(factory, factory=True) as server:
        httpx.get(server.url)
    (app,) = factory.made
    assert app.loops == set(factory.loops)


@pytest.mark.parametrize(
    ("app", "settings", "each"),
    [
        ("main:app", {}, False),
        ("main:create()", {}, True),
        ("main:create", {"factory": True}, True),
        ("main:create()", {"application_scope": "process"}, False),
        ("main:create()", {"application_scope": "worker"}, True),
        ("main:create()", {"lifespan_scope": "process"}, False),
        ("main:app", {"application_scope": "process"}, False),
        ("main:app", {"application_scope": "worker", "worker_mode": "process"}, False),
        ("main:app", {"application_scope": "worker", "worker_mode": "subinterpreter"}, False),
    ],
    ids=str,
)
def test_who_has_an_application_of_its_own(app: str, settings: dict[str, Any], each: bool) -> None:
    assert has_one_per_worker(app, ServerConfig.of(settings)) is each


def test_object_for_each_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a factory"):
        TestServer(App(0), application_scope="worker", **THREADS).start()


def test_application_for_each_worker_and_one_lifespan_for_all_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        ServerConfig(application_scope="worker", lifespan_scope="process")


def test_applications_are_made_one_after_the_other() -> None:
    both_inside = threading.Barrier(2)
    alone: list[bool] = []

    def factory() -> App:
        try:
            both_inside.wait(0.05)
        except threading.BrokenBarrierError:
            alone.append(True)
            both_inside.reset()
        return App(0)

    application = OnePerWorker(factory, ServerConfig(factory=True))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: application(), range(2)))
    assert alone == [True, True]


@pytest.mark.parametrize("first", [1, 2], ids=["at-once", "the-second-time"])
def test_factory_that_fails_ends_the_start_with_its_error(first: int) -> None:
    made: list[App] = []

    def factory() -> App:
        made.append(App(0))
        if len(made) == first:
            raise ValueError("duplicated metric")
        return made[-1]

    with pytest.raises(AppImportError, match="ValueError: duplicated metric") as raised:
        TestServer(factory, factory=True, **THREADS).start()
    assert raised.value.code == "POUNCE_APP_FACTORY_FAILED"
    assert ("application_scope process" in (raised.value.hint or "")) is (first == 2)


@pytest.mark.parametrize("made", [None, 5, "text", App], ids=repr)
def test_factory_that_makes_no_application_ends_the_start(made: Any) -> None:
    with pytest.raises(AppImportError):
        TestServer(lambda: made, factory=True, **THREADS).start()


# What is said


def errors() -> dict[str, Callable[[], BaseException]]:
    """What the libraries really raise."""

    def of_asyncio() -> BaseException:
        """A lock of one loop that is waited for on another."""
        lock = asyncio.Lock()

        async def wait_for_it() -> None:
            if not lock.locked():
                await lock.acquire()
            async with asyncio.timeout(0):
                await lock.acquire()

        for _ in range(2):
            try:
                asyncio.run(wait_for_it())
            except RuntimeError as exc:
                return exc
            except TimeoutError:
                pass
        raise AssertionError

    def of_a_future() -> BaseException:
        loop = asyncio.new_event_loop()
        future = loop.create_future()

        async def wait_for_it() -> None:
            await future

        try:
            asyncio.run(wait_for_it())
        except RuntimeError as exc:
            return exc
        finally:
            loop.close()
        raise AssertionError

    def of_anyio() -> BaseException:
        async def main() -> BaseException:
            scope = anyio.CancelScope()
            await asyncio.create_task(enter(scope))
            try:
                scope.__exit__(None, None, None)
            except RuntimeError as exc:
                return exc
            raise AssertionError

        async def enter(scope: anyio.CancelScope) -> None:
            scope.__enter__()

        return asyncio.run(main())

    return {"lock": of_asyncio, "future": of_a_future, "anyio": of_anyio}


@pytest.fixture(params=errors().values(), ids=errors())
def error(request: pytest.FixtureRequest) -> BaseException:
    made: BaseException = request.param()
    return made


def behind(error: BaseException) -> list[BaseException]:
    """The error, and as it comes out of frameworks."""
    wrapped = ValueError("the request failed")
    wrapped.__cause__ = error
    return [error, wrapped, ExceptionGroup("tasks", [KeyError("x"), ExceptionGroup("more", [error])])]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Several event loops" in record.getMessage()]


@pytest.mark.parametrize("wrapped", range(3), ids=["alone", "as-a-cause", "in-a-group"])
def test_error_of_another_loop_is_explained_once(
    error: BaseException, wrapped: int, caplog: pytest.LogCaptureFixture
) -> None:
    advice = LoopAdvice(one_per_worker=False)
    advice.loops = 2
    for _ in range(3):
        advice.on_error(behind(error)[wrapped])
    (line,) = said(caplog)
    assert "--factory" in line
    assert "--worker-mode process" in line


def test_error_of_another_loop_is_not_explained_where_there_is_none(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    advice = LoopAdvice(one_per_worker=False)
    advice.loops = 1
    advice.on_error(error)
    assert said(caplog) == []


def test_other_errors_are_not_explained(caplog: pytest.LogCaptureFixture) -> None:
    advice = LoopAdvice(one_per_worker=False)
    advice.loops = 2
    around = ValueError("around itself")
    around.__context__ = KeyError("a loop")
    around.__context__.__context__ = around
    advice.on_error(around)
    assert said(caplog) == []


class FailsOnTheSecondLoop:
    """Waits for what belongs to the loop of its first caller, in a request, a task, a WebSocket or its shutdown."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.future: asyncio.Future[None] | None = None
        self.fails = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if self.where == "shutdown":
                await self.wait()
            await send({"type": "lifespan.shutdown.complete"})
        elif self.where == "request":
            await self.wait()
        elif self.where == "task":
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a task failed", "exception": RuntimeError("got Future attached to a different loop")}
            )
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def wait(self) -> None:
        if self.future is None:
            self.future = asyncio.get_running_loop().create_future()
            self.future.set_result(None)
        elif self.future.get_loop() is not asyncio.get_running_loop():
            raise RuntimeError(f"{self.future!r} is bound to a different event loop")


@pytest.mark.parametrize("where", ["request", "task", "shutdown"])
@pytest.mark.parametrize("factory", [False, True], ids=["object", "factory"])
def test_workers_explain_an_error_of_another_loop_once(
    where: str, factory: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = FailsOnTheSecondLoop(where)
    caplog.set_level(logging.WARNING)
    with TestServer((lambda: app) if factory else app, factory=factory, **THREADS) as server:
        clients = [socket.create_connection((server.host, server.port), 20) for _ in range(6)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(100)
        for client in clients:
            client.close()
    (line,) = said(caplog)
    assert ("name a factory" in line) is not factory
    assert ("make it in the factory" in line) is factory
    assert "--worker-mode process" in line


def test_lifespan_that_one_worker_alone_could_start_names_the_ways_out() -> None:
    started = threading.Lock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if not started.acquire(False):
            raise RuntimeError("run() can be called once")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with pytest.raises(LifespanError, match="can be called once") as raised:
        TestServer(app, **THREADS).start()
    assert "--factory" in (raised.value.hint or "")
    assert "--worker-mode process" in (raised.value.hint or "")


def test_lifespan_that_no_worker_could_start_has_its_own_hint() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(LifespanError, match="no database") as raised:
        TestServer(app, **THREADS).start()
    assert "--factory" not in (raised.value.hint or "")
