"""What we tell Prometheus, and the rules that are made for it, as it takes them."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from tests.conformance.client import PATIENCE

from pounce.testing import TestServer

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/pounce.json"

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_real_prometheus_scrapes_us_and_takes_rules_and_panels(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)
    with TestServer(app, workers=2, worker_mode="thread", metrics_enabled=True, lifespan="off") as server:
        for _ in range(7):
            urlopen(server.url).close()
        port = free_port()
        settings = tmp_path / "prometheus.yml"
        settings.write_text(
            "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\n"
            f"rule_files: [{json.dumps(str(RULES))}]\n"
            "scrape_configs:\n"
            f"  - {{job_name: pounce, scrape_interval: 1s, scrape_timeout: 1s, "
            f"static_configs: [{{targets: ['{server.host}:{server.port}']}}]}}\n"
        )
        command = ["prometheus", f"--config.file={settings}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                found = ask(port, 'http_requests_total{method="GET",status="200"} >= 7')
                assert found[0]["metric"]["job"] == "pounce"
                for panel in json.loads(DASHBOARD.read_text())["panels"]:
                    for target in panel["targets"]:
                        query = target["expr"].replace("$job", "pounce").replace("$__rate_interval", "1m")
                        assert answer_to(port, query)["status"] == "success", query
            finally:
                process.terminate()


def answer_to(port: int, query: str) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """What the query gives, once it gives anything."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            result: list[dict[str, Any]] = answer_to(port, query)["data"]["result"]
        except HTTPError as exc:
            # It starts.
            exc.close()
            result = []
        except OSError:
            result = []
        if result:
            return result
        time.sleep(0.1)
    raise TimeoutError(query)
