"""Supervisor: keeps the processes that serve running, and replaces them without losing a request.

It owns the listening sockets, and never imports the application nor sees a request. Here is its loop, and what that
does by itself; each of these has a part, with its state:

    sockets.py      what is listened on, and which process gets what of it
    generations.py  the places, each with its process: start, death, replacement, reload
    children.py     the processes that run: what they say, and when they have ended
    launch.py       how one comes into being
    resize.py       more and fewer workers
    fleet.py        what each worker has to know of all others
    signals.py      which signals are for whom
    upgrade.py      a new supervisor starts beside this one on the same sockets. When it serves all drains, and this one
                    ends; when it cannot, this one goes on
    control.py      who asks how it does, over a socket

At the end the sockets close here, so that the processes can empty them; all drain.

The loop is single-threaded and waits for descriptors alone: channels, ends of processes, signals, deadlines.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig
from pounce.contract.totals import Totals
from pounce.errors import SupervisorError
from pounce.net.bind import Listener
from pounce.observe.logs import reopen_log_files
from pounce.supervisor.child import Child
from pounce.supervisor.control import Answer, ControlSocket, open_control
from pounce.supervisor.fleet import FleetNews
from pounce.supervisor.generations import Generations
from pounce.supervisor.launch import check_fork, other_threads
from pounce.supervisor.orphans import cannot_reap
from pounce.supervisor.privileges import Privileges
from pounce.supervisor.resize import Resizing
from pounce.supervisor.signals import Signals
from pounce.supervisor.sockets import Sockets
from pounce.supervisor.status import status_of
from pounce.supervisor.systemd import Notifier
from pounce.supervisor.upgrade import Predecessor, Successor
from pounce.supervisor.watch_files import FileWatcher
from pounce.worker.state import Description

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp
    from pounce.supervisor.server_hooks import ServerHooks

__all__ = ["Supervisor"]

log = logging.getLogger("pounce.supervisor")


class Supervisor:
    """Serves `app` with the workers that `config` asks for.

    `on_ready` is called once the first generation serves, and before `predecessor` is told so. Without `own_process`
    it serves beside something else, and has no control socket.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | str,
        on_ready: Callable[[Description, list[Listener]], None],
        notifier: Notifier,
        predecessor: Predecessor | None = None,
        *,
        own_process: bool = True,
        hooks: ServerHooks | None = None,
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._control_setting = config.control_socket if own_process else None
        self._app = app
        self._on_ready = on_ready
        self._notifier = notifier
        self._next_sign = inf
        """When systemd expects a sign of life."""
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._watcher: FileWatcher | None = None
        self._control: ControlSocket | None = None
        self._reload_answers: list[Answer] = []
        """Who waits for the end of the reload."""
        self._started_at = time.time()
        self._urls: list[str] = []
        self._error: Exception | None = None
        self._requests: list[Callable[[], None]] = []
        """What other threads and signal handlers want done on this one."""
        self._wake, self._waker = socket.socketpair()
        for sock in (self._wake, self._waker):
            sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._sockets = Sockets(config)
        self._generations = Generations(
            config,
            app,
            self._sockets,
            self._selector,
            self,
            foreign=self._descriptors,
            number=predecessor.generation + 1 if predecessor is not None else 0,
        )
        self._children = self._generations.children
        self._resizing = Resizing(self._generations)
        self._fleet = FleetNews(config, self._generations)
        self._signals = Signals(lambda force, hurry: self.shutdown(force=force, hurry=hurry), self._children.kill)

    # From any thread, and from signal handlers

    def shutdown(self, *, force: bool = False, hurry: bool = False) -> None:
        """End: requests that run get `shutdown_timeout` to finish, none of it with `force`; see `Server.shutdown()`."""
        self._call(self._force if force else lambda: self._stop(hurry=hurry))

    def reload(self) -> None:
        """Replace all processes by new ones with the application as it is now."""
        self._call(self._generations.reload)

    def resize(self, by: int) -> None:
        """Serve with so many workers more, or fewer with a negative number; one at the least."""
        self._call(lambda: self._resizing.resize(by))

    def upgrade(self) -> None:
        """Have a new supervisor take over, with pounce as it is installed now."""
        self._call(self._upgrade)

    def reopen_logs(self) -> None:
        """Open log files again, those of the application too, in all processes."""
        self._call(self._reopen_logs)

    def _call(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        try:
            self._waker.send(b"\0")
        except OSError:
            # It is full: the loop wakes anyway. Or closed: it has ended.
            pass

    # The loop

    def run(self, *, handle_signals: bool) -> None:
        """Serve until `shutdown()`; blocks. Raises a `PounceError` when it cannot start or go on.

        With `handle_signals`, which is for the main thread, signals do what docs/workers.md says.
        """
        if handle_signals:
            self._signals.handle(self._handlers())
        try:
            if self._config.preload or not isinstance(self._app, str):
                check_fork(self._config)
            self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
            privileges = Privileges.of(self._config)
            self._sockets.open(self._predecessor, count=self._generations.workers)
            if self._predecessor is None:
                self._open_control()
            if privileges is not None:
                self._generations.open_sockets()
                siblings = self._sockets.siblings()
                privileges.hand_over(siblings.folder if siblings is not None else None)
                privileges.hand_over_files(self._config)
                privileges.take()
            if self._config.preload:
                self._generations.preload()
            if self._config.reload:
                # What changes while the first processes start may be too late for them.
                self._watcher = FileWatcher(self._config, self.reload, self._generations.folder.name)
            self._generations.start()
            while len(self._children) or not self._generations.stopping:
                for key, _ in self._selector.select(self._until_next_deadline()):
                    key.data()
                self._look_at_deadlines()
                self._fleet.tell()
        finally:
            self._signals.restore()
            self._close()
        if self._error is not None:
            raise self._error
        if self._signals.ends > 1:
            raise SystemExit(1)

    def _handlers(self) -> dict[signal.Signals, Callable[[], None]]:
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: lambda: self._call(self._reload_by_hand),
            signal.SIGTTIN: lambda: self.resize(+1),
            signal.SIGTTOU: lambda: self.resize(-1),
            signal.SIGUSR1: self.reopen_logs,
            signal.SIGUSR2: self.upgrade,
        }
        if os.getpid() == 1:
            reason = cannot_reap(threads=1 + len(other_threads()))
            if reason is None:
                handlers[signal.SIGCHLD] = lambda: self._call(self._children.reap_orphans)
            else:
                log.warning("Nobody waits for orphaned processes: this is process 1, and %s", reason)
        return handlers

    def _woken(self) -> None:
        try:
            self._wake.recv(4096)
        except OSError:
            pass
        while self._requests:
            self._requests.pop(0)()

    def _until_next_deadline(self) -> float | None:
        first = min(self._next_sign, self._generations.next_deadline())
        return None if first == inf else max(0.0, first - time.monotonic())

    def _look_at_deadlines(self) -> None:
        now = time.monotonic()
        if self._next_sign <= now:
            self._give_sign()
        self._generations.look(now)

    def _give_sign(self) -> None:
        interval = self._notifier.watchdog_interval
        if interval is not None:
            self._notifier.watchdog()
            self._next_sign = time.monotonic() + interval

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._children.close()
        self._sockets.close()
        if self._control is not None:
            self._control.close()
        if self._predecessor is not None:
            self._predecessor.close()
        if self._successor is not None:
            if self._successor.is_ready() is None:
                # It is still starting, and has nothing to lose.
                self._successor.give_up()
            self._forget_successor()
        self._selector.close()
        self._wake.close()
        self._waker.close()

    def _descriptors(self) -> list[int]:
        """What a fork has no business with, beside sockets and processes."""
        own = [self._wake.fileno(), self._waker.fileno()]
        if self._control is not None:
            own += self._control.descriptors()
        if self._predecessor is not None:
            own += self._predecessor.descriptors()
        if self._successor is not None:
            own.append(self._successor.fileno())
        if hasattr(self._selector, "fileno"):
            own.append(self._selector.fileno())
        return own

    def _reopen_logs(self) -> None:
        reopen_log_files()
        self._children.reopen_logs()

    # What becomes of the generations

    def served(self, description: Description, took: float) -> None:
        """See `GenerationEvents`."""
        if self._watcher is not None:
            self._watcher.started(took)
            self._watcher.start()
        scheme = "https" if description.tls else "http"
        self._urls = [listener.url(scheme) for listener in self._sockets.first]
        if self._predecessor is not None:
            self._open_control()
        if self._hooks is not None:
            self._hooks.generation = self._generations.number
        self._on_ready(description, self._sockets.first)
        if self._predecessor is not None:
            # Nothing of the other one's is touched before nothing can fail any more.
            if self._control is not None:
                self._control.take_over()
            self._sockets.take_over()
            self._predecessor.relieve()
        self._give_sign()

    def reload_began(self) -> None:
        """See `GenerationEvents`."""
        self._notifier.reloading()

    def reload_ended(self, error: str | None, took: float) -> None:
        """See `GenerationEvents`."""
        if error is not None:
            self._notifier.ready("The last reload failed")
            self._answer_reload({"ok": False, "error": f"reload failed: {error}"})
        else:
            if self._watcher is not None:
                self._watcher.started(took)
            self._answer_reload({"ok": True})
            self._notifier.ready()
            self._call_hook("on_reload")
        self._resizing.go_on()

    def process_ended(self, child: Child) -> None:
        """See `GenerationEvents`."""
        self._call_hook("worker_exit", worker_pid=child.pid, exit_code=child.exit_code)

    def _call_hook(self, name: str, **told: Any) -> None:
        if self._hooks is not None:
            self._hooks.generation = self._generations.number
            self._hooks.call(name, **told)

    def reload_overtaken(self) -> None:
        """See `GenerationEvents`."""
        self._answer_reload({"ok": False, "error": "a later reload took its place"})

    def cannot_go_on(self, error: Exception) -> None:
        """See `GenerationEvents`."""
        self._error = self._error or error
        self._stop()

    def _reload_by_hand(self) -> None:
        if self._watcher is not None:
            self._watcher.react_to_all()
        self._generations.reload()

    # Upgrade

    def _upgrade(self) -> None:
        if self._generations.stopping or not self._generations.serves:
            return
        if self._successor is not None:
            log.warning("An upgrade is under way: process %d starts", self._successor.pid)
            return
        generations, datagrams = self._generations, self._sockets.datagrams
        try:
            passed = datagrams.passed() if datagrams is not None else None
            self._successor = Successor(self._sockets.sets, passed, generations.folder, generations.number)
        except (OSError, SupervisorError) as exc:
            log.error("No upgrade: %s", exc)
            return
        log.info("Upgrading: process %d starts", self._successor.pid)
        self._selector.register(self._successor, selectors.EVENT_READ, self._on_news_of_successor)

    def _on_news_of_successor(self) -> None:
        assert self._successor is not None
        ready = self._successor.is_ready()
        if ready is None:
            return
        pid = self._successor.pid
        if not ready:
            end = self._successor.end_in_words()
            self._forget_successor()
            if not self._generations.stopping:
                log.error("Upgrade failed, what served before goes on: process %d %s", pid, end)
            return
        self._forget_successor()
        log.info("Upgraded: process %d serves, this one ends", pid)
        self._notifier.main_pid(pid)
        # From now on the service is the other one.
        self._notifier, self._next_sign = Notifier(), inf
        if self._watcher is not None:
            self._watcher.stop()
        self._sockets.leave()
        self._fleet.relieved = True
        self._stop(empty=False)

    def _forget_successor(self) -> None:
        assert self._successor is not None
        self._selector.unregister(self._successor)
        self._successor.close()
        self._successor = None

    # The control socket

    def _open_control(self) -> None:
        commands: dict[str, Callable[[Answer], None]] = {
            "status": self._tell_status,
            "reload": self._reload_for,
            "stop": self._stop_for,
            "add-worker": lambda answer: self._resize_for(+1, answer),
            "remove-worker": lambda answer: self._resize_for(-1, answer),
        }
        named, takes_over = self._config.app_name or self._app, self._predecessor is not None
        self._control = open_control(
            self._control_setting, named, self._selector, commands, takes_over=takes_over
        )

    def _resize_for(self, by: int, answer: Answer) -> None:
        if self._generations.stopping or not self._generations.serves:
            answer({"ok": False, "error": "the server is starting or ending"})
        elif self._generations.coming:
            answer({"ok": False, "error": "a reload is under way"})
        else:
            self._resizing.resize(by)
            answer({"ok": True, "workers": self._generations.workers})

    def _reload_for(self, answer: Answer) -> None:
        if self._generations.stopping or not self._generations.serves:
            answer({"ok": False, "error": "the server is starting or ending"})
        else:
            self._reload_by_hand()
            self._reload_answers.append(answer)

    def _answer_reload(self, outcome: dict[str, Any]) -> None:
        answers, self._reload_answers = self._reload_answers, []
        for answer in answers:
            answer(outcome)

    def _stop_for(self, answer: Answer) -> None:
        answer({"ok": True})
        self._stop()

    def _tell_status(self, answer: Answer) -> None:
        self._generations.collecting.want(lambda totals: self._answer_status(answer, totals))

    def _answer_status(self, answer: Answer, totals: Totals) -> None:
        generations = self._generations
        state = "ending" if generations.stopping else "reloading" if generations.coming else "serving"
        status = status_of(
            state if generations.serves else "starting",
            urls=self._urls,
            started_at=self._started_at,
            workers=generations.workers,
            mode=generations.mode,
            processes=[
                (child.pid, child.state.name.lower(), child.beat.workers if child.beat is not None else ())
                for child in sorted(self._children, key=lambda child: child.started)
            ],
            totals=totals,
        )
        answer({"ok": True, "status": status})

    # The end

    def _stop(self, *, empty: bool = True, hurry: bool = False) -> None:
        """With `empty` nobody serves the sockets after this."""
        if self._generations.stopping:
            return
        self._generations.stopping = True
        # Before they drain: by itself none can tell a reload from the end.
        self._fleet.tell()
        if self._successor is not None:
            self._successor.give_up()
        self._notifier.stopping()
        if self._control is not None:
            self._control.leave()
        # The last one that has a socket open must have emptied it.
        self._sockets.close_listeners()
        self._generations.drain(empty=empty, hurry=hurry)

    def _force(self) -> None:
        self._stop()
        self._children.force()
