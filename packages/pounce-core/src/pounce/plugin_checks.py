"""What is looked at before anything of a plugin is used, and who is blamed when it fails at the start.

A plugin is written by somebody else, and a mistake in it must not look like one of the server or of the application: it
is a `PluginError` that names the plugin, in whatever thread, process or interpreter it shows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pounce.contract.parser import ParserChoice
from pounce.contract.pieces import (
    POSITIONS,
    Command,
    MiddlewareChoice,
    ObserverFactory,
    Plugin,
    Responder,
)
from pounce.contract.wire import DatagramWire, Preface, Switch, Upgrade, Wire
from pounce.errors import PluginError, PounceError

__all__ = ["Blaming", "blaming", "fault_of"]

PIECES: dict[str, type] = {
    "wires": Wire,
    "datagrams": DatagramWire,
    "upgrades": Upgrade,
    "switches": Switch,
    "parsers": ParserChoice,
    "responders": Responder,
    "observers": ObserverFactory,
    "middleware": MiddlewareChoice,
    "commands": Command,
}
CALLED = ("connect", "open", "create", "load")
"""Fields of pieces that are called."""


def fault_of(plugin: Plugin) -> str | None:
    """What is wrong with the fields of a plugin, None where nothing is."""
    if not isinstance(plugin.name, str) or not plugin.name:
        return f"name must be text that is not empty (got {plugin.name!r})"
    for field, kind in PIECES.items():
        pieces: object = getattr(plugin, field)
        if isinstance(pieces, kind):
            return f"{field} must be a tuple (got one {kind.__name__}: write ({kind.__name__}(...),) with a comma)"
        if not isinstance(pieces, tuple):
            return f"{field} must be a tuple of {kind.__name__} (got {type(pieces).__name__})"
        for piece in pieces:
            if not isinstance(piece, kind):
                return f"{field} must be a tuple of {kind.__name__} (it has {piece!r})"
            fault = _fault_of_piece(piece)
            if fault is not None:
                return f"{kind.__name__} {fault}"
    settings = plugin.settings
    if settings is not None and not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        return f"settings must be a dataclass, not an instance (got {settings!r})"
    return None


def _fault_of_piece(piece: Any) -> str | None:
    name = getattr(piece, "name", None)
    if name is None:
        token = piece.token
        if not isinstance(token, bytes) or not token or token != token.lower():
            return f"token must be bytes in lower case (got {token!r})"
        name = token
    elif not isinstance(name, str) or not name:
        return f"name must be text that is not empty (got {name!r})"
    for field in CALLED:
        if not callable(getattr(piece, field, len)):
            return f"{name!r}: {field} must be callable (got {getattr(piece, field)!r})"
    alpn = getattr(piece, "alpn", ())
    if not isinstance(alpn, tuple) or not all(isinstance(protocol, str) and protocol for protocol in alpn):
        return f"{name!r}: alpn must be a tuple of text (got {alpn!r})"
    preface = getattr(piece, "preface", None)
    if preface is not None and not (preface and isinstance(preface, bytes | Preface)):
        return f"{name!r}: preface must be bytes, a Preface, or None (got {preface!r})"
    if getattr(piece, "where", "inner") not in POSITIONS:
        return f"{name!r}: where must be one of {', '.join(POSITIONS)} (got {piece.where!r})"
    if not isinstance(getattr(piece, "priority", 0), int):
        return f"{name!r}: priority must be a number (got {piece.priority!r})"
    return None


class Blaming:
    """Calls what a plugin gave to be called at the start of a worker; what it raises is a `PluginError`."""

    def __init__(self, plugin: str, what: str, call: Callable[..., Any]) -> None:
        self._what = f"plugin {plugin}: {what}"
        self._call = call
        self.__module__ = getattr(call, "__module__", None) or type(call).__module__

    def __call__(self, *args: Any) -> Any:
        try:
            return self._call(*args)
        except PounceError:
            # The plugin says itself what is wrong, for example with its settings.
            raise
        except (Exception, SystemExit) as exc:
            raise PluginError(
                f"{self._what} could not be made: {type(exc).__name__}: {exc}{_place(exc)}",
                hint="Leave the plugin out with disable_plugin, or have it repaired.",
            ) from exc


def _place(exc: BaseException) -> str:
    """Where it was raised, as far as that is known."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return f" ({traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno})"


def blaming[T: (Responder, ObserverFactory, MiddlewareChoice)](
    plugin: str, kind: str, pieces: tuple[T, ...]
) -> tuple[T, ...]:
    """The same pieces, whose `create` raises nothing but a `PounceError`."""
    return tuple(
        dataclasses.replace(piece, create=Blaming(plugin, f"the {kind} {piece.name}", piece.create)) for piece in pieces
    )
