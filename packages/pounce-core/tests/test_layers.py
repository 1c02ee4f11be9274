"""Imports point downwards only, and importing the package is cheap."""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pounce

SOURCE = Path(pounce.__file__).parent
WORKSPACE = Path(__file__).parents[2]
WIRES = ("pounce_h2", "pounce_h3")
OTHERS = ("pounce_h1fast", "pounce_ws")
EXCHANGES = "pounce_h3.webtransport."
"""What is an exchange of the request core, though a wire brings it."""
FREE_OF_CIRCLES = (
    "pounce.admission",
    "pounce.contract",
    "pounce.exchange",
    "pounce.h1",
    "pounce.identity",
    "pounce.middleware",
    "pounce.net",
    "pounce.observe",
    "pounce.supervisor",
    "pounce.testing",
    "pounce.worker",
    "pounce_h1fast",
    "pounce_h2",
    "pounce_h3",
    "pounce_ws",
)  # fmt: skip
"""Packages in which each file can be read after those that it imports."""
FILES = {
    ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (SOURCE, *(WORKSPACE / name.replace("_", "-") / "src" / name for name in (*WIRES, *OTHERS)))
    for path in sorted(folder.rglob("*.py"))
}
MODULES = frozenset(FILES)
# What a wire may import of the core beside the contract.
FOR_WIRES = {
    "pounce.config", "pounce.errors", "pounce.options", "pounce.exchange.fields", "pounce.exchange.priority",
    "pounce.net.body_connection", "pounce.net.connection", "pounce.net.linger", "pounce.plugin",
    # What HTTP/2 and HTTP/3 have in common.
    "pounce.exchange.answers", "pounce.exchange.budget", "pounce.exchange.huffman", "pounce.exchange.known_heads",
    "pounce.exchange.prefixed",
}  # fmt: skip


class Import(NamedTuple):
    line: int
    module: str


def imports(module: str) -> tuple[Import, ...]:
    """Every import of a file, also those inside functions and those for type checking."""
    return imports_of(FILES[module])


