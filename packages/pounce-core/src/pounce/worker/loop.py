"""Which event loop a worker runs on, and how it ends."""

import asyncio
import importlib
import math
import select
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pounce.app_failure import in_words, is_from_outside
from pounce.errors import ConfigError, SupervisorError

__all__ = ["executor", "import_loop", "loop_factory", "run_on_new_loop"]

BATCH = 16
"""Events that are handled before the loop looks for new ones."""
END_TIMEOUT = 2.0
"""Seconds that what is left on a loop gets to end when the loop does."""
EXECUTOR = "pounce executor"


if hasattr(selectors, "EpollSelector"):

    class FairSelector(selectors.EpollSelector):
        """Gives out at most `BATCH` events at a time, those first that have waited longest.

        asyncio takes all there are, and looks for new ones only when it is through with them. A request that comes in
        just too late then waits for two rounds over all busy connections instead of one: that is the 99th percentile.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            # epoll_wait has a resolution of one millisecond; round up, so as not to wake before it is time.
            wait = -1.0 if timeout is None else 0.0 if timeout <= 0 else math.ceil(timeout * 1e3) * 1e-3
            try:
                found = self._selector.poll(wait, BATCH)  # type: ignore[attr-defined]
            except InterruptedError:
                return []
            keys = self._fd_to_key  # type: ignore[attr-defined]
            ready = []
            for fd, event in found:
                key = keys.get(fd)
                if event == select.EPOLLIN and key is not None:
                    ready.append((key, selectors.EVENT_READ))
                elif key is not None:
                    # As in the base class: an error or a hang-up makes a descriptor readable and writable.
                    events = (event & ~select.EPOLLIN and selectors.EVENT_WRITE) | (
                        event & ~select.EPOLLOUT and selectors.EVENT_READ
                    )
                    ready.append((key, events & key.events))
            return ready

    def fair_loop() -> asyncio.AbstractEventLoop:
        """asyncio's own loop with a `FairSelector`."""
        return asyncio.SelectorEventLoop(FairSelector())

else:
    fair_loop = asyncio.new_event_loop


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop that the setting `loop` names.

    `auto` is uvloop where it is installed, else asyncio. Anything with a colon is `module:factory`, called without
    arguments. Raises `ConfigError`.
    """
    if name == "asyncio":
        return fair_loop
    if name in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError as exc:
            if name == "auto":
                return fair_loop
            if not isinstance(exc, ModuleNotFoundError):
                raise ConfigError(f"loop is uvloop, which cannot be used here: {exc}") from exc
            raise ConfigError(
                "loop is uvloop, which is not installed", hint="Install it: pip install 'pounce-core[uvloop]'"
            ) from exc
        factory: Callable[[], Any] = uvloop.new_event_loop
        return factory
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"loop must be auto, asyncio, uvloop or module:factory (got {name!r})")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise ConfigError(f"loop {name!r} cannot be imported: {in_words(exc)}") from exc
    if not callable(found):
        raise ConfigError(f"loop {name!r} is not callable")
    made: Callable[[], Any] = found
    return made


def import_loop(name: str) -> None:
    """Import the loop that `name` means where it is an installed one, before the application can bring one of that
    name. Raises `ConfigError`."""
    if ":" not in name:
        loop_factory(name)


def executor(threads: int | None = None) -> ThreadPoolExecutor:
    """What a worker's calls in threads run on; None is Python's own number of threads, by the CPUs."""
    return ThreadPoolExecutor(threads, thread_name_prefix=EXECUTOR)


def run_on_new_loop(
    main: Callable[[], Coroutine[Any, Any, None]], factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Run `main` as `asyncio.run` does, but wait no longer than `END_TIMEOUT` for what it leaves behind.

    A task that swallows its cancellation, or a call in a thread, must not keep a server from ending in its time. Raises
    `SupervisorError` where a task of the application ends the loop, as one does that calls `sys.exit()`.
    """
    loop = factory()
    loop.set_default_executor(executor())
    task = loop.create_task(main())
    try:
        loop.run_until_complete(task)
    except (SystemExit, KeyboardInterrupt) as exc:
        if task.done() or is_from_outside(exc):
            raise
        raise SupervisorError(
            f"a task or a callback of the application ended the event loop: {in_words(exc)}",
            code="POUNCE_WORKER_FAILED",
            hint="Outside of requests too, what fails should raise an Exception.",
        ) from exc
    finally:
        try:
            loop.run_until_complete(_end_what_is_left())
        finally:
            loop.close()


async def _end_what_is_left() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_TIMEOUT)
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await asyncio.get_running_loop().shutdown_asyncgens()
    except TimeoutError:
        pass
