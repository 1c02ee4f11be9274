"""Who may see what the server tells of itself: clients on this machine, and whoever has the token.

A client is not on this machine because a proxy is: a request in which anybody speaks for somebody else has to bring the
token, also where that one is trusted. What a proxy says of its client is good enough for a log; but many pass on an
address that the client has written itself, and a proxy that is believed need not say one at all.

Nor is a page of another site that a browser on this machine shows: its name may lead to this server by now (DNS
rebinding). It has no name that means this machine everywhere.
"""

import hmac
import re
from typing import Any

__all__ = ["may_see"]

LOOPBACK = "127."
_means_itself = re.compile(rb"(?i:(?:[a-z0-9_-]+\.)*localhost|[0-9.]+|\[[0-9a-f:.]+\])(?::[0-9]*)?").fullmatch


def may_see(scope: Any, token: str | None, *, relayed: bool) -> bool:
    """Whether this client may; `relayed` is what the head of its request says."""
    if token:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, value = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(), token.encode()):
            return True
    client = scope["client"]
    if relayed or client is None:
        return not relayed
    if client[0] != "::1" and not client[0].startswith(LOOPBACK):
        return False
    return all(_means_itself(value) for name, value in scope["headers"] if name == b"host")
