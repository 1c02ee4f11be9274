"""The registry: installed plugins, their conflicts, and what is looked up in them."""

import asyncio
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from pounce import ConfigError, PluginError, ServerConfig
from pounce.h1.plugin import plugin as h1
from pounce.plugin import (
    API_VERSION,
    Command,
    DatagramWire,
    MiddlewareChoice,
    ObserverFactory,
    ParserChoice,
    Plugin,
    Preface,
    Responder,
    Switch,
    Upgrade,
    Wire,
)
from pounce.registry import BUILT_IN_COMMANDS, GROUP, Loaded, Registry, installed_options
from pounce.server import Server
from pounce.testing.memory import memory_service


def wire(name: str, **more: Any) -> Wire:
    return Wire(name=name, connect=lambda service: None, **more)  # type: ignore[arg-type, return-value]


def plugin(name: str, **more: Any) -> Plugin:
    return Plugin(name=name, api=API_VERSION, **more)


class Site:
    """A folder on sys.path into which distributions with plugins are put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, entry: str, code: str, *, version: str = "1.2") -> None:
        module = f"{distribution.replace('-', '_')}_module"
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry} = {module}:plugin\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    monkeypatch.setattr(sys, "modules", sys.modules)
    yield Site(tmp_path)  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if name.endswith("_module"):
            del sys.modules[name]


GOOD = "from pounce.plugin import *\nplugin = Plugin(name={name!r}, api={api}, {more})\n"


def code(name: str, more: str = "", api: object = API_VERSION) -> str:
    return GOOD.format(name=name, api=api, more=more)


def discovered(**settings: Any) -> dict[str, Loaded]:
    return {entry.name: entry for entry in Registry.discover(ServerConfig(**settings)).loaded}


def test_parts_of_the_core_are_plugins() -> None:
    found = discovered()
    assert {"h1", "health", "access_log"} <= set(found)
    assert found["h1"].distribution == "pounce-core"
    assert found["h1"].plugin is h1


def test_installed_plugin_is_found_with_its_distribution(site: Site) -> None:
    site.install("pounce-gopher", "gopher", code("gopher"))
    entry = discovered()["gopher"]
    assert (entry.distribution, entry.version, entry.skipped) == ("pounce-gopher", "1.2", None)
    assert entry.load_time > 0
    assert not entry.gil_enabled


def test_what_is_installed_or_removed_while_the_process_runs_is_seen(
    site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "gopher" not in discovered()
    site.install("pounce-gopher", "gopher", code("gopher"))
    assert discovered()["gopher"].version == "1.2"
    site.install("pounce-finger", "finger", code("finger"))
    assert {"gopher", "finger"} <= set(discovered())
    (site.folder / "pounce_gopher-1.2.dist-info").rename(site.folder / "not-installed")
    assert "gopher" not in discovered()
    other = Site(tmp_path_factory.mktemp("other"))
    other.install("pounce-whois", "whois", code("whois"))
    assert "whois" not in discovered()
    monkeypatch.syspath_prepend(str(other.folder))
    assert {"whois", "finger"} <= set(discovered())
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(site.folder)])
    assert "finger" not in discovered()


BROKEN = {
    "raises": ("raise RuntimeError('out of gophers')", "out of gophers"),
    "exits": ("raise SystemExit(9)", "SystemExit"),
    "syntax": ("def (", "SyntaxError"),
    "missing-import": ("import does_not_exist_anywhere", "does_not_exist_anywhere"),
    "no-attribute": ("", "plugin"),
    "not-a-plugin": ("plugin = 3", "not a pounce.plugin.Plugin"),
    "other-major": (code("gopher", api=(API_VERSION[0] + 1, 0)), f"{API_VERSION[0] + 1}.0"),
    "higher-minor": (code("gopher", api=(API_VERSION[0], API_VERSION[1] + 1)), f".{API_VERSION[1] + 1}"),
    "api-is-text": (code("gopher", api="'1.0'"), "contract"),
    "api-is-short": (code("gopher", api=(1,)), "contract"),
    "unknown-field": (code("gopher", "teleports=()"), "teleports"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_plugin_that_cannot_be_used_is_skipped_with_a_reason(site: Site, text: str, reason: str) -> None:
    site.install("pounce-gopher", "gopher", text)
    entry = discovered()["gopher"]
    assert entry.plugin is None
    assert entry.skipped is not None
    assert reason in entry.skipped


def test_plugin_that_was_asked_for_and_cannot_be_used_is_an_error(site: Site) -> None:
    site.install("pounce-gopher", "gopher", "raise RuntimeError('out of gophers')")
    with pytest.raises(PluginError, match=r"gopher cannot be used.*out of gophers"):
        discovered(only_plugins=("gopher",))


def test_disabled_plugin_is_not_even_imported(site: Site) -> None:
    site.install("pounce-gopher", "gopher", "raise SystemExit")
    assert discovered(disable_plugin=("gopher",))["gopher"].skipped == "disabled by disable_plugin"


def test_http2_is_off_where_a_setting_says_so() -> None:
    assert "h2" in Registry.discover(ServerConfig()).wires
    found = Registry.discover(ServerConfig(http2_enabled=False))
    assert "h2" not in found.wires
    assert "h2" not in found.wire_table().alpn
    assert discovered(http2_enabled=False)["h2"].skipped == "disabled by http2_enabled"


def test_only_plugins_leaves_others_out_and_the_core_in(site: Site) -> None:
    site.install("pounce-a", "a", code("a"))
    site.install("pounce-b", "b", code("b"))
    found = discovered(only_plugins=("a",))
    assert found["a"].plugin is not None
    assert found["b"].skipped == "not among only_plugins"
    assert found["h1"].plugin is not None


def test_plugins_off_leaves_the_core(site: Site) -> None:
    site.install("pounce-a", "a", code("a"))
    found = discovered(plugins=False)
    assert found["a"].skipped == "plugins are off"
    assert found["h1"].plugin is not None


@pytest.mark.parametrize("setting", ["only_plugins", "disable_plugin"])
def test_name_of_a_plugin_that_is_not_installed_is_an_error(setting: str) -> None:
    with pytest.raises(PluginError, match="no plugin named 'goher'") as caught:
        discovered(**{setting: ("goher",)})
    assert "h1" in (caught.value.hint or "")


def test_skipped_plugin_is_reported_when_the_server_starts(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    from pounce.worker.shared import _report_plugins

    site.install("pounce-gopher", "gopher", "raise RuntimeError('out of gophers')")
    site.install("pounce-quiet", "quiet", code("quiet"))
    _report_plugins(Registry.discover(ServerConfig(disable_plugin=("quiet",))))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "Plugin gopher (pounce-gopher) is skipped: import failed: RuntimeError: out of gophers"
    ]


def test_plugin_that_switches_the_gil_on_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    from pounce.worker.shared import _report_plugins

    _report_plugins(Registry([Loaded("gopher", "pounce-gopher", "1", plugin("gopher"), gil_enabled=True)]))
    assert "Plugin gopher (pounce-gopher) switched the GIL on" in caplog.text


def test_gil_is_looked_at_again_after_each_import(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    site.install("pounce-gopher", "gopher", "import sys\nsys._is_gil_enabled = lambda: True\n" + code("gopher"))
    site.install("pounce-zoo", "zoo", code("zoo"))
    found = discovered()
    assert found["gopher"].gil_enabled
    assert not found["zoo"].gil_enabled
    assert not found["h1"].gil_enabled


# Conflicts


def parser(name: str) -> ParserChoice:
    return ParserChoice(name=name, priority=1, create=lambda limits: None)  # type: ignore[arg-type, return-value]


CONFLICTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "wire": ({"wires": (wire("x"),)}, {"wires": (wire("x"),)}, "wire 'x'"),
    "alpn": ({"wires": (wire("x", alpn=("z",)),)}, {"wires": (wire("y", alpn=("z",)),)}, "ALPN id 'z'"),
    "preface": ({"wires": (wire("x", preface=b"PRI"),)}, {"wires": (wire("y", preface=b"PRI"),)}, "preface 'PRI'"),
    "preface-of-preface": (
        {"wires": (wire("x", preface=b"PRI * HTTP"),)}, {"wires": (wire("y", preface=b"PRI"),)}, "preface",
    ),
    "longer-preface": ({"wires": (wire("x", preface=b"P"),)}, {"wires": (wire("y", preface=b"PRI"),)}, "preface 'P'"),
    "upgrade": (
        {"upgrades": (Upgrade(token=b"ws", open=print),)},  # type: ignore[arg-type]
        {"upgrades": (Upgrade(token=b"ws", open=print),)},  # type: ignore[arg-type]
        "upgrade token 'ws'",
    ),
    "switch": (
        {"upgrades": (Upgrade(token=b"ws", open=print),)},  # type: ignore[arg-type]
        {"switches": (Switch(token=b"ws", connect=print),)},  # type: ignore[arg-type]
        "upgrade token 'ws'",
    ),
    "parser": ({"parsers": (parser("p"),)}, {"parsers": (parser("p"),)}, "parser 'p'"),
    "command": (
        {"commands": (Command(name="c", load=print),)},  # type: ignore[arg-type]
        {"commands": (Command(name="c", load=print),)},  # type: ignore[arg-type]
        "command 'c'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "what"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflict_names_both_distributions_and_the_setting_that_resolves_it(
    first: dict[str, Any], second: dict[str, Any], what: str
) -> None:
    one, two = plugin("one", **first), plugin("two", **second)
    with pytest.raises(PluginError) as caught:
        Registry([Loaded("one", "pounce-one", "1", one), Loaded("two", "pounce-two", "1", two)])
    assert what in str(caught.value)
    assert "pounce-one" in str(caught.value)
    assert "pounce-two" in str(caught.value)
    assert "disable_plugin one" in (caught.value.hint or "")
    assert "disable_plugin two" in (caught.value.hint or "")
    assert caught.value.code == "POUNCE_PLUGIN_CONFLICT"


def test_two_plugins_of_the_same_name_are_a_conflict() -> None:
    with pytest.raises(PluginError, match="plugin 'same'"):
        Registry([Loaded("a", "pounce-a", "1", plugin("same")), Loaded("b", "pounce-b", "1", plugin("same"))])


def test_two_distributions_with_one_entry_point_name_are_a_conflict(site: Site) -> None:
    site.install("pounce-one", "same", code("one"))
    site.install("pounce-two", "same", code("two"))
    with pytest.raises(PluginError, match=r"entry point 'same' .*pounce-one.* and .*pounce-two") as caught:
        Registry.discover(ServerConfig())
    assert caught.value.code == "POUNCE_PLUGIN_CONFLICT"
    assert "uninstall one" in (caught.value.hint or "")


@pytest.mark.parametrize("name", BUILT_IN_COMMANDS)
def test_a_command_with_the_name_of_a_built_in_one_is_a_conflict(name: str) -> None:
    with pytest.raises(PluginError, match="pounce itself") as caught:
        Registry.of(plugin("a", commands=(Command(name=name, load=lambda: print),)))
    assert caught.value.code == "POUNCE_PLUGIN_CONFLICT"


def test_a_lenient_registry_keeps_what_is_wrong_and_the_first_of_what_is_claimed_twice() -> None:
    first, second = wire("w"), wire("w")
    loaded = [Loaded("a", "A", "1", plugin("a", wires=(first,))), Loaded("b", "B", "1", plugin("b", wires=(second,)))]
    registry = Registry(loaded, lenient=True)
    assert [(entry.name, error.code) for entry, error in registry.errors] == [("b", "POUNCE_PLUGIN_CONFLICT")]
    assert registry.wires["w"] is first


MALFORMED: dict[str, dict[str, Any]] = {
    "a tuple .got one Upgrade": {"upgrades": Upgrade(token=b"x", open=print)},  # type: ignore[arg-type]
    "wires must be a tuple of Wire .got list": {"wires": [wire("a")]},
    "must be a tuple of Wire .it has": {"wires": (parser("a"),)},
    "name must be text": {"wires": (wire(""),)},
    "connect must be callable": {"wires": (Wire(name="a", connect=None),)},  # type: ignore[arg-type]
    "alpn must be a tuple of text": {"wires": (wire("a", alpn="h9"),)},
    "preface must be bytes": {"wires": (wire("a", preface="AAA"),)},
    "token must be bytes in lower case": {"upgrades": (Upgrade(token=b"X", open=print),)},  # type: ignore[arg-type]
    "where must be one of": {"middleware": (MiddlewareChoice(name="m", create=print, where="top"),)},  # type: ignore[arg-type]
    "priority must be a number": {"parsers": (ParserChoice(name="p", priority="1", create=print),)},  # type: ignore[arg-type]
    "settings must be a dataclass": {"settings": {"a": 1}},
}


@pytest.mark.parametrize("said", MALFORMED)
def test_a_plugin_of_another_shape_than_the_contract_says_is_an_error_that_names_it(said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        Registry.of(plugin("odd", **MALFORMED[said]))
    assert "plugin odd" in caught.value.message


def fails(*args: object) -> Any:
    raise ValueError("no such table")


@pytest.mark.parametrize(
    "piece",
    [
        {"responders": (Responder(name="x", create=fails),)},
        {"observers": (ObserverFactory(name="x", create=fails),)},
        {"middleware": (MiddlewareChoice(name="x", create=fails),)},
    ],
    ids=["responder", "observer", "middleware"],
)
def test_what_cannot_be_made_is_an_error_that_names_the_plugin(piece: Any, request: pytest.FixtureRequest) -> None:
    async def make() -> None:
        memory_service(None, Registry.of(h1, plugin("odd", **piece)))

    kind = request.node.callspec.id
    with pytest.raises(PluginError, match=f"plugin odd: the {kind} x could not be made: ValueError: no such table"):
        asyncio.run(make())


def test_conflict_is_gone_when_one_is_disabled(site: Site) -> None:
    for name in ("one", "two"):
        site.install(f"pounce-{name}", name, code(name, f"wires=(Wire(name={name!r}, connect=print, alpn=('z',)),)"))
    with pytest.raises(PluginError, match="ALPN"):
        Registry.discover(ServerConfig())
    registry = Registry.discover(ServerConfig(disable_plugin=("two",)))
    assert "z" in registry.wire_table().alpn


# Looking up


def test_alpn_offers_http_1_last() -> None:
    registry = Registry.of(h1, plugin("a", wires=(wire("a", alpn=("a1", "a2")),)))
    assert registry.wire_table().alpn == ("a1", "a2", "http/1.1")


TABLE = Registry.of(
    h1,
    plugin("a", wires=(wire("a", alpn=("a1", "a2"), preface=b"AAA"), wire("b", preface=b"BBB"), wire("c"))),
    plugin("d", datagrams=(DatagramWire(name="d", connect=print),)),  # type: ignore[arg-type]
)


@pytest.mark.parametrize(
    ("names", "default", "alpn", "prefaces", "needs_alpn"),
    [
        ((), "h1", ("a1", "a2", "http/1.1"), {b"AAA", b"BBB"}, False),
        (("h1",), "h1", ("http/1.1",), set(), False),
        (("a",), "a", ("a1", "a2"), {b"AAA"}, True),
        (("b",), "b", (), {b"BBB"}, False),
        (("c", "d"), "c", (), set(), False),
        (("a", "h1"), "h1", ("a1", "a2", "http/1.1"), {b"AAA"}, False),
        (("c", "a"), "c", ("a1", "a2"), {b"AAA"}, False),
        (("a", "b"), "b", ("a1", "a2"), {b"AAA", b"BBB"}, False),
    ],
)
def test_bind_chooses_among_the_wires_that_it_names(
    names: tuple[str, ...], default: str, alpn: tuple[str, ...], prefaces: set[bytes], needs_alpn: bool
) -> None:
    table = TABLE.wire_table(names)
    assert (table.default.name, table.alpn, set(table.by_preface), table.needs_alpn) == (
        default, alpn, prefaces, needs_alpn,
    )  # fmt: skip


def rule(name: str, wanted: bytes, size: int) -> Wire:
    """A wire whose connections have `wanted` somewhere in their first `size` bytes."""
    return wire(name, preface=Preface(lambda first: True if wanted in first else None, size))


def test_a_rule_chooses_the_wire_by_the_first_bytes() -> None:
    table = Registry.of(h1, plugin("a", wires=(rule("r", b":", 8), wire("b", preface=b"BBB")))).wire_table()
    assert table.of_preface(b"12") is None
    assert table.of_preface(b"12:") is table.by_rule[0][1]
    assert table.of_preface(b"BBB:") is table.by_preface[b"BBB"]
    assert table.of_preface(b"12345678") is table.default
    assert table.of_preface(b"12345678:") is table.default


def test_a_rule_that_says_no_at_once_holds_up_nobody() -> None:
    table = Registry.of(h1, plugin("a", wires=(wire("r", preface=Preface(lambda first: False, 8)),))).wire_table()
    assert table.of_preface(b"G") is table.default


def test_rules_count_only_where_their_wire_is_spoken() -> None:
    registry = Registry.of(h1, plugin("a", wires=(rule("r", b":", 8), rule("s", b";", 8))))
    assert [wire.name for _, wire in registry.wire_table(("h1", "s")).by_rule] == ["s"]


def test_bind_that_names_nothing_over_tcp_is_an_error() -> None:
    with pytest.raises(ConfigError, match="names no wire but d"):
        TABLE.wire_table(("d",))


def test_parser_of_highest_priority_is_chosen() -> None:
    registry = Registry.of(h1, plugin("fast", parsers=(parser("fast"),)))
    assert registry.parser("auto").name == "fast"
    assert registry.parser("h11").name == "h11"


def test_unknown_parser_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="h11"):
        Registry.of(h1).parser("zap")


def test_unknown_wire_of_a_bind_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'gopher'") as caught:
        Registry.of(h1).wire_named("gopher")
    assert "h1" in (caught.value.hint or "")


def test_server_without_http_1_says_so() -> None:
    import asyncio

    with pytest.raises(PluginError, match=r"HTTP/1\.1"):
        asyncio.run(Server(ServerConfig(port=0, disable_plugin=("h1",)), app).serve())


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


# Settings


@dataclasses.dataclass(frozen=True)
class Burrow:
    depth: int = 3

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError("depth must not be negative")


def test_settings_of_a_plugin_come_from_its_table() -> None:
    registry = Registry.of(plugin("gopher", settings=Burrow))
    assert registry.settings({})["gopher"].depth == 3
    assert registry.settings({"gopher": {"depth": 5}})["gopher"].depth == 5


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"goher": {}}, "goher"),
        ({"gopher": {"dept": 5}}, "gopher.dept"),
        ({"gopher": {"depth": -1}}, "depth must not be negative"),
        ({"h1": {}}, "h1"),
    ],
    ids=str,
)
def test_setting_that_a_plugin_does_not_have_is_an_error(tables: Any, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Registry.of(h1, plugin("gopher", settings=Burrow)).settings(tables)
    assert named in str(caught.value)


def test_value_of_a_plugin_s_setting_is_checked_by_its_description() -> None:
    with pytest.raises(ConfigError, match=r"gopher\.depth must be an integer \(got '5'\)"):
        Registry.of(plugin("gopher", settings=Burrow)).settings({"gopher": {"depth": "5"}})


def test_settings_of_a_plugin_that_is_left_out_are_left_out() -> None:
    registry = Registry([Loaded("gopher", "pounce-gopher", "1", skipped="disabled by disable_plugin")])
    assert registry.settings({"gopher": {"depth": 5}}) == {}


WITH_SETTINGS = """
from dataclasses import dataclass
from pounce.plugin import *

@dataclass(frozen=True)
class Settings:
    depth: int = option(3, "How deep.", ge=0)

plugin = Plugin(name={name!r}, api=API_VERSION, settings=Settings)
"""


def test_settings_of_installed_plugins_can_be_had_without_importing_others(site: Site) -> None:
    site.install("pounce-gopher", "gopher", WITH_SETTINGS.format(name="gopher"))
    site.install("pounce-loud", "loud", "raise SystemExit('imported')")
    options = installed_options(lambda name: name == "gopher")
    assert [(item.name, item.default, item.ge) for item in options] == [("gopher.depth", 3, 0)]
    assert "pounce_loud_module" not in sys.modules


def test_plugin_that_cannot_be_used_has_no_settings(site: Site) -> None:
    site.install("pounce-loud", "loud", "raise SystemExit('imported')")
    assert installed_options(lambda name: name == "loud") == ()
