"""The example plugin of a third party, installed as its users would and found through its entry point."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.testing import check_wire

EXAMPLES = Path(__file__).parents[2] / "examples"

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = f"{scope['path']} {scope['query_string'].decode()} over {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"""

SERVE = """
import sys
import pounce
pounce.run("main:app", bind=("127.0.0.1:0", "gopher://127.0.0.1:0"), log_format="json", access_log=False, app_dir=".")
"""


@pytest.fixture
def urls(installed: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Where a server with the example installed listens."""
    (tmp_path / "main.py").write_text(APP)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    with server:
        yield json.loads(server.stderr.readline())["urls"]
        server.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_a_document_over_gopher(urls: list[str]) -> None:
    answer = subprocess.run(["curl", "-s", urls[1] + "/0/caves/map"], capture_output=True, check=True)
    assert answer.stdout == b"/caves/map  over gopher"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_other_bind_of_the_same_server_speaks_http(urls: list[str]) -> None:
    answer = subprocess.run(["curl", "-s", urls[0] + "/caves?x=1"], capture_output=True, check=True)
    assert answer.stdout == b"/caves x=1 over http"


def test_the_example_keeps_the_contract(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    import pounce_gopher

    check_wire(pounce_gopher.plugin.wires[0], [b"/0/caves\r\n", b"find\tmap of caves\r\n"])


def test_the_examples_are_among_what_mypy_checks_strictly() -> None:
    settings = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["tool"]["mypy"]
    sources = {f"examples/{folder.parent.name}/src" for folder in EXAMPLES.glob("*/src")}
    assert settings["strict"] and sources <= set(settings["files"])
    assert not [path for path in EXAMPLES.glob("*/src/**/*.py") if "type: ignore" in path.read_text()]


def test_every_package_says_that_it_is_typed() -> None:
    packages = {path.parent for path in EXAMPLES.parent.glob("packages/*/src/*/__init__.py")}
    assert packages and not [package for package in packages if not (package / "py.typed").exists()]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("ask", 160), ("echo", 150), ("gopher", 50), ("plain", 180), ("scgi", 200), ("visits", 200)],
)
def test_an_example_needs_only_the_contract_and_few_lines(name: str, lines: int) -> None:
    sources = [path.read_text() for path in (EXAMPLES / f"pounce-{name}" / "src").rglob("*.py")]
    imports = {module for source in sources for module in re.findall(r"^(?:from|import) (pounce[\w.]*)", source, re.M)}
    others = {module for module in imports if not module.startswith(f"pounce_{name}")}
    # What HTTP/1.1 is read by is judged there, whatever parser takes it apart.
    assert others - {"pounce.h1.framing"} == {"pounce.plugin"}
    assert name == "plain" or "pounce.h1.framing" not in others
    assert sum(len(source.splitlines()) for source in sources) < lines
