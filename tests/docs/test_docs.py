"""The documentation says what the code does: codes, settings, links, examples and command lines are held against it.

A Python block whose first line is `# NAME.py` is a file. The files of a page are written into one folder, in their
order, and run: `main.py` is an application, or a factory `create_app`, that answers GET /; `test_*.py` is run by
pytest; anything else is a script that ends by itself. Other Python blocks have to compile.
"""

import ast
import functools
import importlib
import os
import re
import runpy
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import httpx
import pytest
from benchmarks.micro.bytecodes import by_part
from tests import warm

from pounce.config import ServerConfig, describe
from pounce.options import Option
from pounce.testing import TestServer
from pounce.worker.loop import HAS_OWN
from pounce_cli.flags import flags, plugin_options, spellings, switched_off_by
from pounce_cli.peers import SERVERS, all_flags
from pounce_cli.plain_line import read
from pounce_cli.sources import APP, CONFIG, ENV_FILE, PROFILE, config_of, variable_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
IGNORED = {"node_modules", "build", "dist"}


def markdown_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in IGNORED]
        yield from (Path(folder, name) for name in files if name.endswith(".md"))


PAGES = sorted(markdown_files())


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The name in its first line, if it is a file."""
        match = re.match(r"# (\w+\.py)\n", self.code)
        return match[1] if match else None


@functools.cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return tuple(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found)


def python_blocks() -> list[Block]:
    pages = [page for page in PAGES if page.parent == DOCS or page.name == "README.md"]
    return [block for page in pages for block in blocks(page) if block.language == "python"]


def place_of(block: Block) -> str:
    return f"{name_of(block.page)}:{block.line}"


PLUGIN_OPTIONS = plugin_options(lambda plugin: plugin in ("h2", "h3"))
VARIABLES = {variable_of(item.name) for item in (*describe(), *PLUGIN_OPTIONS)} | {CONFIG, APP, PROFILE, ENV_FILE}

# Error codes

CODE = re.compile(r"\bPOUNCE_[A-Z0-9]+(?:_[A-Z0-9]+)*(?![A-Z0-9_<])")


def codes_in(source: str) -> Iterator[str]:
    """Codes in the strings of a module, and those that `bad()` makes of its second argument."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            yield from CODE.findall(text)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "bad" and len(node.args) > 1:
            assert isinstance(node.args[1], ast.Constant), "bad() needs a literal, so that codes can be found"
            yield f"POUNCE_PARSE_{node.args[1].value}"


