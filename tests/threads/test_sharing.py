"""Threads of several workers must not write to the same memory for each request, and without the GIL a reference that
is counted is such a write. These tests look at what the code of the request path refers to; the benchmark
`benchmarks.micro.sharing` looks at what a running server does."""

import dis
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from pounce import ServerConfig
from pounce.immortal import Immortals, immortal, own_class, own_copy

pytestmark = pytest.mark.skipif("t" not in sys.abiflags, reason="the GIL protects reference counts")

REQUEST_PATH = {
    "pounce.exchange.http": set(),
    "pounce.exchange.scope": set(),
    "pounce.exchange.service": {"NO_WEBSOCKET", "TOO_EARLY", "UNKNOWN_PROTOCOL"},
    # What is looked up once for a new combination of fields.
    "pounce.exchange.response_headers": {"_token", "_bad_value", "_KINDS"},
    "pounce.h1.connection": set(),
    "pounce.h1.encode": {"_STATUS_LINES"},
    "pounce.net.connection": set(),
    "pounce.net.direct_transport": set(),
    "pounce.net.opening": set(),
    "pounce.exchange.priority": {"_member", "_comma"},
    # Codes are for errors, the others for control frames and for the end of a connection.
    "pounce_h2.connection": {"FRAME_HEAD", "FRAME_SIZE_ERROR", "PROTOCOL_ERROR"},
    "pounce_h2.decode": set(),
    "pounce_h2.ending": set(),
    # What is looked up once for a new combination of fields.
    "pounce_h2.encode": {"_EXACT", "_NAMES"},
    "pounce_h2.frames": {"FRAME_HEAD", "SETTING", "_number"},
    "pounce_h2.heads": set(),
    "pounce_h2.output": set(),
    "pounce_h2.requests": {"FRAME_SIZE_ERROR", "PROTOCOL_ERROR"},
    "pounce_h2.settings": {"SETTING"},
    "pounce_h2.stream": set(),
    "pounce_h2.streams": {"GONE"},
    "pounce_h2.windows": set(),
    "pounce_h3.connection": set(),
    "pounce_h3.heads": set(),
    "pounce_h3.output": set(),
    "pounce_h3.stream": set(),
    "pounce_h3.streams": set(),
    "pounce_h3.windows": set(),
    "pounce_ws.exchange": {"REJECTED"},
    "pounce_ws.input": set(),
    "pounce_ws.output": set(),
    "pounce_ws.payload": set(),
    "pounce_ws.pings": set(),
    "pounce_ws.frames": set(),
    # For heads that are not like the one before.
    "pounce_h1fast.parser": {
        "END_OF_BODY", "Headers", "_FIELD_NAME", "_REQUEST_LINE", "_SMALL_CHUNK", "_USUAL_LINE", "_tables",
    },
}
"""Modules, and the names in them that are used at times other than for each request."""

UNCOUNTED = (types.FunctionType, type, types.ModuleType)
"""Python defers counting these, so that to use them is to write nothing."""


def referred(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Constants and globals that the functions of a module use."""
    for value in vars(module).values():
        own = getattr(value, "__module__", None) == module.__name__
        for item in vars(value).values() if own and isinstance(value, type) else (value,):
            function = getattr(item, "__func__", None) or getattr(item, "fget", None) or item
            if not isinstance(function, types.FunctionType) or function.__name__ == "__annotate__":
                continue
            for instruction in dis.get_instructions(function):
                if instruction.opname == "LOAD_CONST" and not isinstance(instruction.argval, types.CodeType):
                    yield repr(instruction.argval), instruction.argval
                elif instruction.opname == "LOAD_GLOBAL" and instruction.argval in vars(module):
                    yield instruction.argval, vars(module)[instruction.argval]


def is_counted(value: object) -> bool:
    builtin = isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType)
    return not (sys._is_immortal(value) or builtin or isinstance(value, UNCOUNTED))


@pytest.mark.parametrize("name", REQUEST_PATH)
def test_request_path_refers_to_nothing_that_threads_count(name: str) -> None:
    module = importlib.import_module(name)
    Immortals({"pounce", name.partition(".")[0]}).look()
    counted = {what for what, value in referred(module) if is_counted(value)}
    assert counted == REQUEST_PATH[name]


def test_modules_that_are_imported_later_are_seen_to(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "VALUE = b'of a module'\n\nclass Late:\n    def constant(self):\n        return lambda: b'of a function'\n"
    (tmp_path / "late_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    immortals = Immortals({"late_module"})
    immortals.look()
    late = importlib.import_module("late_module")
    assert not sys._is_immortal(late.VALUE)
    immortals.look()
    assert sys._is_immortal(late.VALUE)
    assert sys._is_immortal(late.Late().constant()())
    assert late.Late().constant()() == b"of a function"


def test_other_packages_are_left_alone() -> None:
    code = test_other_packages_are_left_alone.__code__
    Immortals({"pounce"}).look()
    assert test_other_packages_are_left_alone.__code__ is code


@pytest.mark.parametrize("value", [1.5, 10**9, b"bytes", "text", (b"a", 2.5, ("b",)), frozenset((b"a", 300))])
def test_immortal_equals_what_it_is_made_of(value: object) -> None:
    made = immortal(value)
    assert (made, type(made)) == (value, type(value))
    assert sys._is_immortal(made)


def test_what_is_no_constant_comes_back_as_it_is() -> None:
    value = {"a": [1]}
    assert immortal(value) is value


def test_own_copy_of_a_configuration_has_immortal_values() -> None:
    config = ServerConfig(port=0, keep_alive_timeout=7.25, bind=("127.0.0.1:0",), plugin_settings={"h2": {"a": 1}})
    copy = own_copy(config)
    assert copy == config
    assert copy is not config
    assert sys._is_immortal(copy.keep_alive_timeout)
    assert sys._is_immortal(copy.bind)


def test_own_class_behaves_as_the_one_it_is_made_from() -> None:
    class Base:
        __slots__ = ("value",)

        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self, by: int = 2, *, plus: int = 0) -> int:
            return self.value * by + plus

    own = own_class(Base, "doubled")
    made = own(3)
    assert (made.doubled(), made.doubled(3, plus=1)) == (6, 10)
    assert isinstance(made, Base)
    assert not hasattr(made, "__dict__")
    assert own.doubled is not Base.doubled
