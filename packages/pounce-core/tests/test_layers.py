"""Imports point downwards only, and importing the package is cheap."""

import ast
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
FILES = {
    ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (SOURCE, *(WORKSPACE / wire.replace("_", "-") / "src" / wire for wire in WIRES))
    for path in sorted(folder.rglob("*.py"))
}
MODULES = frozenset(FILES)
# What a wire may import of the core.
CONTRACT = {
    "pounce.exchange.fields", "pounce.exchange.head", "pounce.exchange.priority", "pounce.exchange.stream",
    "pounce.net.connection", "pounce.net.linger", "pounce.errors", "pounce.plugin",
    # What HTTP/2 and HTTP/3 have in common.
    "pounce.exchange.answers", "pounce.exchange.budget", "pounce.exchange.huffman", "pounce.exchange.known_heads",
    "pounce.exchange.prefixed",
}  # fmt: skip


class Import(NamedTuple):
    line: int
    module: str


def imports(module: str) -> Iterator[Import]:
    """Every import of a file, also those inside functions, without those for type checking."""

    def walk(node: ast.AST) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(child.lineno, alias.name)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}:{child.lineno} imports by a relative name"
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield Import(child.lineno, name if name in MODULES else str(child.module))
            else:
                yield from walk(child)

    yield from walk(ast.parse(FILES[module].read_text(encoding="utf-8")))


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


def test_request_core_knows_nothing_of_wires_sockets_workers_and_supervisors() -> None:
    higher = ("pounce.h1", "pounce.net", "pounce.worker", "pounce.supervisor", "pounce.server")
    assert offenders("pounce.exchange", lambda name: not any(below(name, package) for package in higher)) == []


@pytest.mark.parametrize("wire", ["pounce.h1", *WIRES])
def test_wire_imports_only_the_contract(wire: str) -> None:
    assert offenders(wire, lambda name: name in CONTRACT or below(name, wire)) == []


def test_net_knows_nothing_of_wires_and_workers() -> None:
    higher = ("pounce.h1", "pounce.worker", "pounce.supervisor", "pounce.server")
    assert offenders("pounce.net", lambda name: not any(below(name, package) for package in higher)) == []


@pytest.mark.parametrize("module", ["pounce.errors", "pounce.exchange.head"])
def test_lowest_layer_imports_nothing_of_the_package(module: str) -> None:
    assert offenders(module, lambda name: False) == []


def test_configuration_imports_its_own_kind_and_errors_only() -> None:
    assert offenders("pounce.config", lambda name: name in ("pounce.errors", "pounce.options")) == []
    assert offenders("pounce.options", lambda name: name == "pounce.errors") == []


def test_no_module_but_the_testing_kit_imports_the_testing_kit() -> None:
    found = [
        f"{module}:{item.line}"
        for module in FILES
        if not below(module, "pounce.testing")
        for item in imports(module)
        if below(item.module, "pounce.testing")
    ]
    assert found == []


def test_nobody_imports_the_command_line() -> None:
    found = [
        f"{module}:{item.line}" for module in FILES for item in imports(module) if below(item.module, "pounce_cli")
    ]
    assert found == []


def test_what_type_checking_needs_is_not_counted_and_everything_else_is() -> None:
    assert "pounce.exchange.service" not in {item.module for item in imports("pounce.exchange.scope")}
    assert "pounce.h1.connection" in {item.module for item in imports("pounce.h1.plugin")}


def in_a_fresh_interpreter(code: str) -> str:
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


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
