"""What programs ask of public names: signatures, types of annotations, names, copies, hashes."""

import copy
import dataclasses
import importlib
import inspect
import json
import pickle
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import pounce
from pounce import ServerConfig

MODULES = (
    "pounce", "pounce.plugin", "pounce.testing", "pounce.errors", "pounce.config", "pounce.options", "pounce.server",
)  # fmt: skip
"""Where users find what they use."""
TABLES = {"h2": {"stream_window": 2048}, "other": {"list": ["unhashable"]}}


def public_names() -> Iterator[tuple[str, Any]]:
    """Functions and classes, and the methods of ours that these have."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            found = getattr(module, name)
            if not callable(found):
                continue
            yield f"{module.__name__}.{name}", found
            if inspect.isclass(found):
                for method, function in inspect.getmembers(found, inspect.isroutine):
                    where = getattr(function, "__module__", None) or ""
                    if not method.startswith("_") and where.partition(".")[0] == "pounce":
                        yield f"{module.__name__}.{name}.{method}", function


PUBLIC = dict(public_names())


def test_public_names_are_found() -> None:
    assert {"pounce.run", "pounce.Server", "pounce.Server.serve", "pounce.plugin.Wire"} <= PUBLIC.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_annotations_of_public_names_can_be_read(name: str) -> None:
    hints = typing.get_type_hints(PUBLIC[name])
    assert not any(isinstance(hint, str) for hint in hints.values())
    for hint in hints.values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, typing.TypeAliasType):
                assert part.__value__ is not None


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(PUBLIC[name])])
def test_annotations_of_every_method_of_a_public_class_can_be_read(name: str) -> None:
    for _, function in inspect.getmembers(PUBLIC[name], inspect.isroutine):
        if (getattr(function, "__module__", None) or "").partition(".")[0] == "pounce":
            typing.get_type_hints(function)


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_of_public_names_can_be_read(name: str) -> None:
    if isinstance(PUBLIC[name], typing.TypeAliasType) or typing.is_typeddict(PUBLIC[name]):
        pytest.skip("it is not called")
    for parameter in inspect.signature(PUBLIC[name]).parameters.values():
        assert not isinstance(parameter.annotation, str)


def test_annotations_can_be_read_before_anything_else_was_imported() -> None:
    code = (
        "import inspect, typing, pounce\n"
        "print(inspect.signature(pounce.run))\n"
        "print(typing.get_type_hints(pounce.run)['app'].__args__[0].__value__)\n"
        "print(inspect.signature(pounce.Server))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Callable" in done.stdout


def test_dir_lists_public_names_that_were_not_used_yet() -> None:
    code = "import pounce; print(set(pounce.__all__) <= set(dir(pounce)), 'TYPE_CHECKING' in dir(pounce))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "False"], done.stderr
    assert set(pounce.__all__) <= set(dir(pounce))


@pytest.mark.parametrize("settings", [{}, {"plugin_settings": TABLES}])
def test_configuration_can_be_a_dict_a_key_and_a_copy(settings: dict[str, Any]) -> None:
    config, same = ServerConfig(**settings), ServerConfig(**copy.deepcopy(settings))
    given = dataclasses.asdict(config)
    assert ServerConfig.of(given) == config
    assert given["plugin_settings"] == settings.get("plugin_settings", {})
    assert json.loads(json.dumps(given))["port"] == 8000
    assert hash(config) == hash(same)
    assert {config: 1}[same] == 1
    for copied in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copied == config
        assert copied.plugin_settings == config.plugin_settings
    assert config != dataclasses.replace(config, plugin_settings={"h2": {}})


def test_dict_of_a_configuration_is_its_owner_s() -> None:
    config = ServerConfig(plugin_settings=TABLES)
    dataclasses.asdict(config)["plugin_settings"]["h2"]["stream_window"] = 1
    copy.deepcopy(config.plugin_settings)["h2"].clear()
    assert config.plugin_settings == TABLES


def test_tables_of_a_configuration_never_change() -> None:
    config: Any = ServerConfig(plugin_settings=TABLES)
    for table in (config.plugin_settings, config.plugin_settings["h2"]):
        with pytest.raises(TypeError):
            table["stream_window"] = 1
        with pytest.raises(AttributeError):
            table.clear()
    assert repr(config.plugin_settings) == repr(TABLES)
    assert len(config.plugin_settings) == 2
