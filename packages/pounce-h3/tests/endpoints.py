"""The endpoints of a server that runs in this process."""

import gc

from tests.conformance.wires import Started

from pounce_h3.endpoint import Endpoint

__all__ = ["endpoint_of", "endpoints_of"]


def endpoints_of(server: Started) -> list[Endpoint]:
    """One for each worker."""
    port = server.server.port
    # One whose engine could not be had is not complete.
    endpoints = [item for item in gc.get_objects() if type(item) is Endpoint and hasattr(item, "local")]
    return [item for item in endpoints if item.local[1] == port and not item._transport.is_closing()]


def endpoint_of(server: Started) -> Endpoint:
    """That of the only worker."""
    [found] = endpoints_of(server)
    return found
