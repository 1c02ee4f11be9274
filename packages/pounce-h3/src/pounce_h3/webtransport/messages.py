"""Messages: what an application gives to `send`, checked. Each function raises `AppError` for what is wrong."""

from typing import Any

from pounce.contract.head import Headers
from pounce.errors import AppError
from pounce.exchange.values import plain_bytes, plain_int, plain_str
from pounce_h3.capsules import REASON_MAX

__all__ = ["bad_message", "check_fields", "close_of", "code_of", "data_of", "number_of", "subprotocol_of", "window_of"]

CODE_MAX = 0xFFFFFFFF
RESERVED_FIELDS = frozenset((
    b"connection", b"content-length", b"sec-webtransport-http3-draft", b"transfer-encoding", b"upgrade", b"wt-protocol",
))  # fmt: skip


def data_of(message: dict[str, Any], default: bytes | None = None) -> bytes:
    """The bytes of a message."""
    given = message.get("data", default)
    data = plain_bytes(given)
    if data is None:
        raise bad_message(f"the data of {message['type']} must be bytes (got {type(given).__name__})")
    return data


def number_of(message: dict[str, Any], key: str) -> int:
    """A number that a message must have: that of a stream, or of bytes."""
    number = plain_int(message.get(key))
    if number is None or number < 0:
        raise bad_message(f"{message['type']} needs {key}, a number (got {message.get(key)!r})")
    return number


def code_of(message: dict[str, Any]) -> int:
    """The code of a message, 0 where it has none."""
    given = message.get("code")
    code = 0 if given is None else plain_int(given)
    if code is None or not 0 <= code <= CODE_MAX:
        raise bad_message(f"{given!r} is not a code of 32 bits")
    return code


def close_of(message: dict[str, Any]) -> tuple[int, str]:
    """Code and reason of a `webtransport.close`."""
    reason = plain_str(message.get("reason") or "")
    if reason is None:
        raise bad_message(f"the reason of a close must be text (got {type(message['reason']).__name__})")
    if len(reason.encode()) > REASON_MAX:
        raise bad_message(f"the reason of a close is at most {REASON_MAX} bytes")
    return code_of(message), reason


def window_of(message: dict[str, Any]) -> int:
    """The `stream_window` of a `webtransport.accept`; 0 where there is none."""
    given = message.get("stream_window")
    window = 0 if given is None else plain_int(given)
    if window is None or window < 0 or (given is not None and not window):
        raise bad_message(f"stream_window is a number of bytes (got {given!r})")
    return window


def subprotocol_of(message: dict[str, Any], offered: list[str]) -> str | None:
    """The subprotocol of a `webtransport.accept`, one of those that were offered."""
    chosen = message.get("subprotocol")
    subprotocol = plain_str(chosen)
    if chosen is not None and subprotocol not in offered:
        raise bad_message(f"subprotocol {chosen!r} was not offered (but {', '.join(offered) or 'none'})")
    return subprotocol


def check_fields(fields: Headers) -> None:
    """Let none of the headers of a `webtransport.accept` be one that the server answers with itself."""
    for name, _ in fields:
        if name in RESERVED_FIELDS:
            raise AppError(
                f"{name.decode()} is the server's own in the answer that opens a session",
                code="POUNCE_APP_BAD_HEADER",
                hint="A subprotocol is chosen with the key subprotocol of webtransport.accept.",
            )


def bad_message(message: str) -> AppError:
    """The error for a message that an application may not send."""
    return AppError(message, code="POUNCE_APP_BAD_MESSAGE")