def test_every_error_code_has_a_line_and_every_line_a_code() -> None:
    sources = [path.read_text() for path in ROOT.glob("packages/*/src/**/*.py")]
    documented = re.findall(r"^\| `(POUNCE_\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted({code for source in sources for code in codes_in(source)} - VARIABLES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_codes_that_a_page_names_exist(page: Path) -> None:
    known = set(CODE.findall((DOCS / "errors.md").read_text()))
    assert set(CODE.findall(page.read_text())) - VARIABLES <= known


def test_exit_codes_are_those_of_the_exceptions() -> None:
    import pounce.errors

    text = (DOCS / "errors.md").read_text()
    for name, code in re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\| (\d) \|$", text, re.MULTILINE):
        assert getattr(pounce.errors, name).exit_code == int(code), name
    codes = dict(re.findall(r"^\| `(POUNCE_\w+)` \| (\d) \|", text, re.MULTILINE))
    for name in pounce.errors.__all__:
        error = getattr(pounce.errors, name)
        if error.__dict__.get("exit_code"):
            assert codes[error.default_code] == str(error.exit_code), name


# Settings

TITLES = {"tls": "TLS", "http3": "HTTP/3", "websocket": "WebSocket"}
BY_HAND = {
    "access_log_filter": "a function, module:attribute, or none",
    "log_config": "a table, the name of a file, or none",
    "plugin_settings": "a mapping of mappings",
}


def allowed(item: Option) -> str:
    return BY_HAND.get(item.name, item.allowed)


def default(item: Option) -> str:
    value: Any = item.default
    if item.unit == "octal" and value is not None:
        return f"`{value:o}`"
    if value in ("", ()) or item.name == "plugin_settings":
        return "empty"
    if value is None:
        return "none"
    if item.kind is bool:
        return "on" if value else "off"
    if item.kind is dict:
        return "empty"
    if item.kind is tuple:
        return ", ".join(f"`{part}`" for part in value)
    return f"`{value:g}`" if item.kind is float else f"`{value}`"


def settings_tables() -> str:
    """The tables of docs/configuration.md: print this when a setting has changed."""
    lines: list[str] = []
    groups: dict[str, list[Option]] = {}
    for item in describe():
        groups.setdefault(TITLES.get(item.group, item.group.capitalize()), []).append(item)
    for item in PLUGIN_OPTIONS:
        groups.setdefault(f"Plugin {item.name.partition('.')[0]}", []).append(item)
    for title, options in groups.items():
        lines += ["", f"### {title}", "", "| setting | default | allowed | meaning |", "|---|---|---|---|"]
        for item in options:
            meaning = item.help if item.flag else f"{item.help} Only from Python."
            lines.append(f"| `{item.field}` | {default(item)} | {allowed(item)} | {meaning} |")
    return "\n".join(lines) + "\n"


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    text = (DOCS / "configuration.md").read_text()
    _, _, tables = text.partition("## All settings\n")
    assert tables == settings_tables()


def test_the_page_on_limits_gives_every_limit_and_deadline_its_default() -> None:
    text = (DOCS / "limits.md").read_text()
    factors = {"": 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "bytes/s": 1, "(none)": 1, "%": 1}
    rows = re.findall(r"^\| `(\w+)` \| ([\d ]*\d) ?(\S*) \|", text, re.MULTILINE)
    config = ServerConfig()
    for name, number, unit in rows:
        assert getattr(config, name) == float(number.replace(" ", "")) * factors[unit], name
    numbers = {item.name for item in describe() if item.group in ("limits", "deadlines") and item.kind in (int, float)}
    # What has no number by default is there with words.
    numbers -= {item.name for item in describe() if item.default is None and f"| `{item.name}` | none" in text}
    assert numbers <= {row[0] for row in rows}


def test_the_settings_of_a_bind_are_those_of_the_code() -> None:
    text = (DOCS / "network.md").read_text().partition("### Settings of a bind\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (`.*`.*) \|$", text, re.MULTILINE)
    shown = [(group, name) for group, names in rows for name in re.findall(r"`(\w+)`", names)]
    have = {(item.group, item.name) for item in describe() if item.per_bind} | {("proxies", "trusted_hosts")}
    assert sorted(shown) == sorted(have)


def test_fixed_bounds_have_the_values_of_the_code() -> None:
    rows = re.findall(r"^\| `([\w.]+):(\w+)` \| ([\d.]+) \|", (DOCS / "limits.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for module, name, value in rows:
        assert str(getattr(importlib.import_module(module), name)) == value, name


# Links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# Pictures

PICTURES = sorted((DOCS / "pictures").iterdir())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_small_and_on_a_page(picture: Path) -> None:
    assert picture.stat().st_size < 150_000
    assert [name_of(page) for page in PAGES if f"pictures/{picture.name})" in page.read_text()]


@pytest.mark.parametrize("picture", [each for each in PICTURES if each.suffix == ".svg"], ids=lambda each: each.name)
def test_a_drawing_has_a_title_and_can_stand_in_a_page(picture: Path) -> None:
    # An empty line would end the block of HTML that it is on the site.
    assert "" not in picture.read_text().splitlines()
    drawing = ElementTree.parse(picture).getroot()
    assert drawing.findtext("{http://www.w3.org/2000/svg}title")
    assert not drawing.findall(".//*[@fill]"), "colours that do not follow the theme"


# Packages


def test_the_page_of_each_package_begins_with_what_to_install_for_what() -> None:
    packages = [path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")]
    tables = set()
    for name in packages:
        beginning = (ROOT / "packages" / name / "README.md").read_text().partition("\n## ")[0]
        table = re.search(r"^\| `pip install …` .*?\n\n", beginning, re.MULTILINE | re.DOTALL)
        assert table is not None, name
        tables.add(table[0])
    [text] = tables
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == sorted(packages)


# Tests


@functools.cache
def functions_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_row_of_the_threat_model_names_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        shown_by = re.findall(r"`([\w/.-]+\.py)::(\w+)`", row.rpartition("|")[0].rpartition("|")[2])
        assert shown_by, row
        for file, name in shown_by:
            assert name in functions_of(ROOT / file), f"{file}::{name}"


# Python


@pytest.mark.parametrize("block", python_blocks(), ids=place_of)
def test_python_blocks_compile(block: Block) -> None:
    compile(block.code, place_of(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", [block for block in python_blocks() if block.file], ids=place_of)
def test_python_files_do_what_they_are_for(block: Block, tmp_path: Path) -> None:
    for other in blocks(block.page):
        if other.language == "python" and other.file and other.line <= block.line:
            (tmp_path / other.file).write_text(other.code)
    assert block.file is not None
    if block.file == "main.py":
        check_application(block, tmp_path)
    elif block.file.startswith("test_"):
        # Plugins that readers need not have, and that take longer to import than the tests to run.
        without = ("cacheprovider", "xdist", "faker", "hypothesispytest")
        run(tmp_path, "-m", "pytest", "-q", *(word for name in without for word in ("-p", f"no:{name}")), block.file)
    else:
        run(tmp_path, block.file)


QUOTES = [block for block in python_blocks() if block.code.startswith("# examples/")]


@pytest.mark.parametrize("block", QUOTES, ids=place_of)
def test_quotes_are_what_the_examples_say(block: Block) -> None:
    path, _, code = block.code.removeprefix("# ").partition("\n")
    text = (ROOT / path).read_text()
    for part in re.split(r"^ *# …\n", code, flags=re.MULTILINE):
        assert part.strip("\n") in text


def test_every_example_of_a_plugin_is_quoted_or_named() -> None:
    text = "".join(page.read_text() for page in DOCS.glob("plugins*.md"))
    assert [folder.name for folder in ROOT.glob("examples/pounce-*") if f"examples/{folder.name}" not in text] == []


IMPORTED = ("pytest", "httpx", "pounce.testing", *warm.SERVER)
"""What most of the programs import."""


def check_application(block: Block, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "main", "__file__": str(folder / "main.py")}
    exec(compile(block.code, names["__file__"], "exec"), names)
    app = names["app"] if "app" in names else names["create_app"]()
    with TestServer(app) as server:
        assert httpx.get(server.url).is_success


def run(folder: Path, *words: str) -> None:
    process = warm.start(words, modules=IMPORTED, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    guard = threading.Timer(120, process.kill)
    guard.start()
    out, err = process.communicate()
    guard.cancel()
    assert process.returncode == 0, out + err


# Figures


@pytest.mark.skipif(not HAS_OWN, reason="what is counted is the server's own loop, and this system has no epoll")
def test_the_table_of_bytecodes_says_what_is_counted() -> None:
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \| .*\|$", (DOCS / "performance.md").read_text(), re.MULTILINE)
    counted = by_part("hello")
    counted["all of it"] = sum(counted.values())
    # A few more or fewer need no new page.
    near = {part: pytest.approx(number, abs=counted["all of it"] / 20) for part, number in counted.items()}
    assert {part: int(number.replace(",", "")) for part, number in rows} == near, "run scripts/performance-page"


def test_the_first_page_has_the_ratios_of_the_comparison() -> None:
    first, comparison = (ROOT / "README.md").read_text(), (DOCS / "comparison.md").read_text()
    said = re.findall(r"^\| .* \| 1 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| \|$", first, re.MULTILINE)
    measured = []
    for row in re.findall(r"^\| .* \| [\d,]+ \|(?: [\d,]+ \([\d.]+\) \|){4}$", comparison, re.MULTILINE):
        own, _, uvicorn, granian, hypercorn = [int(each.replace(",", "")) for each in re.findall(r" ([\d,]{5,})", row)]
        measured.append([pytest.approx(each / own, abs=0.05) for each in (uvicorn, hypercorn, granian)])
    assert [list(map(float, row)) for row in said] == measured
    assert len(measured) == 3


# Command lines


def test_the_page_of_the_command_line_is_made_from_it() -> None:
    found = runpy.run_path(str(ROOT / "scripts/cli-page"))
    assert (DOCS / "cli.md").read_text() == found["page"](), "write it anew with scripts/cli-page"


def command_lines() -> Iterator[tuple[str, str]]:
    """Lines that begin with `pounce serve`, wherever they stand, with their place."""
    for page in [*PAGES, *sorted(ROOT.glob("examples/*.py"))]:
        text = page.read_text().replace("\\\n", " ")
        for match in re.finditer(r"^(?:\$ | {4})(pounce serve .*)$", text, re.MULTILINE):
            yield f"{name_of(page)}:{text.count('\n', 0, match.start()) + 1}", match[1]


@pytest.mark.parametrize(("place", "line"), list(command_lines()))
def test_command_lines_are_understood(place: str, line: str) -> None:
    words = shlex.split(line, comments=True)[2:]
    if words == ["--help"]:
        return
    given = read(words)
    assert given is not None, line
    config_of(given)


@pytest.mark.parametrize("page", [DOCS / "comparison.md", ROOT / "README.md"], ids=name_of)
def test_a_comparison_names_flags_of_the_server_of_each_column(page: Path) -> None:
    table = [line.strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("|")]
    [begin] = [row for row, cells in enumerate(table) if cells[2:] and cells[2].strip() == "uvicorn"]
    ours = {flag for item in flags() for flag in spellings(item)}
    known = [ours if name == "pounce" else all_flags(SERVERS[name]) for name in map(str.strip, table[begin][1:])]
    rows = [row for row in table[begin + 2 :] if len(row) == len(table[begin])]
    assert len(rows) > 8
    for row in rows:
        for cell, have in zip(row[1:], known, strict=True):
            assert set(re.findall(r"--[\w-]+", cell)) <= set(have), row


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_that_a_page_names_exist(page: Path) -> None:
    if (DOCS not in page.parents and page != ROOT / "README.md") or page.name == "cli.md":
        return
    known = {"--app", "--set", "--help", "--config", "--static", "--plugin", "--kind", "--once", "--json"}
    known |= {"--write", "--force", "--same-defaults", "--profile", "--env-file", "--origin", "--print"}
    known |= {"--sockets", "--docker"}
    if page.name == "bench.md":
        known |= {"--compare", "--python", "--url", "--protocol", "--connections", "--depth", "--rate", "--duration"}
        known |= {"--warm-up", "--threads", "--method", "--path", "--header", "--body", "--html"}
    if page.name in ("migrating.md", "comparison.md", "README.md") or page.name.startswith("coming-from-"):
        known |= {flag for server in SERVERS.values() for flag in all_flags(server)} | {"--trace"}
    for item in (*flags(), *PLUGIN_OPTIONS):
        known |= {*spellings(item), *switched_off_by(item)}
    text = re.sub(r"^\$ (?!pounce (?!migrate)).*$", "", page.read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", text)) <= known
