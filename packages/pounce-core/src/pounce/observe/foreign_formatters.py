"""Formatters that stand for those of uvicorn, which configurations of logging name that were written for it."""

import copy
import http
import logging
import sys
from typing import Any

__all__ = ["AccessFormatter", "DefaultFormatter"]

_RESET = "\x1b[0m"
_OF_LEVELS = {10: "\x1b[36m", 20: "\x1b[32m", 30: "\x1b[33m", 40: "\x1b[31m", 50: "\x1b[91m"}
_OF_STATUSES = {1: "\x1b[97m", 2: "\x1b[32m", 3: "\x1b[33m", 4: "\x1b[31m", 5: "\x1b[91m"}


class DefaultFormatter(logging.Formatter):
    """Knows `%(levelprefix)s`: the level with a colon, eight columns wide at the least."""

    def __init__(
        self, fmt: str | None = None, datefmt: str | None = None, style: Any = "%", use_colors: bool | None = None
    ) -> None:
        self._colors = self._is_on_terminal() if use_colors is None else use_colors
        super().__init__(fmt, datefmt, style)

    def _is_on_terminal(self) -> bool:
        return sys.stderr.isatty()

    def _coloured(self, text: str, colour: str | None) -> str:
        return f"{colour}{text}{_RESET}" if self._colors and colour else text

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        level = record.levelname
        colour = _OF_LEVELS.get(record.levelno)
        record.__dict__["levelprefix"] = self._coloured(level, colour) + ":" + " " * (8 - len(level))
        return super().formatMessage(record)


class AccessFormatter(DefaultFormatter):
    """Knows `%(client_addr)s`, `%(request_line)s`, which has a method, a path and a version, and `%(status_code)s`."""

    def _is_on_terminal(self) -> bool:
        return sys.stdout.isatty()

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        args: Any = record.args
        client, method, path, version, status = args
        phrase = http.HTTPStatus(status).phrase if status in http.HTTPStatus else ""
        colour = _OF_STATUSES.get(status // 100)
        record.__dict__ |= {
            "client_addr": client,
            "request_line": f"{method} {path} HTTP/{version}",
            "status_code": self._coloured(f"{status} {phrase}", colour),
        }
        return super().formatMessage(record)
