"""What is kept of a request that failed in the application."""

from time import time

from pounce.contract.head import RequestHead
from pounce.contract.totals import LastError

__all__ = ["last_error"]

LONGEST = 200
"""Characters of a method, a path or a type that are kept."""


def last_error(worker: int, head: RequestHead, kind: str) -> LastError:
    """It, now."""
    path, query, _ = head.target.partition(b"?")
    return LastError(
        time(),
        worker,
        _cut(head.method.decode("latin-1")),
        _cut(path.decode("latin-1")) + ("?…" if query else ""),
        _cut(kind),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
