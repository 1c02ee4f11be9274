"""What an application raised, told to people: in words, and where in its own files."""

import os
import signal
import threading
from types import TracebackType

__all__ = ["Interrupted", "in_words", "is_from_outside", "is_ours", "place_of"]

_OURS = ("pounce", "pounce_cli", "asyncio", "importlib", "_frozen_importlib", "_frozen_importlib_external")
_LIBRARY = os.path.dirname(os.__file__) + os.sep


class Interrupted(SystemExit):
    """A signal ends the process, whatever code it has interrupted."""


def is_from_outside(error: BaseException) -> bool:
    """Whether a signal raised it: it has only come through the application's code, and must go on."""
    if not isinstance(error, KeyboardInterrupt):
        return isinstance(error, Interrupted)
    handler = getattr(signal.getsignal(signal.SIGINT), "__module__", None) or ""
    # The handlers of a server raise none, and only the main thread is interrupted.
    return threading.current_thread() is threading.main_thread() and not handler.startswith("pounce.")


def in_words(error: BaseException, place: str | None = None) -> str:
    """Type, text and place of an exception: `KeyError: 'x' (/srv/app/main.py:3)`. An empty `place` is left out."""
    text = str(error)
    place = place_of(error) if place is None else place
    return type(error).__name__ + (f": {text}" if text else "") + (f" ({place})" if place else "")


def place_of(error: BaseException) -> str:
    """Where it came from, as `file:line`: the innermost line of the application, or of what it has installed.

    Empty where neither took part.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own, installed = "", ""
    frames = error.__traceback__
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if not is_ours(frames) and not name.startswith(("<", _LIBRARY)):
            installed = f"{name}:{frames.tb_lineno}"
            own = own if "site-packages" in name or "dist-packages" in name else installed
        frames = frames.tb_next
    return own or installed


def is_ours(frames: TracebackType) -> bool:
    """Whether this is a frame of the server, or of what it calls an application by."""
    module = frames.tb_frame.f_globals.get("__name__") or ""
    return str(module).partition(".")[0] in _OURS
