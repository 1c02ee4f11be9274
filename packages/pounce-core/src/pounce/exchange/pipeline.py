"""The application with everything around it: made once for each worker, from the outermost middleware to the innermost.

compression ▸ static files ▸ what plugins bring ▸ the user's list ▸ the application
"""

from types import FunctionType
from typing import Any

from pounce.contract.pieces import POSITIONS, MiddlewareChoice
from pounce.contract.wire import ASGIApp, Service
from pounce.errors import PluginError, PounceError

__all__ = ["wrapped"]


def wrapped(service: Service, app: ASGIApp, choices: tuple[MiddlewareChoice, ...]) -> ASGIApp:
    """`app` inside of what `choices` make, in their order. Raises `PluginError` when one of them fails."""
    for choice in reversed(in_order(choices)):
        try:
            outer = choice.create(service, app)
        except PounceError:
            raise
        except Exception as exc:
            raise PluginError(f"the middleware {choice.name} could not be made: {type(exc).__name__}: {exc}") from exc
        if outer is not None:
            app = outer
    # To call an object takes a way through C, which to call its method does not.
    called: Any = app
    return called.__call__ if isinstance(vars(type(app)).get("__call__"), FunctionType) else app


def in_order(choices: tuple[MiddlewareChoice, ...]) -> list[MiddlewareChoice]:
    """Outermost first; see `POSITIONS`."""
    return sorted(choices, key=lambda choice: POSITIONS.index(choice.where))
