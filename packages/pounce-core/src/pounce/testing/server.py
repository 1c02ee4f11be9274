"""Servers that start in a test."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from pounce.config import ServerConfig
from pounce.registry import Registry
from pounce.server import Server, StartInfo
from pounce.worker.loop import loop_factory, run_on_new_loop

__all__ = ["TestServer", "serve"]

_DEFAULTS: dict[str, Any] = {"access_log": False, "loop": "asyncio"}


def _config(settings: dict[str, Any], *, has_loop: bool = False) -> ServerConfig:
    """Settings with the defaults for tests, each of them where it does something."""
    defaults = dict(_DEFAULTS)
    if has_loop and settings.get("workers") in (1, None):
        del defaults["loop"]
    if not settings.get("bind") and settings.get("uds") is None:
        defaults["port"] = 0
    if settings.get("worker_mode") in ("process", "subinterpreter"):
        defaults["log_level"] = "warning"
    return ServerConfig.of(defaults | settings)


class TestServer:
    """A server on a free port of this machine, in a thread of its own.

    Use it as a context manager, or call `start()` and `stop()`. Settings are those of `ServerConfig`; the port is a
    free one, the loop asyncio's and the access log off unless given.
    """

    __test__ = False  # its name makes pytest look for tests in it

    def __init__(self, app: Any, *, registry: Registry | None = None, **settings: Any) -> None:
        self._server = Server(_config(settings), app, registry=registry, on_ready=self._on_ready)
        self._loop = settings.get("loop", _DEFAULTS["loop"])
        self._ready = threading.Event()
        self._info: StartInfo | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, timeout: float = 60.0) -> None:
        """Start, and return once connections are accepted.

        Raises what the server raised when it cannot start, `TimeoutError` when it takes longer than `timeout` seconds.
        """
        if self._thread is not None:
            raise RuntimeError("the server was started before")
        self._thread = threading.Thread(target=self._run, name="pounce TestServer", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            self._server.shutdown(force=True)
            raise TimeoutError(f"the server was not ready after {timeout:g} s")
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self, timeout: float = 60.0) -> None:
        """Shut down as a signal would, and wait for the end.

        Raises what the server raised, `TimeoutError` when it takes longer than `timeout` seconds.
        """
        if self._thread is None:
            return
        self._server.shutdown()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the server did not stop within {timeout:g} s")
        if self._error is not None:
            raise self._error

    def shutdown(self, *, force: bool = False, hurry: bool = False) -> None:
        """Begin to shut down, and return at once; for the arguments see `Server.shutdown()`."""
        self._server.shutdown(force=force, hurry=hurry)

    def _run(self) -> None:
        try:
            run_on_new_loop(self._server.serve, loop_factory(self._loop))
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that started the server
            self._error = exc
        finally:
            self._ready.set()

    def _on_ready(self, info: StartInfo) -> None:
        self._info = info
        self._ready.set()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._info is not None

    @property
    def info(self) -> StartInfo:
        """What the server told when it started."""
        if self._info is None:
            raise RuntimeError("the server is not running")
        return self._info

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, `https://…` with TLS, `unix:/path` on a Unix socket; no slash at the end."""
        return self.info.urls[0]

    @property
    def host(self) -> str:
        return self._address()[0]

    @property
    def port(self) -> int:
        return self._address()[1]

    def _address(self) -> tuple[str, int]:
        address = self.info.address
        if address is None:
            raise RuntimeError("the server listens on Unix sockets alone")
        return address

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.stop)


@asynccontextmanager
async def serve(app: Any, *, registry: Registry | None = None, **settings: Any) -> AsyncIterator[StartInfo]:
    """Serve `app` on the running loop, beside the test; gives what the server told when it started."""
    started: asyncio.Future[StartInfo] = asyncio.get_running_loop().create_future()
    config = _config(settings, has_loop=True)
    server = Server(config, app, registry=registry, on_ready=started.set_result)
    task = asyncio.create_task(server.serve())
    either: set[asyncio.Future[Any]] = {started, task}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
    if task.done():
        await task
    try:
        yield started.result()
    finally:
        server.shutdown()
        await task
