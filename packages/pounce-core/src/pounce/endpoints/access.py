"""Who may see what the server tells of itself: clients on this machine, and whoever has the token.

A client is not on this machine because a proxy is: one that speaks for others, and is not trusted, has to bring it.
"""

import hmac
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead

__all__ = ["is_relayed", "may_see"]

LOOPBACK = ("127.", "::1")


def is_relayed(head: RequestHead) -> bool:
    """Somebody who is not trusted says that it speaks for somebody else."""
    return head.relayed and head.origin is None


def may_see(scope: Any, token: str | None, *, relayed: bool) -> bool:
    """Whether this client may; `relayed` is what `is_relayed()` said of its request."""
    if token:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, value = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(), token.encode()):
            return True
    client = scope["client"]
    return not relayed and (client is None or client[0].startswith(LOOPBACK))
