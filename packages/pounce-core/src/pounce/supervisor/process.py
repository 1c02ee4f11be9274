"""A server process: the workers of one process, and the thread that answers for them to the supervisor.

The main thread imports the application, starts the workers, and from then on only listens to the supervisor: it stays
able to speak when a worker's loop stands still. When the supervisor is gone, the process drains and ends.
"""

import faulthandler
import logging
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from math import inf
from types import FrameType
from typing import NoReturn

from pounce.errors import PounceError, SupervisorError
from pounce.exchange.service import ASGIApp
from pounce.importer import application_traceback
from pounce.net.bind import Listener
from pounce.observe.logs import Logs
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import Beat, Failed, Force, Message, Ready, Recycle, Spec, Start, Stop
from pounce.worker.loop import busy_threads
from pounce.worker.shared import prepare
from pounce.worker.threads import WorkerThreads

__all__ = ["BEAT", "DUMP", "main", "serve"]

log = logging.getLogger("pounce")

BEAT = 1.0
"""Seconds between two messages that all is well."""
FORCED_END = 5.0
"""Seconds that workers get to end when they are not to wait for anything."""
DUMP = signal.SIGUSR2
"""Makes a server process write the stacks of its threads to stderr, also when Python itself stands still."""


def main(fd: int) -> NoReturn:
    """Entry point of a new interpreter: `fd` is the channel to the supervisor, on which a `Start` comes first."""
    channel = Channel(socket.socket(fileno=fd))
    messages: list[Message] = []
    while not messages:
        select.select([channel], [], [])
        messages = channel.receive()
        if channel.ended:
            sys.exit(1)
    start = messages.pop(0)
    assert isinstance(start, Start)
    channel.unread(messages)
    sys.path[:] = start.path
    spec: Spec = pickle.loads(start.spec)
    sys.exit(serve(channel, spec, spec.app))


def serve(channel: Channel, spec: Spec, app: ASGIApp | str) -> int:
    """Do what `spec` says until the supervisor ends it; returns the exit code."""
    _handle_signals()
    with Logs(spec.config):
        code = ServerProcess(channel, spec).run(app)
        busy = busy_threads()
        if busy:
            log.error("%d calls in threads did not end in time and are abandoned", len(busy))
    if busy:
        # The interpreter would wait for them.
        sys.stdout.flush()
        os._exit(1)
    return code


def _handle_signals() -> None:
    """Signals are the supervisor's; those of a terminal or a process manager reach all processes of the server.

    Handlers, not SIG_IGN: that would be inherited by the programs that an application starts.
    """

    def leave_it_to_the_supervisor(number: int, frame: FrameType | None) -> None: ...

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1"):
        signal.signal(getattr(signal, name), leave_it_to_the_supervisor)
    faulthandler.register(DUMP, all_threads=True)


class ServerProcess:
    """The main thread of a server process."""

    def __init__(self, channel: Channel, spec: Spec) -> None:
        self._channel = channel
        self._spec = spec
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._stopping = False
        self._give_up_at = inf
        self._failed = False

    def run(self, app: ASGIApp | str) -> int:
        """Serve; returns the exit code."""
        spec = self._spec
        listeners = [Listener.from_fd(bind, fd) for bind, fd in spec.listeners]
        try:
            shared = prepare(spec.config, app)
            workers = WorkerThreads(
                shared, listeners, dispatched=spec.mode == "thread", on_end=self._notify,
                on_recycle=lambda reason: self._channel.send(Recycle(reason)),
            )  # fmt: skip
            workers.start(spec.workers, spec.first_worker)
            ready = Ready(shared.describe())
        except Exception as exc:  # noqa: BLE001 - told to the supervisor
            self._channel.send(_failed(exc))
            return 1
        self._channel.send(ready)
        self._answer_for(workers)
        for listener in listeners:
            listener.close()
        return 1 if self._failed else 0

    def _notify(self) -> None:
        """Wake the main thread; from any."""
        try:
            self._waker.send(b"\0")
        except OSError:
            pass

    def _answer_for(self, workers: WorkerThreads) -> None:
        """Send signs of life and do what the supervisor says, until all workers have ended."""
        next_beat = 0.0
        self._listen(workers)
        while not workers.join(0):
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT
                self._channel.send(Beat(tuple(workers.states())))
            if now >= self._give_up_at:
                log.error("Workers did not end in time and are abandoned")
                self._failed = True
                return
            self._look_for_failures(workers)
            # Nobody is left to speak to when the supervisor is gone.
            channels: list[Channel | socket.socket] = [self._wake]
            if not self._channel.ended:
                channels.append(self._channel)
            readable, _, _ = select.select(channels, [], [], min(next_beat, self._give_up_at) - now)
            if self._wake in readable:
                self._wake.recv(4096)
            if self._channel in readable:
                self._listen(workers)

    def _look_for_failures(self, workers: WorkerThreads) -> None:
        if self._failed:
            return
        for error in workers.failed():
            self._failed = True
            log.critical("A worker ended unexpectedly", exc_info=error)
            self._channel.send(Recycle("a worker ended unexpectedly"))

    def _listen(self, workers: WorkerThreads) -> None:
        for message in self._channel.receive():
            match message:
                case Stop(empty):
                    self._stopping = True
                    workers.stop(empty=empty)
                case Force():
                    self._stopping = True
                    self._give_up_at = time.monotonic() + FORCED_END
                    workers.force()
        if self._channel.ended and not self._stopping:
            log.error("The supervisor is gone: no further connections are accepted")
            self._stopping = True
            workers.stop(empty=True)


def _failed(error: Exception) -> Failed:
    """`error` as it can travel: what the application raised stays behind, and its traceback goes along as text."""
    if isinstance(error, PounceError):
        return Failed(error, application_traceback(error))
    wrapped = SupervisorError(
        f"a server process could not start: {type(error).__name__}: {error}", code="POUNCE_WORKER_STARTUP_FAILED"
    )
    return Failed(wrapped, "".join(traceback.format_exception(error)))
