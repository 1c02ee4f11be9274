"""Traces out of processes, and what happens where the packages are missing."""

import sys
from urllib.request import urlopen

import pytest
from tests.collector import Collector, collecting

from pounce import ConfigError
from pounce.testing import TestServer

APP = """
import sys

async def app(scope, receive, send):
    body = str(getattr(sys, "_is_gil_enabled", lambda: False)()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collector, list[bytes]]:
    """What a process has sent by its end, and what it has answered."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "traced_main.py").write_text(APP)
    with collecting() as collector:
        with TestServer(
            "traced_main:app",
            worker_mode="process",
            app_dir=str(folder),
            lifespan="off",
            otel_endpoint=collector.url,
            otel_service_name="shop",
        ) as server:
            answers = []
            for _ in range(3):
                with urlopen(server.url) as answer:
                    answers.append(answer.read())
        return collector, answers


def test_a_process_sends_its_spans_before_it_ends(traced: tuple[Collector, list[bytes]]) -> None:
    collector, _ = traced
    assert len(collector.spans()) == 3
    assert b"shop" in b"".join(collector.of("/v1/traces"))


def test_a_process_sends_its_metrics_before_it_ends(traced: tuple[Collector, list[bytes]]) -> None:
    collector, _ = traced
    assert b"http.server.request.duration" in b"".join(collector.of("/v1/metrics"))


def test_nothing_of_it_switches_the_gil_on(traced: tuple[Collector, list[bytes]]) -> None:
    _, answers = traced
    assert answers == [b"False"] * 3


def test_without_the_packages_the_command_to_install_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pounce.observe.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    async def app(scope: object, receive: object, send: object) -> None: ...

    with pytest.raises(ConfigError, match="otel_endpoint needs") as raised, TestServer(app, otel_endpoint="http://[::1]"):
        pass
    assert "pip install 'pounce-core[otel]'" in str(raised.value.hint)

