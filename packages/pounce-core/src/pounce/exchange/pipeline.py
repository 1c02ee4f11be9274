"""The application with everything around it: made once for each worker, from the outermost middleware to the innermost.

compression ▸ static files ▸ what plugins bring ▸ the user's list ▸ the application

Compression that is the outermost is asked by the exchange itself, and only for answers that are not small: a call for
each message less.
"""

import sys
from types import FunctionType
from typing import Any

from pounce.contract.pieces import POSITIONS, MiddlewareChoice
from pounce.contract.wire import ASGIApp, Service
from pounce.errors import PluginError, PounceError
from pounce.exchange.host import Compression

__all__ = ["wrapped"]


def wrapped(
    service: Service, app: ASGIApp, choices: tuple[MiddlewareChoice, ...]
) -> tuple[ASGIApp, Compression | None]:
    """`app` inside of what `choices` make, in their order, and the compression that exchanges ask, where it is not
    among these. Raises `PluginError` when one of them fails."""
    for choice in reversed(in_order(choices)):
        try:
            outer = choice.create(service, app)
        except PounceError:
            raise
        except Exception as exc:
            raise PluginError(f"the middleware {choice.name} could not be made: {type(exc).__name__}: {exc}") from exc
        if outer is not None:
            app = outer
    compression = _compression(app)
    # To call an object takes a way through C, which to call its method does not.
    called: Any = app if compression is None else app.app  # type: ignore[attr-defined]
    return called.__call__ if isinstance(vars(type(called)).get("__call__"), FunctionType) else called, compression


def _compression(app: Any) -> Compression | None:
    """The application where it is ours that compresses. With dictionaries it has answers of its own to give, too."""
    # What is off is not imported.
    module = sys.modules.get("pounce.middleware.compression")
    if module is None or type(app) is not module.Compression or app.dictionaries is not None:
        return None
    found: Compression = app
    return found


def in_order(choices: tuple[MiddlewareChoice, ...]) -> list[MiddlewareChoice]:
    """Outermost first; see `POSITIONS`."""
    return sorted(choices, key=lambda choice: POSITIONS.index(choice.where))
