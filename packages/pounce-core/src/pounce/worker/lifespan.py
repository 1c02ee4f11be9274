"""The ASGI lifespan of a worker or of a process (ASGI lifespan 2.0), and the hooks of workers."""

import asyncio
import contextlib
import inspect
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from pounce.app_failure import in_words, is_from_outside
from pounce.config import ServerConfig
from pounce.errors import AppError, AppImportError, LifespanError
from pounce.exchange.crossing import Crossing, running_loop
from pounce.exchange.values import plain_str
from pounce.middleware_failure import middleware_failed
from pounce.worker.loop import loop_factory, run_on_new_loop

__all__ = ["Lifespan", "ProcessLifespan", "Quit", "call_hook"]

log = logging.getLogger("pounce.lifespan")


class Unsupported(Exception):
    """The application answered the lifespan scope as if it were a request: it has no lifespan."""


class Quit(Exception):
    """The application raised what ends a program, which is the cause of this.

    Out of a task that would go through the event loop and end it.
    """


class Lifespan:
    """Runs an application's startup and shutdown on the loop that serves its requests.

    With `auto` an application has no lifespan when it ends before it asks for an event, or sends the messages of a
    request; an exception after it was told to start up is a failed startup, not a missing feature. So is what ends a
    program. An exception before it asks is logged, unless it is one by which applications say that they have none.

    With `shared` the process has run the lifespan already: startup and shutdown do nothing, and the state is a copy of
    what it left, for each worker's hooks may add what belongs to its loop.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: Callable[..., Any],
        shared: ProcessLifespan | None = None,
        on_app_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        """`on_app_error` is called with what a shutdown raises, when that is logged."""
        self._config = config
        self._app = app
        self._on_app_error = on_app_error
        self.state: dict[str, Any] = {} if shared is None else shared.state.copy()
        self.supported = config.lifespan != "off" and shared is None
        self._events: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
        self._answers: asyncio.Queue[tuple[str, str]] = asyncio.Queue(maxsize=2)
        self._asked = False
        self._phase = "lifespan.startup"
        self._task: asyncio.Task[None] | None = None
        self._crossing: Crossing

    async def startup(self) -> None:
        """Run the startup. Raises `LifespanError` when it fails or takes longer than `startup_timeout`."""
        if not self.supported:
            return
        self._events.put_nowait("lifespan.startup")
        self._task = asyncio.create_task(self._run(), name="pounce lifespan")
        try:
            await self._start_up(self._task)
        except BaseException:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2.0)
            raise

    async def _start_up(self, task: asyncio.Task[None]) -> None:
        timeout = self._config.startup_timeout
        answer = await self._answer(task, timeout)
        if answer is None and not task.done():
            raise LifespanError(
                f"the application's startup took longer than {timeout:g} s",
                code="POUNCE_LIFESPAN_STARTUP_TIMEOUT",
                hint="Raise startup_timeout, or see what its lifespan waits for.",
            )
        if answer is None:
            self._ended_early(task)
        elif answer[0] == "lifespan.startup.failed":
            raise LifespanError(
                f"the application's startup failed: {answer[1] or 'no message given'}",
                hint="The application's own log says more.",
            )

    def _ended_early(self, task: asyncio.Task[None]) -> None:
        error = _raised_in(task)
        if error is not None and not self._asked:
            _refuse_broken(error)
        failed = self._asked and error is not None and not _is_unsupported(error)
        if failed or self._config.lifespan == "on" or not isinstance(error, Exception | None):
            raise LifespanError(
                "the application's startup failed" + (f": {in_words(error)}" if error else ""),
                hint="With lifespan off the server does without it.",
            ) from error
        self.supported = False
        if error is None or _is_unsupported(error) or _says_unsupported(error):
            log.debug("The application has no lifespan")
        else:
            log.warning("The application is served without its lifespan, which failed before it began", exc_info=error)

    async def shutdown(self, timeout: float) -> None:
        """Run the shutdown, within `timeout` seconds; a failure is logged."""
        task = self._task
        if not self.supported or task is None:
            return
        if task.done():
            self._log_end(task, "The application's lifespan ended before the shutdown")
            return
        self._events.put_nowait("lifespan.shutdown")
        answer = await self._answer(task, timeout)
        if answer is not None and answer[0] == "lifespan.shutdown.failed":
            log.error("The application's shutdown failed: %s", answer[1] or "no message given")
        elif answer is None and not task.done():
            log.error("The application's shutdown took longer than %g s", timeout)
        if not task.done():
            # Complete has been said; what comes after it gets a moment.
            await asyncio.wait([task], timeout=2.0 if answer else 0)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=2.0)
        if task.done():
            self._log_end(task, "The application's shutdown failed")

    def _log_end(self, task: asyncio.Task[None], what: str) -> None:
        if not task.cancelled() and (error := _raised_in(task)) is not None:
            log.error(what, exc_info=error)
            if self._on_app_error is not None:
                self._on_app_error(error)

    async def _answer(self, task: asyncio.Task[None], timeout: float) -> tuple[str, str] | None:
        """The next message of the application; None when it ended, or the time is over, without one."""
        getter = asyncio.create_task(self._answers.get())
        try:
            await asyncio.wait([getter, task], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                return getter.result()
            return None if self._answers.empty() else self._answers.get_nowait()
        finally:
            getter.cancel()

    async def _run(self) -> None:
        self._crossing = Crossing(asyncio.get_running_loop())
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await _called(self._app, scope, self._receive, self._send)
        finally:
            self._crossing.close()

    async def _receive(self) -> dict[str, Any]:
        if running_loop() is not self._crossing.loop:
            return await self._crossing.call(self._receive, undo=self._put_back)
        self._asked = True
        return {"type": await self._events.get()}

    def _put_back(self, message: dict[str, Any]) -> None:
        self._events.put_nowait(message["type"])

    async def _send(self, message: dict[str, Any]) -> None:
        if running_loop() is not self._crossing.loop:
            await self._crossing.call(self._send, message)
            return
        kind = message["type"]
        if not kind.startswith("lifespan."):
            raise Unsupported(f"{kind} in the lifespan scope")
        if kind not in (f"{self._phase}.complete", f"{self._phase}.failed"):
            raise AppError(f"{kind} is not what answers {self._phase}", code="POUNCE_APP_BAD_MESSAGE")
        self._phase = "lifespan.shutdown" if self._phase == "lifespan.startup" else "the end of the lifespan"
        reason = message.get("message") or ""
        self._answers.put_nowait((kind, plain_str(reason) or str(reason)))


class ProcessLifespan:
    """The lifespan of all workers of a process (`lifespan_scope = process`), on a loop and a thread of its own.

    Whoever starts the workers calls `start()` before the first of them and hands this to each `Worker`, then `stop()`
    when the last one has ended. That way it does not matter which of them come and go in between. What the application
    puts into the state must not belong to an event loop.
    """

    def __init__(self, config: ServerConfig, app: Callable[..., Any], *, daemon: bool = True) -> None:
        self._config = config
        self._lifespan = Lifespan(config, app)
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._end: Callable[[float], None] | None = None
        self._thread = threading.Thread(target=self._run, name="pounce lifespan", daemon=daemon)
        self.state: dict[str, Any] = self._lifespan.state
        """What the startup left; nobody changes it afterwards."""

    def start(self) -> None:
        """Run the startup, and wait for it. Raises `LifespanError`."""
        self._thread.start()
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self, timeout: float) -> None:
        """Run the shutdown, within `timeout` seconds, and wait for it; does nothing without a startup, or again."""
        end, self._end = self._end, None
        if end is not None:
            end(timeout)
            self._thread.join()

    def _run(self) -> None:
        try:
            run_on_new_loop(self._live, loop_factory(self._config.loop))
        except BaseException as exc:
            self._error = exc
            if self._settled.is_set():
                log.error("The application's lifespan ended before the shutdown", exc_info=exc)
        finally:
            self._settled.set()

    async def _live(self) -> None:
        await self._lifespan.startup()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[float] = loop.create_future()

        def end(timeout: float) -> None:
            with contextlib.suppress(RuntimeError):  # the application has ended the loop
                loop.call_soon_threadsafe(ended.set_result, timeout)

        self._end = end
        self._settled.set()
        await self._lifespan.shutdown(await ended)


async def call_hook(app: Callable[..., Any], scope: dict[str, Any], timeout: float) -> None:
    """Call the application with a scope of a worker's life; raises what it raises, `TimeoutError` after `timeout`.

    There is nothing to receive but `http.disconnect`, and what it sends is ignored.
    """

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        pass

    async with asyncio.timeout(timeout):
        await _called(app, {"asgi": {"version": "3.0", "spec_version": "2.0"}, **scope}, receive, send)


async def _called(app: Callable[..., Any], *arguments: Any) -> None:
    """Call the application; what would end the event loop is raised as `Quit`."""
    try:
        answer = app(*arguments)
        if not inspect.isawaitable(answer):
            raise AppImportError(
                f"the application is no ASGI 3 application: it returned {answer!r}, which cannot be awaited",
                code="POUNCE_APP_NOT_ASGI",
                hint="Write it as async def app(scope, receive, send).",
            )
        await answer
    except (SystemExit, KeyboardInterrupt) as exc:
        if is_from_outside(exc):
            raise
        raise Quit(in_words(exc)) from exc


def _raised_in(task: asyncio.Task[None]) -> BaseException | None:
    """What the application raised; also a cancellation, where nobody has asked for one."""
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return error.__cause__ if isinstance(error, Quit) else error


def _refuse_broken(error: BaseException) -> None:
    """Raise `AppImportError` for an application that can answer nothing at all."""
    if isinstance(error, AppImportError):
        raise error
    frames = error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_name.endswith("build_middleware_stack"):
            raise middleware_failed(error) from error
        frames = frames.tb_next


_REQUEST_KEYS = (
    "method", "path", "raw_path", "query_string", "headers", "client", "server", "scheme", "http_version", "root_path",
    "subprotocols",
)  # fmt: skip
_UNSUPPORTED = re.compile(r"\b(lifespan|scope|(un)?supported)\b|\bonly\b.*\bhttp|\bhttp.*\bonly\b", re.IGNORECASE)


def _says_unsupported(error: BaseException) -> bool:
    """Whether an exception is one by which applications say, or show, that they know nothing but requests."""
    if isinstance(error, KeyError):
        return str(error).strip("'") in _REQUEST_KEYS
    if isinstance(error, NotImplementedError) or (isinstance(error, AssertionError) and not str(error)):
        return True
    return _UNSUPPORTED.search(str(error)) is not None


def _is_unsupported(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, Unsupported):
            return True
        error = error.__cause__ or error.__context__
    return False
