"""Messages: what an application gives to `send`, checked. Each function raises `AppError` for what is wrong."""

from typing import Any

from pounce.contract.head import Headers
from pounce.errors import AppError
from pounce.exchange.values import plain_bytes, plain_int, plain_str
from pounce_ws.frames import may_be_sent

__all__ = ["bad_message", "check_fields", "close_of", "data_of", "subprotocol_of", "text_of"]

REASON_MAX = 123
"""RFC 6455 5.5: a Close frame has at most 125 bytes, two of them for the code."""
RESERVED_FIELDS = frozenset((b"connection", b"upgrade", b"content-length", b"transfer-encoding"))
RESERVED_PREFIX = b"sec-websocket-"


def text_of(given: object) -> str:
    """The text of a `websocket.send`."""
    text = plain_str(given)
    if text is None:
        raise bad_message(f"websocket.send needs text or bytes (got {type(given).__name__})")
    return text


def data_of(given: object) -> bytes:
    """The bytes of a `websocket.send`."""
    data = plain_bytes(given)
    if data is None:
        raise bad_message(f"bytes must be bytes (got {type(given).__name__})")
    return data


def close_of(message: dict[str, Any]) -> tuple[int, str]:
    """Code and reason of a `websocket.close`."""
    given = message.get("code")
    code, reason = plain_int(given), plain_str(message.get("reason") or "")
    if given is None:
        code = 1000
    if code is None or not may_be_sent(code):
        raise bad_message(f"{given!r} is not a code that a WebSocket can be closed with")
    if reason is None:
        raise bad_message(f"the reason of a close must be text (got {type(message['reason']).__name__})")
    if len(reason.encode()) > REASON_MAX:
        raise bad_message(f"the reason of a close is at most {REASON_MAX} bytes")
    return code, reason


def subprotocol_of(message: dict[str, Any], offered: list[str]) -> str | None:
    """The subprotocol of a `websocket.accept`, one of those that were offered."""
    chosen = message.get("subprotocol")
    subprotocol = plain_str(chosen)
    if chosen is not None and subprotocol not in offered:
        raise bad_message(f"subprotocol {chosen!r} was not offered (but {', '.join(offered) or 'none'})")
    return subprotocol


def check_fields(fields: Headers) -> None:
    """Let none of the headers of a `websocket.accept` be one that the server answers a handshake with."""
    for name, _ in fields:
        if name in RESERVED_FIELDS or name.startswith(RESERVED_PREFIX):
            raise AppError(
                f"{name.decode()} is the server's own in a handshake",
                code="POUNCE_APP_BAD_HEADER",
                hint="A subprotocol is chosen with the key subprotocol of websocket.accept.",
            )


def bad_message(message: str) -> AppError:
    """The error for a message that an application may not send."""
    return AppError(message, code="POUNCE_APP_BAD_MESSAGE")
