"""Which event loop a worker runs on, and how it ends."""

import asyncio
import importlib
import select
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pounce.app_failure import in_words, is_from_outside
from pounce.errors import ConfigError, WorkerError
from pounce.spelling import did_you_mean

__all__ = ["executor", "import_loop", "loop_factory", "run_on_new_loop"]

END_TIMEOUT = 2.0
"""Seconds that what is left on a loop gets to end when the loop does."""
EXECUTOR = "pounce executor"
HAS_OWN = sys.implementation.name == "cpython" and sys.version_info < (3, 15) and hasattr(select, "epoll")
"""`EpollLoop` is known to work here."""


def own_loop() -> asyncio.AbstractEventLoop:
    """The loop that `loop = "asyncio"` means: asyncio's own, with a shorter way to connections where there is epoll."""
    if not HAS_OWN:
        return asyncio.new_event_loop()
    from pounce.net.epoll_loop import EpollLoop

    return EpollLoop()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop that the setting `loop` names.

    `auto` is uvloop where it is installed, else asyncio. Anything with a colon is `module:factory`, called without
    arguments. Raises `ConfigError`.
    """
    if name == "asyncio":
        return own_loop
    if name in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError as exc:
            if name == "auto":
                return own_loop
            if not isinstance(exc, ModuleNotFoundError):
                raise ConfigError(f"loop is uvloop, which cannot be used here: {exc}") from exc
            raise ConfigError(
                "loop is uvloop, which is not installed", hint="Install it: pip install 'pounce-core[uvloop]'"
            ) from exc
        factory: Callable[[], Any] = uvloop.new_event_loop
        return factory
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"loop must be auto, asyncio, uvloop or module:factory (got {name!r})", hint=_meant(name))
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


def _meant(name: str) -> str:
    """What to write in place of a name that is no loop here."""
    if name.lower() in ("trio", "curio"):
        return "Applications run on asyncio or uvloop; those that use anyio do so as they are."
    if hint := did_you_mean(name, ("auto", "asyncio", "uvloop")):
        return hint
    if not name.isidentifier() or name.lower() == "none":
        return "Write asyncio for Python's own loop."
    return f"A loop of another package is named by the function that makes it, for example {name}:new_event_loop."


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
    `WorkerError` where a task of the application ends the loop, as one does that calls `sys.exit()`.
    """
    loop = factory()
    loop.set_default_executor(executor())
    task = loop.create_task(main())
    try:
        loop.run_until_complete(task)
    except (SystemExit, KeyboardInterrupt) as exc:
        if task.done() or is_from_outside(exc):
            raise
        raise WorkerError(
            f"a task or a callback of the application ended the event loop: {in_words(exc)}",
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
