"""Qlog: what happens on each connection, in a file of its own (draft-ietf-quic-qlog-main-schema)."""

import json
import logging
from collections import deque
from pathlib import Path

from qh3.quic.logger import QLOG_VERSION, QuicLogger, QuicLoggerTrace

from pounce.errors import ConfigError

__all__ = ["QlogFiles"]

log = logging.getLogger("pounce")

EVENTS_MAX = 100_000
"""Events of one connection that are kept: its last ones."""


class QlogFiles(QuicLogger):
    """Writes `NAME.qlog` at the end of each connection; its name is what the client first called the server.

    Raises `ConfigError` where there is no such folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ConfigError(f"http3_qlog_dir is {folder}, which is no folder")

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        """Of a connection that begins."""
        trace = QuicLoggerTrace(is_client=is_client, odcid=odcid)
        trace._events = deque(maxlen=EVENTS_MAX)
        return trace

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """Write what has happened on a connection; what cannot be written is logged."""
        found = trace.to_dict()
        whole = {"qlog_format": "JSON", "qlog_version": QLOG_VERSION, "traces": [found]}
        try:
            (self._folder / f"{found['common_fields']['ODCID']}.qlog").write_text(json.dumps(whole))
        except OSError as exc:
            log.error("What happened on a QUIC connection cannot be written: %s", exc)
