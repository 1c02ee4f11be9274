"""Whatever an author may touch says what it is; what has an underscore is nobody's business."""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import pytest

from pounce import plugin
from pounce.contract.wire import LiveConnection

CLASSES: list[Any] = [
    LiveConnection, *(found for name in plugin.__all__ if isinstance(found := vars(plugin)[name], type))
]  # fmt: skip


METHODS = (types.FunctionType, property, classmethod, staticmethod)


def attributes(body: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    """Public attributes that are declared or set in a class or its `__init__`, and whether a docstring follows."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            yield from attributes(statement.body)
        targets: list[ast.expr] = []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        for target in targets:
            name = str(getattr(target, "id", getattr(target, "attr", "_")))
            if not name.startswith("_"):
                yield name, isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_attribute_and_method_says_what_it_is(kind: Any) -> None:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    documented: dict[str, bool] = {}
    for base in kind.__mro__[1:-1]:
        if base.__module__.startswith("pounce."):
            (found,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(found, ast.ClassDef)
            documented |= {name: True for name, has in attributes(found.body) if has}
    of_class = inspect.getdoc(kind) or ""
    for name, has in attributes(tree.body):
        documented[name] = documented.get(name, False) or has or bool(re.search(rf"`{name}\b", of_class))
    called = {name for name, value in vars(kind).items() if isinstance(value, METHODS) and not name.startswith("_")}
    # What is a Stream besides has the methods of a Stream.
    silent = {name for name in called if not inspect.getdoc(getattr(kind, name)) and name not in vars(plugin.Stream)}
    assert sorted(silent | {name for name, has in documented.items() if not has}) == []
