"""Traces out of processes, and what happens where the packages are missing."""

import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.collector import collecting

from pounce import ConfigError
from pounce.testing import TestServer

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
"""


def test_processes_send_their_spans_and_metrics_before_they_end(tmp_path: Path) -> None:
    (tmp_path / "traced_main.py").write_text(APP)
    with collecting() as collector:
        with TestServer(
            "traced_main:app",
            workers=2,
            worker_mode="process",
            app_dir=str(tmp_path),
            lifespan="off",
            otel_endpoint=collector.url,
            otel_service_name="shop",
        ) as server:
            for _ in range(3):
                assert urlopen(server.url).status == 200
        assert len(collector.spans()) == 3
        assert b"shop" in b"".join(collector.of("/v1/traces"))
        assert b"http.server.request.duration" in b"".join(collector.of("/v1/metrics"))


def test_without_the_packages_the_command_to_install_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pounce.observe.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    async def app(scope: object, receive: object, send: object) -> None: ...

    with pytest.raises(ConfigError, match="otel_endpoint needs") as raised, TestServer(app, otel_endpoint="http://[::1]"):
        pass
    assert "pip install 'pounce-core[otel]'" in str(raised.value.hint)


def test_nothing_of_it_switches_the_gil_on() -> None:
    code = "import sys, pounce.observe.tracing; print(getattr(sys, '_is_gil_enabled', lambda: False)())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
