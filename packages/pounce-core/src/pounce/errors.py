"""What can go wrong, by whose fault it is.

The type of an exception says who has to act: the peer (`BadRequest` and its kinds, `ClientGone`), the application
(`AppError`, `LifespanError`, most often `SupervisorError`), or whoever started the server (`ConfigError`,
`AppImportError`, `BindError`, `TLSError`, `PluginError`). Each carries a stable `code` to search for and a `hint` that
says what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

__all__ = [
    "AppError",
    "AppImportError",
    "BadRequest",
    "BindError",
    "ClientGone",
    "ConfigError",
    "LifespanError",
    "LimitError",
    "ParseError",
    "PluginError",
    "PounceError",
    "ReloadError",
    "RequestTimeoutError",
    "SupervisorError",
    "TLSError",
    "WorkerError",
    "comes_from_client_gone",
    "concerning",
    "wrong_length",
]


class PounceError(Exception):
    """Base of the errors this server raises.

    `code` is a stable identifier (`POUNCE_<CATEGORY>_<SPECIFIC>`), `hint` one sentence about the remedy or
    None, `status` the HTTP status to answer with where a request is concerned, and `exit_code` the status of
    the process when the error ends the server.
    """

    default_code = "POUNCE_E_UNKNOWN"
    exit_code = 1
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """What the answer has beyond the fields of every error: when to come back, for example."""

    def __init__(self, message: str, *, status: int = 500, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code or self.default_code
        self.hint = hint

    @property
    def status_code(self) -> int:
        """The same as `status`."""
        return self.status

    @property
    def doc(self) -> str:
        """Where the code is explained: a page of the documentation, and the code in small letters as its fragment."""
        return f"docs/errors.md#{self.code.lower()}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.status, self.code, self.hint))


def _rebuild(cls: type[PounceError], message: str, status: int, code: str, hint: str | None) -> PounceError:
    return cls(message, status=status, code=code, hint=hint)


class BadRequest(PounceError):
    """The peer broke a rule or ran into a limit or deadline; `status` (400 by default) is the answer.

    `position` is the offset in the bytes of the message head or chunk where it was noticed, when known. Which of the
    three it is the code says, and so the type of what is made: `ParseError`, `LimitError`, `RequestTimeoutError`.
    """

    default_code = "POUNCE_PARSE_E"
    """That of an error for which none is given."""

    def __new__(cls, *given: Any, code: str | None = None, **more: Any) -> Self:
        kind = _KINDS.get((code or cls.default_code).removeprefix("POUNCE_").partition("_")[0], cls)
        return super().__new__(kind if issubclass(kind, cls) else cls)

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        hint: str | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.position = position


class ParseError(BadRequest):
    """What the peer sent is against the rules of its protocol: codes that begin with `POUNCE_PARSE_`."""


class LimitError(BadRequest):
    """What the peer sent is more than is allowed: codes that begin with `POUNCE_LIMIT_`."""

    default_code = "POUNCE_LIMIT_E"


class RequestTimeoutError(BadRequest):
    """The peer was too slow: codes that begin with `POUNCE_TIMEOUT_`."""

    default_code = "POUNCE_TIMEOUT_E"


_KINDS: dict[str, type[BadRequest]] = {
    "PARSE": ParseError,
    "LIMIT": LimitError,
    "TIMEOUT": RequestTimeoutError,
}


class ClientGone(OSError):
    """The peer is gone, so nothing can be sent to it any more (ASGI 2.4: `send()` raises an OSError)."""

    code = "POUNCE_CLIENT_GONE"
    """As errors of pounce have one."""

    def __init__(self, message: str = "the client is gone") -> None:
        super().__init__(message)


def comes_from_client_gone(exc: BaseException | None) -> bool:
    """Whether `exc` is a consequence of `ClientGone`: itself, raised from it, or a group of nothing else."""
    while exc is not None:
        if isinstance(exc, ClientGone):
            return True
        if isinstance(exc, BaseExceptionGroup):
            return all(comes_from_client_gone(part) for part in exc.exceptions)
        exc = exc.__cause__ or exc.__context__
    return False


class AppError(PounceError):
    """The application broke the ASGI contract: a message out of order, a wrong type, a wrong length."""

    default_code = "POUNCE_APP_E"


def wrong_length(sent: int, expected: int) -> AppError:
    """The error for a body of which there is another number of bytes than its Content-Length says."""
    return AppError(
        f"response body is {'longer' if sent > expected else 'shorter'} than its Content-Length"
        f" ({sent} of {expected} bytes)",
        code="POUNCE_APP_BAD_LENGTH",
    )


class LifespanError(PounceError):
    """The application's lifespan startup failed, so the worker cannot serve."""

    default_code = "POUNCE_LIFESPAN_STARTUP_FAILED"
    exit_code = 3


class SupervisorError(PounceError):
    """The processes that serve cannot be kept running."""

    default_code = "POUNCE_SUPERVISOR_E"
    exit_code = 3


class WorkerError(SupervisorError):
    """A worker cannot be started, or has ended by itself."""

    default_code = "POUNCE_WORKER_FAILED"


class ReloadError(SupervisorError):
    """A reload that was asked for did not happen: what served before goes on."""

    default_code = "POUNCE_RELOAD_FAILED"


class ConfigError(PounceError, ValueError):
    """A setting has a wrong type or value; the message names the field, the value and what is allowed."""

    default_code = "POUNCE_CONFIG_INVALID"
    exit_code = 2


class AppImportError(PounceError, ImportError):
    """The application named on the command line or in `run()` cannot be imported or is not callable."""

    default_code = "POUNCE_APP_IMPORT"
    exit_code = 4


@contextmanager
def concerning(setting: str) -> Iterator[None]:
    """Have a `ConfigError` or `AppImportError` of what is within begin with the name of the setting that it is of."""
    try:
        yield
    except (ConfigError, AppImportError) as exc:
        raise type(exc)(f"{setting}: {exc.message}", code=exc.code, hint=exc.hint) from exc.__cause__


class BindError(PounceError, OSError):
    """A listening socket cannot be opened."""

    default_code = "POUNCE_BIND_FAILED"
    exit_code = 5


class TLSError(PounceError):
    """The certificate, its key or a TLS setting cannot be used."""

    default_code = "POUNCE_TLS_CONFIGURE_FAILED"
    exit_code = 6


class PluginError(PounceError):
    """Plugins contradict each other, or one that was asked for is missing or broken."""

    default_code = "POUNCE_PLUGIN_E"
    exit_code = 7
