"""A client that checks every answer, while a test does things to the server.

Each request carries a token that the answer has to repeat. A fault is whatever a correct client would have to report or
hide from its user: a refused or reset connection, an end in mid-answer, an end without the announcement of it, a status
other than 200, the answer to another request. In a thread and a loop of its own.
"""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from typing import Any, Self

__all__ = ["CheckingClient", "Fault"]


class Fault(Exception):
    """What an answer, or the lack of one, is blamed for."""


class CheckingClient:
    """Sends requests from entering its context to leaving it: `keep_alive` connections that are used again and again,
    `short` ones for one request each, and `slow` ones whose requests take `slow_time` seconds. Each waits `pause`
    seconds before it asks again.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        keep_alive: int = 8,
        short: int = 4,
        slow: int = 2,
        slow_time: float = 0.3,
        pause: float = 0.0,
        tls: Any = None,
    ) -> None:
        self._address = address
        self._kinds = (keep_alive, short, slow)
        self._slow_time = slow_time
        self._pause = pause
        self._tls = tls
        self._tokens = itertools.count()
        self._ending = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="checking client")
        self.verified = 0
        self.reconnected = 0
        """Connections that the server had announced to end."""
        self.faults: Counter[str] = Counter()
        self.versions: Counter[int] = Counter()
        self.pids: Counter[int] = Counter()
        self.last_answer = time.monotonic()
        self.longest_gap = 0.0
        """Seconds without any answer."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending = True
        self._thread.join()

    def leave(self) -> None:
        """Open no further connections, and finish what runs on those that there are."""
        self._ending = True

    async def _run(self) -> None:
        keep_alive, short, slow = self._kinds
        await asyncio.gather(
            *(self._use_connections("/", again=True) for _ in range(keep_alive)),
            *(self._use_connections("/", again=False) for _ in range(short)),
            *(self._use_connections("/slow", again=True) for _ in range(slow)),
        )

    async def _use_connections(self, path: str, *, again: bool) -> None:
        while not self._ending:
            try:
                reader, writer = await asyncio.open_connection(*self._address, ssl=self._tls)
            except OSError as exc:
                self.faults[f"connect: {exc.strerror or exc!r}"] += 1
                await asyncio.sleep(0.05)
                continue
            used = 0
            try:
                async with asyncio.timeout(120):
                    while await self._request(reader, writer, path, again=again):
                        used += 1
                        if self._ending:
                            break
                        await asyncio.sleep(self._pause)
            except (Fault, OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as exc:
                self.faults[f"{path} {'re' if used else ''}used: {type(exc).__name__} {exc}"[:90]] += 1
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            if not again:
                await asyncio.sleep(self._pause)

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, *, again: bool
    ) -> bool:
        """One request, checked; whether the connection may be used again."""
        token = str(next(self._tokens))
        query = f"{self._slow_time}&{token}" if path == "/slow" else token
        end = b"" if again else b"Connection: close\r\n"
        writer.write(f"GET {path}?{query} HTTP/1.1\r\nHost: test\r\n".encode() + end + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if lines[0] != b"http/1.1 200 ok":
            raise Fault(lines[0].decode())
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        answer = json.loads(await reader.readexactly(length))
        if answer["query"] != query:
            raise Fault(f"asked {query}, answered {answer['query']}")
        self._count(answer)
        if again and b"connection: close" not in lines:
            return True
        if await reader.read(1):
            raise Fault("more than the answer")
        self.reconnected += again
        return False

    def _count(self, answer: dict[str, Any]) -> None:
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self.last_answer)
        self.last_answer = now
        self.verified += 1
        self.versions[answer["version"]] += 1
        self.pids[answer["pid"]] += 1

    def report(self) -> str:
        """The figures, in one line."""
        return (
            f"{self.verified} answers verified, {sum(self.faults.values())} faults {dict(self.faults)},"
            f" {self.reconnected} connections ended as announced, longest gap {self.longest_gap:.2f} s"
        )
