"""The life of a worker beside its requests: hooks, recycling, the heartbeat, the executor, one lifespan for many."""

import asyncio
import importlib._bootstrap
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from pounce import LifespanError, Server, ServerConfig
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin, Responder
from pounce.registry import Registry
from pounce.resident import resident_bytes
from pounce.testing import TestServer
from pounce.worker import gil_watch
from pounce.worker.gil_watch import GilWatch
from pounce.worker.lifespan import ProcessLifespan
from pounce.worker.recycling import Recycling
from pounce.worker.worker import Worker


class App:
    """Notes every scope that is not a request, and on which thread."""

    def __init__(self, *, fails: str = "", hangs: str = "") -> None:
        self.fails, self.hangs = fails, hangs
        self.events: list[str] = []
        self.scopes: dict[str, dict[str, Any]] = {}
        self.threads: dict[str, set[str]] = {}

    def note(self, event: str) -> None:
        self.events.append(event)
        self.threads.setdefault(event, set()).add(threading.current_thread().name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await receive()
            self.note("lifespan.startup")
            scope["state"]["made"] = "by the lifespan"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.note("lifespan.shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        elif kind == "http":
            body = str(scope["state"].get("made")).encode()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})
        else:
            self.note(kind)
            self.scopes[kind] = scope
            assert await receive() == {"type": "http.disconnect"}
            await send({"type": "ignored"})
            if kind == self.hangs:
                await asyncio.Event().wait()
            if kind == self.fails:
                raise RuntimeError("it failed")


# Hooks


def test_hooks_are_called_between_the_events_of_the_lifespan_where_they_are_wanted() -> None:
    app = App()
    with TestServer(app, worker_hooks=True, shutdown_timeout=3.0) as server:
        httpx.get(server.url)
        assert app.events == ["lifespan.startup", "pounce.worker.startup"]
    assert app.events[2:] == ["pounce.worker.draining", "pounce.worker.shutdown", "lifespan.shutdown"]
    assert {scope["worker_id"] for scope in app.scopes.values()} == {0}
    assert app.scopes["pounce.worker.startup"]["state"] == {"made": "by the lifespan"}
    assert app.scopes["pounce.worker.draining"]["timeout"] == 3.0


def test_hooks_are_called_only_where_they_are_wanted() -> None:
    app = App()
    with TestServer(app):
        pass
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


def test_a_startup_hook_that_fails_ends_the_start_after_the_lifespan() -> None:
    app = App(fails="pounce.worker.startup")
    with pytest.raises(LifespanError, match="it failed") as raised:
        TestServer(app, worker_hooks=True).start()
    assert (raised.value.code, raised.value.exit_code) == ("POUNCE_WORKER_STARTUP_FAILED", 3)
    assert app.events[-1] == "lifespan.shutdown"


def test_a_startup_hook_that_hangs_ends_the_start_after_its_time() -> None:
    with pytest.raises(LifespanError, match="TimeoutError"):
        TestServer(App(hangs="pounce.worker.startup"), worker_hooks=True, startup_timeout=0.1).start()


def test_a_startup_hook_that_fails_can_be_ignored() -> None:
    app = App(fails="pounce.worker.startup")
    with TestServer(app, worker_hooks=True, worker_startup_failure="ignore") as server:
        assert httpx.get(server.url).status_code == 200


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("kind", ["pounce.worker.draining", "pounce.worker.shutdown"])
def test_a_later_hook_that_does_not_work_keeps_nothing_from_ending(how: str, kind: str) -> None:
    app = App(**{how: kind})
    began = time.monotonic()
    with TestServer(app, worker_hooks=True, shutdown_timeout=0.2):
        pass
    assert app.events[-1] == "lifespan.shutdown"
    assert time.monotonic() - began < 60


# Recycling


def recycling(now: float = 100.0, **settings: Any) -> Recycling:
    return Recycling(ServerConfig.of(settings), now)


def test_a_worker_without_limits_goes_on_for_ever() -> None:
    assert recycling().reason(10**12, 10.0**12) is None


def test_a_worker_goes_after_so_many_requests() -> None:
    subject = recycling(max_requests=1000, recycle_jitter=0)
    assert [bool(subject.reason(count, 100.0)) for count in (999, 1000)] == [False, True]


