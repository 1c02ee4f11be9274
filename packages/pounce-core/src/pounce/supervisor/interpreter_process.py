"""InterpreterProcess: the inside of a subinterpreter that serves; interpreters.py is the outside."""

import os
import socket
from contextlib import AbstractContextManager, nullcontext
from math import inf

from pounce.errors import PounceError
from pounce.leftovers import Leftovers
from pounce.observe.logs import Logs
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import Failed, Left
from pounce.supervisor.process import ServerProcess, wait_for_start
from pounce.worker.standstill import Standstill

__all__ = ["InterpreterProcess", "main"]


def main(fd: int) -> None:
    """Entry point of an interpreter: `fd` is the channel to the main one, on which a `Start` comes first."""
    # A copy: the main interpreter closes the original, whatever becomes of this one.
    channel = Channel(socket.socket(fileno=os.dup(fd)))
    try:
        spec = wait_for_start(channel)
        if spec is None:
            return
        try:
            logs = Logs(spec.config)
        except PounceError as exc:
            channel.send(Failed(exc, ""))
            return
        with logs:
            left = Leftovers()
            process = InterpreterProcess(channel, spec)
            process.run(spec.app)
            # Nobody else may: an interpreter that is closed waits for them, and has no daemons.
            in_time = left.wait(process.time_left()) and not process.abandoned
        if not (in_time and left.call_exit_handlers(spec.config, process.time_left())):
            channel.send(Left())
    finally:
        channel.close()


class InterpreterProcess(ServerProcess):
    """What is a server process elsewhere, and one interpreter of it here."""

    def _watch(self) -> Standstill:
        # Only here its stack can be had; the main interpreter does the rest.
        timeout = self._spec.config.worker_timeout
        return Standstill(timeout, replaces=False, patience=inf, give_up=lambda state: None)

    def _start_guard(self) -> AbstractContextManager[None]:
        # Its process has one.
        return nullcontext()
