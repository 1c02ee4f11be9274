"""The endpoints of a server that runs in this process."""

import gc

from tests.conformance.wires import Started

from pounce_h3.endpoint import Endpoint
from pounce_h3.ids import Keys

__all__ = ["SECRET", "all_endpoints", "endpoint_of", "endpoints_of", "keys_of"]

SECRET = "a secret of the tests"


def all_endpoints() -> list[Endpoint]:
    """Those that are open."""
    # One whose engine could not be had is not complete, and one whose application did not start has no transport.
    endpoints = [item for item in gc.get_objects() if type(item) is Endpoint and getattr(item, "_transport", None)]
    return [item for item in endpoints if not item._transport.is_closing()]


def endpoints_of(server: Started) -> list[Endpoint]:
    """One for each worker, on the first address."""
    return [item for item in all_endpoints() if item.local[1] == server.server.port]


def endpoint_of(server: Started) -> Endpoint:
    """That of the only worker."""
    [found] = endpoints_of(server)
    return found


def keys_of(server: Started) -> Keys:
    """Of a server whose secret is `SECRET`."""
    return Keys(SECRET.encode(), (server.server.host, server.server.port))