def test_a_worker_goes_after_so_long() -> None:
    subject = recycling(max_lifetime=60.0, recycle_jitter=0)
    assert [bool(subject.reason(0, now)) for now in (159.9, 160.0)] == [False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_worker_goes_when_its_process_has_grown() -> None:
    assert 1_000_000 < resident_bytes() < 10**12
    assert recycling(max_rss=10**15).reason(0, 100.0) is None
    assert "max_rss" in str(recycling(max_rss=1000).reason(0, 100.0))


def test_limits_are_raised_at_random_by_no_more_than_the_jitter() -> None:
    ends = {
        next(count for count in range(1000, 1200) if subject.reason(count, 100.0))
        for subject in (recycling(max_requests=1000, recycle_jitter=10) for _ in range(200))
    }
    assert len(ends) > 20
    assert min(ends) >= 1000
    assert max(ends) <= 1101


def test_a_server_of_one_worker_ends_itself_after_its_requests_and_loses_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = TestServer(App(), max_requests=5, recycle_jitter=0)
    server.start()
    served = 0
    until = time.monotonic() + 60
    with httpx.Client(verify=False) as client:
        while time.monotonic() < until:
            try:
                served += client.get(server.url).status_code == 200
            except httpx.TransportError:
                break
    server.stop()
    assert served >= 5
    assert "to be started again" in caplog.text


def test_a_server_of_several_workers_ends_itself_too() -> None:
    server = TestServer(App(), workers=2, worker_mode="thread", max_lifetime=0.2)
    server.start()
    until = time.monotonic() + 60
    while server.is_running:
        assert time.monotonic() < until, "it does not end"
        time.sleep(0.02)
    server.stop()


def test_a_server_of_several_workers_that_is_shut_down_before_it_has_started_ends_without_an_error() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pounce-"))
    path = folder / "s"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        server.shutdown()
        while path.exists():
            await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    config = ServerConfig(bind=("127.0.0.1:0", f"unix:{path}"), workers=2, worker_mode="thread")
    server = Server(config, app, on_ready=lambda info: pytest.fail("it says that it has started"))
    asyncio.run(asyncio.wait_for(server.serve(), 60))
    folder.rmdir()


# Executor and heartbeat


def test_the_executor_has_the_threads_that_were_asked_for() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(12)))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    with TestServer(app, executor_threads_per_worker=3) as server:
        assert httpx.get(server.url).status_code == 200
    assert most == 3


def test_the_heartbeat_stands_still_with_the_loop() -> None:
    async def test() -> None:
        from pounce.testing.memory import memory_service
        from pounce.worker.ticker import INTERVAL, Ticker

        ticks: list[float] = []
        ticker = Ticker(memory_service(App()), ticks.append)
        ticker.start()
        started = ticker.heartbeat
        time.sleep(2 * INTERVAL)
        assert ticker.heartbeat == started
        while not ticks:
            await asyncio.sleep(0.01)
        ticker.stop()
        assert ticker.heartbeat == ticks[0] > started

    asyncio.run(test())


# One lifespan for a process


def test_workers_of_a_process_share_one_lifespan_where_they_are_to() -> None:
    app = App()
    with TestServer(app, workers=3, worker_mode="thread", lifespan_scope="process") as server:
        assert app.events == ["lifespan.startup"]
        assert httpx.get(server.url).text == "by the lifespan"
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]
    assert app.threads["lifespan.startup"] == app.threads["lifespan.shutdown"] == {"pounce lifespan"}


def test_workers_of_a_process_have_a_lifespan_each_otherwise() -> None:
    app = App()
    with TestServer(app, workers=3, worker_mode="thread"):
        pass
    assert sorted(app.events) == ["lifespan.shutdown"] * 3 + ["lifespan.startup"] * 3


