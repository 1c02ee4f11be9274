"""A proxy for tests of what clients see of several servers."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Self

from pounce.testing.server import TestServer

__all__ = ["RoundRobinTestProxy"]


class RoundRobinTestProxy:
    """Passes TCP connections on to servers that run, each new one to the next of them, and all its bytes to that one.

    Use it as a context manager, or call `start()` and `stop()`. Raises `ValueError` without servers.
    """

    __test__ = False

    def __init__(self, backends: Sequence[TestServer], *, host: str = "127.0.0.1", port: int = 0) -> None:
        if not backends:
            raise ValueError("a proxy needs servers to pass connections on to")
        self._backends = tuple(backends)
        self._next = 0
        self.host = host
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, timeout: float = 60.0) -> None:
        """Start, and return once connections are accepted. Raises `OSError` for a port that cannot be had, and
        `RuntimeError` for a server that does not run."""
        for backend in self._backends:
            backend.info  # noqa: B018 - raises
        if self._thread is not None:
            raise RuntimeError("the proxy was started before")
        self._thread = threading.Thread(target=self._run, name="pounce RoundRobinTestProxy", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            raise TimeoutError(f"the proxy was not ready after {timeout:g} s")
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self, timeout: float = 60.0) -> None:
        """Break off all connections, and wait for the end. Raises `TimeoutError` when it takes longer."""
        if self._thread is None or not self._thread.is_alive():
            return
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the proxy did not stop within {timeout:g} s")

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def port(self) -> int:
        """The real one, once it runs."""
        return self._port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, `https://…` where that is what the first of the servers speaks."""
        return f"{self._backends[0].url.partition(':')[0]}://{self.host}:{self._port}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that started it
            self._error = exc
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            backend = self._backends[self._next % len(self._backends)]
            self._next += 1
            task = asyncio.ensure_future(_pass_on(reader, writer, backend))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, self.host, self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: TestServer) -> None:
    """One connection, both ways, until both sides have ended."""
    try:
        theirs, to_them = await asyncio.open_connection(backend.host, backend.port)
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, to_them), _copy(theirs, writer))
    except OSError:
        # One side has broken off: so does the other.
        writer.transport.abort()
        to_them.transport.abort()
    finally:
        writer.close()
        to_them.close()


async def _copy(reader: asyncio.StreamReader, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