@functools.cache
def imports_of(path: Path) -> tuple[Import, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports by a relative name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield Import(node.lineno, name if name in MODULES else str(node.module))


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def offenders(package: str, allowed: object) -> list[str]:
    assert callable(allowed)
    return [
        f"{module}:{found.line} imports {found.module}"
        for module in FILES
        if below(module, package)
        for found in imports(module)
        if below(found.module, "pounce") and not allowed(found.module)
    ]


def test_contract_stands_on_the_ground() -> None:
    ground = ("pounce.errors", "pounce.options", "pounce.config")
    assert offenders("pounce.contract", lambda name: name in ground or below(name, "pounce.contract")) == []


def test_request_core_stands_on_the_contract_alone() -> None:
    below_it = ("pounce.contract", "pounce.exchange", "pounce.errors", "pounce.config", "pounce.immortal")
    assert offenders("pounce.exchange", lambda name: any(below(name, package) for package in below_it)) == []


@pytest.mark.parametrize("wire", ["pounce.h1", *WIRES])
def test_wire_imports_only_the_contract(wire: str) -> None:
    found = offenders(wire, lambda name: name in FOR_WIRES or below(name, "pounce.contract") or below(name, wire))
    assert [each for each in found if not each.startswith(EXCHANGES)] == []


def test_net_stands_on_contract_and_request_core() -> None:
    below_it = ("pounce.contract", "pounce.exchange", "pounce.net", "pounce.errors", "pounce.config")
    assert offenders("pounce.net", lambda name: any(below(name, package) for package in below_it)) == []


def test_plugins_are_offered_the_contract_and_nothing_of_the_core_beyond_connections() -> None:
    net = ("pounce.net.connection", "pounce.net.body_connection", "pounce.net.request_connection")
    allowed = ("pounce.contract", "pounce.errors", "pounce.options", *net)
    assert offenders("pounce.plugin", lambda name: any(below(name, package) for package in allowed)) == []


@pytest.mark.parametrize("module", ["pounce.errors", "pounce.spelling", "pounce.contract.head"])
def test_lowest_layer_imports_nothing_of_the_package(module: str) -> None:
    assert offenders(module, lambda name: False) == []


def test_configuration_imports_its_own_kind_and_errors_only() -> None:
    ground = ("pounce.errors", "pounce.options", "pounce.spelling", "pounce.config_checks", "pounce.cpus")
    ground += ("pounce.uvicorn_arguments",)
    assert offenders("pounce.config", lambda name: name in ground or below(name, "pounce.settings")) == []
    of_groups = ("pounce.options", "pounce.settings.types")
    assert offenders("pounce.settings", lambda name: name in of_groups) == []
    its_own = ("pounce.errors", "pounce.options", "pounce.spelling", "pounce.config", "pounce.display")
    assert offenders("pounce.config_checks", lambda name: name in its_own) == []
    assert offenders("pounce.options", lambda name: name in ("pounce.errors", "pounce.spelling")) == []


def test_no_module_but_the_testing_kit_imports_the_testing_kit() -> None:
    found = [
        f"{module}:{item.line}"
        for module in FILES
        if not below(module, "pounce.testing")
        for item in imports(module)
        if below(item.module, "pounce.testing")
    ]
    assert found == []


def test_nobody_imports_the_command_line_but_who_is_started_in_its_place() -> None:
    found = {module for module in FILES for item in imports(module) if below(item.module, "pounce_cli")}
    assert found == {"pounce.__main__"}


def circle_within(package: str) -> list[str]:
    """A way along the imports of a package that leads back to where it begins; empty where there is none."""
    done: set[str] = set()

    def from_here(way: list[str]) -> list[str]:
        for found in sorted({found.module for found in imports(way[-1])}):
            if found in way:
                return [*way[way.index(found) :], found]
            if found in MODULES and below(found, package) and found not in done:
                circle = from_here([*way, found])
                if circle:
                    return circle
        done.add(way[-1])
        return []

    for module in sorted(MODULES):
        if below(module, package) and module not in done:
            circle = from_here([module])
            if circle:
                return circle
    return []


@pytest.mark.parametrize("package", FREE_OF_CIRCLES)
def test_no_file_imports_one_that_imports_it(package: str) -> None:
    assert circle_within(package) == []


def test_circle_is_found_also_where_only_type_checking_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "first": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from round import second\n",
        "second": "def late():\n    from round.third import name\n",
        "third": "import round.second\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        monkeypatch.setitem(FILES, f"round.{name}", path)
    monkeypatch.setitem(globals(), "MODULES", frozenset(FILES))
    assert circle_within("round") == ["round.second", "round.third", "round.second"]


def test_what_only_type_checking_needs_counts_as_well() -> None:
    assert "pounce.h1.connection" in {item.module for item in imports("pounce.h1.plugin")}
    assert "pounce.contract.wire" in {item.module for item in imports("pounce.net.sniff")}


def in_a_fresh_interpreter(code: str) -> str:
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("log_format", ["a terminal", "elsewhere"])
def test_module_that_is_started_says_what_to_install_where_there_is_no_command_line(log_format: str) -> None:
    code = (
        "import sys, io, runpy; sys.modules['pounce_cli'] = None; sys.stderr = io.StringIO()\n"
        f"sys.stderr.isatty = lambda: {log_format == 'a terminal'}\n"
        "try: runpy.run_module('pounce', run_name='__main__')\n"
        "except SystemExit as exc: print(exc.code, sys.stderr.getvalue())\n"
    )
    code, _, said = in_a_fresh_interpreter(code).partition(" ")
    assert code == "2"
    if log_format == "a terminal":
        assert said.startswith("Error: the command line is a package of its own")
        assert "pip install pounce-cli" in said
    else:
        error = json.loads(said)
        assert (error["code"], error["event"]) == ("POUNCE_CLI_NOT_INSTALLED", "start_failed")


@pytest.mark.parametrize("module", ["pounce", "pounce.errors", "pounce.config"])
def test_import_brings_nothing_heavy(module: str) -> None:
    heavy = ("asyncio", "ssl", "h11", "socket", "logging", "importlib.metadata", "http.client")
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    assert in_a_fresh_interpreter(code).split() == []


def test_plugins_of_the_core_do_not_bring_a_parser() -> None:
    code = (
        "import sys, pounce.h1.plugin, pounce.exchange.health, pounce.observe.access_log; print('h11' in sys.modules)"
    )
    assert in_a_fresh_interpreter(code).strip() == "False"


def test_public_names_are_all_there() -> None:
    for name in pounce.__all__:
        assert getattr(pounce, name) is not None


def test_public_names_of_the_plugin_contract_are_all_there() -> None:
    import pounce.plugin
    import pounce.testing

    for module in (pounce.plugin, pounce.testing):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        pounce.no_such_name  # noqa: B018


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert pounce.__version__ == version("pounce-core")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[module].read_text(encoding="utf-8"))), module