def test_what_the_hooks_of_a_worker_put_into_the_state_is_its_own() -> None:
    """Else requests of one worker would use what belongs to the loop of another."""
    strays: list[Any] = []

    class Hooked(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "pounce.worker.startup":
                scope["state"]["loop"] = asyncio.get_running_loop()
            elif scope["type"] in ("http", "pounce.worker.shutdown"):
                if scope["state"]["loop"] is not asyncio.get_running_loop():
                    strays.append(scope["type"])
            await super().__call__(scope, receive, send)

    settings: dict[str, Any] = {"workers": 3, "worker_mode": "thread", "worker_hooks": True}
    with TestServer(Hooked(), lifespan_scope="process", **settings) as server:
        for _ in range(6):
            assert httpx.get(server.url).text == "by the lifespan"
    assert strays == []


def test_a_lifespan_of_the_process_that_fails_ends_the_start() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(LifespanError, match="no database"):
        TestServer(app, workers=2, worker_mode="thread", lifespan_scope="process").start()


def test_a_lifespan_of_the_process_that_was_not_started_need_not_be_stopped() -> None:
    ProcessLifespan(ServerConfig(), App()).stop(1.0)


# The GIL


class Interpreter:
    """Whether its GIL is on, as the test says, and a module that comes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.enabled = False
        self._patch = patch
        patch.setattr(gil_watch, "gil_enabled", lambda: self.enabled)
        patch.setattr(GilWatch, "told", False)

    def imports(self, name: str) -> None:
        module = type(sys)(name)
        module.__file__ = f"/nowhere/{name}.so"
        self._patch.setitem(sys.modules, name, module)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    return Interpreter(monkeypatch)


SAID = "The GIL was switched on while serving, by a_culprit: workers do not run in parallel any more"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_what_switches_the_gil_on_while_serving_is_named_once(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture
) -> None:
    watches = [GilWatch(), GilWatch()]
    for watch in watches:
        watch.look(0.0)
    interpreter.imports("a_culprit")
    interpreter.enabled = True
    for tick in range(40):
        for watch in watches:
            watch.look(1.0 + tick * 0.25)
    assert messages(caplog) == [SAID]


def test_what_python_has_warned_of_is_named_alone(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = GilWatch()
    warned = "The global interpreter lock (GIL) has been enabled to load module 'a_culprit', which has not declared …"
    registry = {"version": 0, (warned, RuntimeWarning, 491): True, ("another one", RuntimeWarning, 491): True}
    monkeypatch.setitem(vars(importlib._bootstrap), "__warningregistry__", registry)
    interpreter.imports("innocent")
    interpreter.enabled = True
    for tick in range(40):
        watch.look(tick * 0.25)
    assert messages(caplog) == [SAID]


def test_a_gil_that_is_on_while_modules_are_imported_is_not_reported(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture
) -> None:
    watch, now = GilWatch(), 0.0
    for ticks in (1, 3, 7, 7):
        interpreter.imports(f"innocent{ticks}")
        interpreter.enabled = True
        for _ in range(ticks):
            watch.look(now := now + 0.25)
        interpreter.enabled = False
        watch.look(now := now + 0.25)
    assert not caplog.records
    interpreter.imports("a_culprit")
    interpreter.enabled = True
    for _ in range(10):
        watch.look(now := now + 0.25)
    assert messages(caplog) == [SAID]


def test_a_loop_that_has_stood_still_does_not_take_two_looks_for_a_long_time(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture
) -> None:
    watch = GilWatch()
    interpreter.enabled = True
    watch.look(0.0)
    watch.look(60.0)
    assert not caplog.records


def test_many_workers_do_not_make_a_moment_longer(interpreter: Interpreter, caplog: pytest.LogCaptureFixture) -> None:
    watch = GilWatch()
    interpreter.enabled = True
    for _ in range(16):
        watch.look(0.0)
    assert not caplog.records


def test_a_gil_that_was_on_from_the_start_is_not_reported(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture
) -> None:
    interpreter.enabled = True
    watch = GilWatch()
    for tick in range(40):
        watch.look(tick * 0.25)
    assert not caplog.records


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_imports_when_it_starts_is_named_too(
    interpreter: Interpreter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def create(service: Any) -> None:
        interpreter.imports("a_culprit")
        interpreter.enabled = True

    monkeypatch.setattr(gil_watch, "SECONDS", 0.0)
    monkeypatch.setattr(gil_watch, "LOOKS", 1)
    brings = Plugin(name="late", api=API_VERSION, responders=(Responder(name="late", create=create),))
    with TestServer(App(), registry=Registry.of(h1, brings), workers=workers, worker_mode="thread"):
        until = time.monotonic() + 60
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.02)
    assert messages(caplog) == [SAID]


# The end of helpers


def test_helpers_end_at_the_same_time_and_one_that_fails_keeps_none_from_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def one() -> None:
            first.set()
            await second.wait()

        async def other() -> None:
            second.set()
            await first.wait()

        async def failing() -> None:
            raise RuntimeError("on purpose")

        worker: Any = SimpleNamespace(service=SimpleNamespace(on_end=[one, failing, other]))
        async with asyncio.timeout(60):
            await Worker._end_helpers(worker)

    asyncio.run(main())
    assert "What was to be done at the end of the worker failed" in caplog.text
