"""Launch: how a server process comes into being, as a fresh interpreter or as a copy of the supervisor."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pounce
from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.supervisor.channel import Channel
from pounce.supervisor.child import Child
from pounce.supervisor.messages import Spec, Start
from pounce.supervisor.modes import mode_of
from pounce.supervisor.signals import held_back, leave_to_supervisor
from pounce.supervisor.start_folder import StartFolder

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp

__all__ = ["check_fork", "fork", "other_threads", "spawn"]

START = """\
import sys
sys.path.insert(0, {folder!r})
from pounce.gc_hold import hold
hold()
from pounce.supervisor.process import main
main({fd})
"""


def spawn(spec: Spec, folder: StartFolder) -> Child:
    """Start a fresh interpreter in `folder` that does what `spec` says; the application is named in it.

    Raises `ConfigError` for settings that cannot leave this process.
    """
    try:
        pickled = pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        raise ConfigError(
            f"a setting cannot be handed to another process: {exc}",
            hint="Functions must be found by their name in a module that can be imported.",
        ) from exc
    channel, theirs = Channel.pair()
    with theirs:
        # A current directory in front (-c puts one there, -P does not) could hide modules of the standard library.
        code = START.format(folder=str(Path(pounce.__file__).parents[1]), fd=theirs.fileno())
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with held_back():
            process = subprocess.Popen(
                [sys.executable, *flags, "-P", "-c", code],
                pass_fds=(theirs.fileno(), *(fd for _, fd in spec.listeners)),
            )
    # Only `Child` waits for it.
    process.returncode = 0
    channel.send(Start(folder.name, folder.all_renamed(sys.path), pickled))
    return Child(process.pid, channel, spec)


def fork(spec: Spec, app: ASGIApp, foreign: Iterable[int]) -> Child:
    """Start a copy of this process that does what `spec` says with `app`; it closes the descriptors in `foreign`."""
    channel, theirs = Channel.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    with held_back(), warnings.catch_warnings():
        # The only other thread is the one that writes the log, and the child uses nothing of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if not pid:
            _forked(Channel(theirs), spec, app, (channel.fileno(), *foreign))
    theirs.close()
    return Child(pid, channel, spec)


def _forked(channel: Channel, spec: Spec, app: ASGIApp, foreign: Iterable[int]) -> NoReturn:
    code = 1
    try:
        import logging

        from pounce.supervisor.process import serve

        leave_to_supervisor()
        signal.set_wakeup_fd(-1)
        # A process must see the end of its channel when its supervisor is gone, so no other may hold it.
        for fd in foreign:
            os.close(fd)
        logging.getLogger("pounce").handlers.clear()
        code = serve(channel, spec, app)
        # As multiprocessing does: wait for threads, within the bound that they were given.
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:  # noqa: BLE001 - nothing may get back into the code that forked
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)


def check_fork(config: ServerConfig) -> None:
    """Raises `ConfigError` where a copy of this process could not work."""
    if config.reload:
        raise ConfigError(
            "reload needs the name of the application, to import it anew", hint='Write "module:attribute".'
        )
    if mode_of(config) == "subinterpreter" and config.preload:
        raise ConfigError("preload cannot be handed to other interpreters", hint="Leave it out, or use processes.")
    if mode_of(config) == "subinterpreter":
        raise ConfigError(
            "an application object cannot be handed to other interpreters",
            code="POUNCE_SUPERVISOR_FORK_UNAVAILABLE",
            hint='Name the application instead: "module:attribute".',
        )
    others = other_threads()
    if others or not hasattr(os, "fork"):
        what = "what preload has imported" if config.preload else "an application object"
        raise ConfigError(
            f"{what} cannot be handed to other processes"
            + (f": this one has other threads ({', '.join(others)})" if others else ""),
            code="POUNCE_SUPERVISOR_FORK_UNAVAILABLE",
            hint='Name the application instead: "module:attribute", without preload.',
        )


def other_threads() -> list[str]:
    """The names of those beside this one; that which writes the log shares nothing with anybody."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.name.endswith("(_monitor)")
    ]
