"""Header fields of answers: what the application may send, and what the server adds.

Names and values are validated here, once for every wire (RFC 9110 5.1, 5.5): a field with CR, LF, NUL or another
control fails the request; nothing is stripped silently.
"""

import re
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.head import AnswerFields, Headers
from pounce.contract.stream import ConnectionInfo
from pounce.errors import AppError, ConfigError
from pounce.exchange.values import plain_bytes

__all__ = ["ResponseHeaders"]

# RFC 9110 5.6.2: token = 1*tchar
_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9110 5.5: field-value = *field-content, which has no CTL but HTAB.
_bad_value = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

_KNOWN_MAX = 1024
_KNOWN_VALUE_MAX = 96
_COMPLETE_MAX = 256
_CLEAR = (b"alt-svc", b"clear")

PLAIN, CONTENT_LENGTH, DATE, SERVER, DROPPED, ALT_SVC = range(6)
_KINDS = {
    b"content-length": CONTENT_LENGTH,
    b"date": DATE,
    b"server": SERVER,
    b"alt-svc": ALT_SVC,
    # Framing belongs to the wire; ASGI tells servers to ignore this field of the application's.
    b"transfer-encoding": DROPPED,
}


class ResponseHeaders:
    """Checks and completes the headers of one worker's answers.

    Fields that were seen before are looked up in a bounded table instead of being validated again.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._known: dict[tuple[bytes, bytes], tuple[tuple[bytes, bytes], int]] = {}
        self._complete: dict[
            tuple[tuple[bytes, bytes] | None, tuple[Iterable[bytes], ...]], tuple[AnswerFields, int | None]
        ] = {}
        self._complete_plain: dict[tuple[Iterable[bytes], ...], tuple[AnswerFields, int | None]] = {}
        """The same without Alt-Svc: a key that is looked up faster."""
        self._server = (b"server", config.server_header.encode()) if config.server_header else None
        self._date_header = config.date_header
        self._defaults = [self._checked(*_split(text))[0] for text in config.headers]
        """Fields of answers that have none of their name."""
        self._clears_alt_svc = config.http3_alt_svc == "clear"
        self.alt_svc: Mapping[int | None, tuple[bytes, bytes]] = MappingProxyType({})
        """By the port that a connection arrived at, what is added to its answers that have no such field of their own
        (RFC 7838 3)."""
        self._second = 0
        self._date: tuple[bytes, bytes] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Take the date anew; called once a second or more often."""
        if self._date_header:
            now = int(time.time())
            if now != self._second:
                self._second = now
                self._date = (b"date", http_date(now))
                self._complete.clear()
                self._complete_plain.clear()

    def complete(self, given: Iterable[Iterable[bytes]], connection: ConnectionInfo) -> tuple[AnswerFields, int | None]:
        """The fields to send on a connection, and the Content-Length that the application set, if any.

        Server, Date and Alt-Svc are added. An application that gives the same again within a second gets the same
        again. Raises `AppError` for a field that may not be sent.
        """
        pairs = tuple(given)
        alt_svc = self._alt_svc_of(connection) if connection.scheme == "https" else None
        table: dict[Any, tuple[AnswerFields, int | None]] = self._complete_plain
        key: tuple[Any, ...] = pairs
        if alt_svc is not None:
            table, key = self._complete, (alt_svc, pairs)
        try:
            found = table.get(key)
        except TypeError, ValueError:
            # Lists, bytes that may change, or something that is not bytes.
            return self._completed(pairs, alt_svc)
        if found is None:
            found = self._completed(pairs, alt_svc)
            if len(table) < _COMPLETE_MAX and all(self._is_known(pair) for pair in pairs):
                table[key] = found
        return found

    def _alt_svc_of(self, connection: ConnectionInfo) -> tuple[bytes, bytes] | None:
        """What a connection whose client uses https is told: an alternative needs the certificate (RFC 7838 2.1)."""
        if self._clears_alt_svc:
            return _CLEAR
        # Where a proxy received it, the port is that of the proxy.
        return self.alt_svc.get(connection.local[1]) if connection.local and connection.proxy is None else None

    def _completed(
        self, given: Iterable[Iterable[bytes]], alt_svc: tuple[bytes, bytes] | None
    ) -> tuple[AnswerFields, int | None]:
        headers: Headers = []
        length: int | None = None
        server, date = self._server, self._date
        known = self._known
        for pair in given:
            if type(pair) is not tuple:
                pair = tuple(pair)
            try:
                found = known.get(pair)  # type: ignore[arg-type]
            except TypeError, ValueError:
                # What may change cannot be hashed.
                found = None
            if found is None:
                found = self._checked(*pair)
            field, kind = found
            if kind:
                if kind == CONTENT_LENGTH:
                    if length is not None:
                        raise AppError("content-length is given twice", code="POUNCE_APP_BAD_HEADER")
                    length = int(field[1])
                elif kind == DATE:
                    date = None
                elif kind == SERVER:
                    server = None
                elif kind == ALT_SVC:
                    alt_svc = None
                else:
                    continue
            headers.append(field)
        if date is not None:
            headers.append(date)
        if server is not None:
            headers.append(server)
        if self._defaults:
            present = {name for name, _ in headers}
            headers += [field for field in self._defaults if field[0] not in present]
        if alt_svc is not None:
            headers.append(alt_svc)
        return AnswerFields(headers), length

    def _is_known(self, pair: Iterable[bytes]) -> bool:
        """Whether this may stay in a table: a field that was seen before, of bytes that nobody can change."""
        name, value = pair
        return type(name) is bytes and type(value) is bytes and (name, value) in self._known

    def checked(self, given: Iterable[Iterable[bytes]]) -> Headers:
        """The fields of a trailer section or an interim answer, validated; raises `AppError`."""
        return [self._checked(name, value)[0] for name, value in given]

    def _checked(self, given_name: object, given_value: object) -> tuple[tuple[bytes, bytes], int]:
        name, value = plain_bytes(given_name), plain_bytes(given_value)
        if name is None or value is None:
            raise AppError(
                f"header names and values must be bytes (got {type(given_name).__name__},"
                f" {type(given_value).__name__})",
                code="POUNCE_APP_BAD_HEADER",
            )
        if _token(name) is None:
            raise AppError(f"header name {name!r} is not a token", code="POUNCE_APP_BAD_HEADER")
        lower = name.lower()
        kind = _KINDS.get(lower, PLAIN)
        # Blanks around a value are no part of it (RFC 9110 5.5).
        content = value.strip(b" \t")
        if _bad_value(content) is not None:
            raise AppError(f"value of header {lower!r} has a control character", code="POUNCE_APP_BAD_HEADER")
        if kind == CONTENT_LENGTH and (not content.isdigit() or len(content) > 19):
            raise AppError("content-length is not a number", code="POUNCE_APP_BAD_HEADER")
        found = ((lower, content), kind)
        if len(value) <= _KNOWN_VALUE_MAX and lower != b"set-cookie":
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[name, value] = found
        return found


def _split(text: str) -> tuple[bytes, bytes]:
    """`Name: Value`. Raises `ConfigError`."""
    name, colon, value = text.partition(":")
    if not colon or not text.isascii():
        raise ConfigError(
            f"headers must be Name:Value (got {text!r})", hint="For example --header X-Frame-Options:DENY."
        )
    return name.encode(), value.encode()


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: int) -> bytes:
    """IMF-fixdate (RFC 9110 5.6.7) of a Unix time."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    return f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year} {hour:02d}:{minute:02d}:{second:02d} GMT".encode()
