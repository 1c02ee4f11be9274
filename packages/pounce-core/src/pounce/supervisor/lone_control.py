"""The control socket of a server that has no supervisor: it tells how the server does, and ends it."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.totals import Totals
from pounce.supervisor.control import Answer, open_control
from pounce.supervisor.status import status_of
from pounce.worker.state import WorkerState

__all__ = ["LoneControl"]


class OnLoop:
    """A loop, as far as a control socket needs it for a selector."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def register(self, fileobj: Any, events: int, data: Callable[[], None]) -> None:
        self._loop.add_reader(fileobj, data)

    def unregister(self, fileobj: Any) -> None:
        self._loop.remove_reader(fileobj)


class LoneControl:
    """Made on the loop when connections are accepted. `look` tells how the workers are, and what they have counted."""

    def __init__(
        self,
        config: ServerConfig,
        app: object,
        urls: tuple[str, ...],
        look: Callable[[], tuple[list[WorkerState], Totals]],
        shutdown: Callable[[], None],
    ) -> None:
        self._urls = urls
        self._look = look
        self._shutdown = shutdown
        self._started_at = time.time()
        commands: dict[str, Callable[[Answer], None]] = {
            "status": self._tell_status,
            "stop": self._stop,
            "reload": self._refuse,
            "add-worker": self._refuse,
            "remove-worker": self._refuse,
        }
        loop = OnLoop(asyncio.get_running_loop())
        self._socket = open_control(config.control_socket, config.app_name or app, loop, commands)

    def close(self) -> None:
        """The server has ended."""
        if self._socket is not None:
            self._socket.close()

    def _tell_status(self, answer: Answer) -> None:
        states, totals = self._look()
        state = "ending" if any(worker.draining for worker in states) else "serving"
        status = status_of(
            state,
            urls=self._urls,
            started_at=self._started_at,
            workers=len(states),
            mode="thread",
            processes=[(os.getpid(), "draining" if state == "ending" else "serving", states)],
            totals=totals,
        )
        answer({"ok": True, "status": status})

    def _stop(self, answer: Answer) -> None:
        answer({"ok": True})
        if self._socket is not None:
            # Whoever is connected now waits for the end.
            self._socket.leave()
        self._shutdown()

    def _refuse(self, answer: Answer) -> None:
        error = "one worker in the process that was started has no supervisor, which this needs"
        answer({"ok": False, "error": f"{error}: start it with --control-socket PATH"})
