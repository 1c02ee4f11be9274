"""What the helpers around a request cost, in bytecodes of the server for each request on one connection, in memory.

Bytecodes are the same on whatever machine, however busy. The bounds have some room; what matters is that nothing grows
by a scan of all fields, or by encoding anew what was encoded before.
"""

import asyncio
import io
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.bytecodes import counted, switch

import pounce
from pounce.config import ServerConfig
from pounce.observe.logs import Logs
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.worker.shared import admission_of

SOURCE = Path(pounce.__file__).parent
REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nAccept: */*\r\n%b\r\n"
FORWARDED = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
REQUESTS = 8


async def hello(scope: Any, receive: Any, send: Any) -> None:
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


def executed(fields: bytes = b"", **settings: Any) -> Counter[str]:
    """Bytecodes of one request, by file."""
    found: Counter[str] = Counter()
    names: dict[str, str | None] = {}

    def tell(code: Any) -> bool:
        name = names.get(code.co_filename, "")
        if name == "":
            path = Path(code.co_filename)
            name = str(path.relative_to(SOURCE)) if path.is_relative_to(SOURCE) else None
            names[code.co_filename] = name
        if name is not None:
            found[name] += 1
        return name is not None

    async def serve() -> None:
        given = {"access_log": False, "compression": False, "http_parser": "h11"} | settings
        config = ServerConfig.of(given)
        connection = MemoryConnection(
            hello, registry=Registry.discover(config), admission=admission_of(config), **given
        )
        for number in range(2 * REQUESTS):
            if number == REQUESTS:
                switch(True)
            connection.protocol.data_received(REQUEST % fields)
        switch(False)
        assert connection.received.endswith(b"Hello, World!")

    with counted(tell):
        asyncio.run(serve())
    return Counter({name: round(number / REQUESTS) for name, number in found.items()})


def test_nothing_of_what_is_off_is_called() -> None:
    names = ("app_timeout", "identified", "rated", "timed", "waiting")
    exchanges = [f"exchange/{name}.py" for name in names]
    around = ("admission", "identity", "middleware", "observe", *exchanges)
    assert [name for name in executed() if name.startswith(around)] == []


@pytest.mark.parametrize(
    ("bound", "fields", "settings"),
    [
        (190, b"", {"request_id": True}),
        (210, FORWARDED, {"trusted_hosts": ("192.0.2.1",)}),
        (200, FORWARDED, {}),
        (60, b"Accept-Encoding: gzip, zstd\r\n", {"compression": True}),
        (60, b"", {"compression": True}),
        (85, b"", {"rate_limit_enabled": True}),
        (315, b"", {"rate_limit_enabled": True, "rate_limit_fields": "all"}),
        (185, b"", {"rate_limit_enabled": True, "rate_limit_routes": ("POST /login 5/m", "/* 100/s 100")}),
        (75, b"", {"limit_concurrency": 100, "request_queue_enabled": True}),
        (20, b"", {"app_timeout": 60}),
        (365, b"", {"server_timing": True}),
        (150, b"", {"metrics_enabled": True}),
        (5, b"", {"max_buffered": 1_000_000, "max_connections_per_peer": 100}),
    ],
    ids=[
        "request id",
        "trusted proxy",
        "fields of others",
        "compression of a small answer",
        "compression for nobody",
        "rate limit",
        "rate limit that is told",
        "rate limit of a route",
        "limit of concurrency",
        "time limit of applications",
        "server timing",
        "metrics",
        "limits of connections",
    ],
)
def test_helper_costs_little(bound: int, fields: bytes, settings: Any) -> None:
    off = executed(fields, proxy_headers=False)
    assert executed(fields, **settings).total() - off.total() <= bound


def test_line_of_the_access_log_costs_little(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    logger = logging.getLogger("pounce.access")
    caplog.set_level("INFO", logger.name)
    monkeypatch.setattr(logger, "handlers", [Kept()])
    monkeypatch.setattr(logger, "propagate", False)
    off = executed()
    # What `logging` does is not counted; half of it was a search for the caller.
    assert executed(access_log=True).total() - off.total() <= 255
    assert len(lines) == 2 * REQUESTS


@pytest.mark.parametrize(("bound", "form"), [(385, "text"), (385, "json")])
def test_line_that_the_loop_makes_costs_little(bound: int, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The text of a second is made once, and another one might begin.
    monkeypatch.setattr("pounce.observe.access_log.time", lambda: 1_750_000_000.25)
    stream = io.StringIO()
    with Logs(ServerConfig.of({"log_format": form}), stream):
        off = executed()
        # Methods of strings and `put()` are not counted; no record is made.
        assert executed(access_log=True).total() - off.total() <= bound
    assert len(stream.getvalue().splitlines()) == 2 * REQUESTS
