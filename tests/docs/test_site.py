"""The site is built without a warning, and has a place for every public name, every setting and every error code."""

import importlib
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = ("pounce", "pounce.lifecycle", "pounce.middleware", "pounce.plugin", "pounce.testing", "pounce.webtransport")
pytest.importorskip("sphinx", reason="install the group dev: `make setup`")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, ROOT / "scripts/docs", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "latest"


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text()
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"genindex.html", "py-modindex.html"}
    unreached = {name for name in pages if f'href="{name}' not in first and not name.startswith("api/")}
    assert unreached == {"index.html"}


def test_every_public_name_has_its_entry(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    named = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    names = {name.rpartition(".")[2] for name in named if name.startswith("pounce")}
    for module in PUBLIC:
        for name in set(importlib.import_module(module).__all__) - {"__version__"}:
            assert name in names, f"{module}.{name}"


def test_every_error_code_has_an_anchor(site: Path) -> None:
    page = (site / "errors.html").read_text()
    codes = re.findall(r"^\| `(POUNCE_\w+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert len(codes) > 50
    assert [code for code in codes if f'id="{code.lower()}"' not in page] == []


def test_pages_of_the_repository_are_on_the_site_with_their_links(site: Path) -> None:
    page = (site / "architecture.html").read_text()
    assert "Reading order" in page
    assert 'href="contributing.html"' in (site / "index.html").read_text()
