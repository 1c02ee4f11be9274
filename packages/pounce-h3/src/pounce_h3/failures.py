"""What is raised in the midst of a stream, by the engine or by anybody else, ends that stream and no other.

What ends the connection is a `QuicError`, which says what the peer did, and what is raised where no stream is
concerned. All of `BaseException` is meant: what panics in Rust is no `Exception`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pounce_h3.codes import H3_INTERNAL_ERROR
from pounce_h3.engine import QuicError

if TYPE_CHECKING:
    from pounce.plugin import Service

__all__ = ["failed", "isolated", "log_failure"]


class Failing(Protocol):
    """What this needs of a stream."""

    def fail(self, code: int) -> None:
        """End it in both directions."""


def log_failure(service: Service) -> None:
    """Count and log the exception that is handled."""
    service.count("stream_error")
    service.log.exception("Plugin h3 failed on a stream")


def failed(service: Service, stream: Failing) -> None:
    """Something was raised in the midst of a stream, which ends it; call while the exception is handled, and never from
    inside a Stream method."""
    log_failure(service)
    try:
        stream.fail(H3_INTERNAL_ERROR)
    except Exception:  # noqa: BLE001 - logged there
        log_failure(service)


def isolated(service: Service, stream: Failing, call: Callable[[], None]) -> None:
    """Do something about a stream; what it raises costs this stream and no other. Raises `QuicError`."""
    try:
        call()
    except QuicError, KeyboardInterrupt, SystemExit:
        raise
    except BaseException:  # noqa: BLE001
        failed(service, stream)
