"""Registry: the plugins that are installed, checked against each other, and looked up by what they provide."""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from pounce.config import ServerConfig, setting_of_bind
from pounce.errors import ConfigError, PluginError
from pounce.gil import gil_enabled
from pounce.net.sniff import WireTable
from pounce.options import Option, options_of, parse_option, unknown_setting
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
from pounce.plugin_checks import Blaming, blaming, fault_of
from pounce.spelling import did_you_mean

if TYPE_CHECKING:
    from pounce.net.bind import Bind

__all__ = ["BUILT_IN_COMMANDS", "GROUP", "Loaded", "Registry", "installed_options"]

GROUP = "pounce.plugins"
CORE = "pounce-core"
HTTP2 = "h2"
"""The plugin that `http2_enabled` is about."""
NO_PLUGIN = Plugin(name="", api=API_VERSION)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of one entry point: `plugin`, or the reason why it was `skipped`."""

    name: str
    distribution: str
    version: str
    plugin: Plugin | None = None
    load_time: float = 0.0
    """Seconds that importing it took."""
    skipped: str | None = None
    gil_enabled: bool = False
    """Importing it switched the GIL on."""


BUILT_IN_COMMANDS = (
    *("serve", "config", "plugins", "init", "status", "top", "workers", "reload", "stop"),
    *("check", "doctor", "bench", "info", "run", "migrate", "completion"),
)
"""Those of pounce itself, which no plugin may take the name of."""


class Registry:
    """The plugins a server uses; read-only once made.

    Raises `PluginError` when a plugin has fields of another shape than the contract says, and when two of them claim
    the same name, ALPN id, preface, token, parser or command. With `lenient` it keeps all such errors in `errors`, for
    whoever shows what is installed; of what is claimed twice the first one counts.
    """

    def __init__(self, loaded: Iterable[Loaded], *, lenient: bool = False) -> None:
        self.loaded = tuple(loaded)
        self.errors: list[tuple[Loaded, PluginError]] = []
        self._lenient = lenient
        self._owners: dict[tuple[str, object], Loaded] = {}
        self.wires: dict[str, Wire] = {}
        self.datagrams: dict[str, DatagramWire] = {}
        self.upgrades: dict[bytes, Upgrade] = {}
        self.switches: dict[bytes, Switch] = {}
        self.parsers: dict[str, ParserChoice] = {}
        self.responders: tuple[Responder, ...] = ()
        self.observers: tuple[ObserverFactory, ...] = ()
        self.middleware: tuple[MiddlewareChoice, ...] = ()
        self.commands: dict[str, Command] = {}
        self._settings: dict[str, type] = {}
        self._by_alpn: dict[str, Wire] = {}
        self._by_preface: dict[bytes, Wire] = {}
        self._by_rule: tuple[tuple[Preface, Wire], ...] = ()
        for entry in self.loaded:
            if entry.plugin is not None:
                self._add(entry, entry.plugin)

    @classmethod
    def discover(cls, config: ServerConfig, *, lenient: bool = False) -> Registry:
        """Import what is installed under the entry-point group, as far as the configuration wants it.

        One that cannot be used is skipped with a reason, unless `only_plugins` names it; then it is an error.
        """
        found = sorted(_installed(), key=lambda item: (item.distribution != CORE, item.entry.name))
        loaded = [_load(item, config) for item in found]
        known = {entry.name for entry in loaded}
        for name in (*config.only_plugins, *config.disable_plugin):
            if name not in known:
                raise PluginError(
                    f"no plugin named {name!r} is installed", hint=f"Installed: {', '.join(sorted(known)) or 'none'}."
                )
        for entry in loaded:
            if entry.skipped and entry.name in config.only_plugins:
                raise PluginError(f"plugin {entry.name} cannot be used: {entry.skipped}")
        return cls(loaded, lenient=lenient)

    @classmethod
    def of(cls, *plugins: Plugin) -> Registry:
        """A registry of plugins at hand, for tests and embedding."""
        return cls(Loaded(plugin.name, "-", "-", plugin) for plugin in plugins)

    @property
    def packages(self) -> set[str]:
        """The import packages that the plugins are from."""
        calls: list[Callable[..., Any]] = [each.connect for each in self.wires.values()]
        calls += [each.connect for each in self.datagrams.values()]
        calls += [each.open for each in self.upgrades.values()]
        calls += [each.create for each in self.parsers.values()]
        calls += [each.create for each in self.responders]
        calls += [each.create for each in self.observers]
        calls += [each.create for each in self.middleware]
        return {call.__module__.partition(".")[0] for call in calls}

    def _add(self, entry: Loaded, plugin: Plugin) -> None:
        fault = fault_of(plugin)
        if fault is not None:
            self._error(entry, PluginError(f"plugin {entry.name} ({entry.distribution}) is not well made: {fault}"))
            return
        self._claim("entry point", entry.name, entry)
        self._claim("plugin", plugin.name, entry)
        for wire in plugin.wires:
            if self._claim("wire", wire.name, entry):
                self.wires[wire.name] = wire
            for protocol in wire.alpn:
                if self._claim("ALPN id", protocol, entry):
                    self._by_alpn[protocol] = wire
            if isinstance(wire.preface, Preface):
                self._by_rule += ((wire.preface, wire),)
            elif wire.preface is not None:
                for other in self._by_preface:
                    if other.startswith(wire.preface) or wire.preface.startswith(other):
                        self._claim("preface", other, entry)
                if self._claim("preface", wire.preface, entry):
                    self._by_preface[wire.preface] = wire
        for datagram in plugin.datagrams:
            if self._claim("datagram wire", datagram.name, entry):
                connect = Blaming(plugin.name, f"the datagram wire {datagram.name}", datagram.connect)
                self.datagrams[datagram.name] = replace(datagram, connect=connect)
        for upgrade in plugin.upgrades:
            if self._claim("upgrade token", upgrade.token, entry):
                self.upgrades[upgrade.token] = upgrade
        for switch in plugin.switches:
            if self._claim("upgrade token", switch.token, entry):
                self.switches[switch.token] = switch
        for parser in plugin.parsers:
            if self._claim("parser", parser.name, entry):
                self.parsers[parser.name] = parser
        for command in plugin.commands:
            if command.name in BUILT_IN_COMMANDS:
                self._error(entry, _conflict(f"command {command.name!r}", "pounce itself", _named(entry), [entry.name]))
            elif self._claim("command", command.name, entry):
                self.commands[command.name] = command
        self.responders += blaming(plugin.name, "responder", plugin.responders)
        self.observers += blaming(plugin.name, "observer", plugin.observers)
        self.middleware += blaming(plugin.name, "middleware", plugin.middleware)
        if plugin.settings is not None:
            self._settings.setdefault(plugin.name, plugin.settings)

    def _claim(self, kind: str, what: object, entry: Loaded) -> bool:
        """Note whose it is; False where it is another's, which is kept as an error if it is not raised."""
        owner = self._owners.setdefault((kind, what), entry)
        if owner is not entry:
            shown = what.decode("ascii", "backslashreplace") if isinstance(what, bytes) else what
            names = list(dict.fromkeys((entry.name, owner.name)))
            self._error(entry, _conflict(f"{kind} {shown!r}", _named(owner), _named(entry), names))
        return owner is entry

    def _error(self, entry: Loaded, error: PluginError) -> None:
        if not self._lenient:
            raise error
        self.errors.append((entry, error))

    def wire_table(self, names: Sequence[str] = ()) -> WireTable:
        """What a connection's wire is chosen from: all there are, or those that its bind names.

        Raises `PluginError` without an HTTP/1.1 wire, `ConfigError` for a name that is none and for names that are all
        of wires over datagrams.
        """
        if "h1" not in self.wires:
            raise PluginError("there is no HTTP/1.1 wire", hint="pounce-core brings one; do not disable plugin h1.")
        http1 = self.wires["h1"]
        if not names:
            return WireTable(http1, self._by_alpn, self._by_preface, by_rule=self._by_rule)
        wires = [self.wire_named(name) for name in names if name not in self.datagrams]
        if not wires:
            raise ConfigError(
                f"bind names no wire but {', '.join(names)}, which is spoken over UDP",
                hint="Name what is spoken over TCP as well, for example wire=h1, or name none.",
            )
        # The last one named that needs nothing to be known by, where HTTP/1.1 is none of them.
        unmarked = [wire for wire in wires if not wire.alpn and wire.preface is None]
        default = http1 if http1 in wires else (unmarked or wires)[-1]
        return WireTable(
            default,
            {protocol: wire for protocol, wire in self._by_alpn.items() if wire in wires},
            {preface: wire for preface, wire in self._by_preface.items() if wire in wires},
            needs_alpn=default is not http1 and bool(default.alpn),
            by_rule=tuple((rule, wire) for rule, wire in self._by_rule if wire in wires),
        )

    def wire_named(self, name: str) -> Wire:
        """The wire that a bind asks for. Raises `ConfigError`."""
        wire = self.wires.get(name)
        if wire is None:
            installed = ", ".join((*self.wires, *self.datagrams))
            raise ConfigError(f"bind names the wire {name!r}, which is not installed", hint=f"Installed: {installed}.")
        return wire

    def datagram_wire(self, name: str) -> DatagramWire:
        """What is spoken on a bind that is a port of UDP. Raises `ConfigError`."""
        wire = self.datagrams.get(name)
        if wire is None:
            installed = ", ".join(self.datagrams) or "none"
            raise ConfigError(
                f"bind names the wire {name!r} over UDP, which is not installed", hint=f"Installed: {installed}."
            )
        return wire

    def config_of(self, bind: Bind, config: ServerConfig) -> ServerConfig:
        """The settings of a server as one of its binds has them. Raises `ConfigError`.

        Where the bind names one wire alone, a name that the wire's plugin has among its settings is that one, also
        where the server has one of the same name.
        """
        if not bind.settings and not bind.trusted_hosts:
            return config
        plugin = self._plugin_of(bind)
        known = {item.field: item for item in options_of(plugin.settings, plugin.name)} if plugin.settings else {}
        own: dict[str, Any] = {"trusted_hosts": bind.trusted_hosts} if bind.trusted_hosts else {}
        table = dict(config.plugin_settings.get(plugin.name, {}))
        try:
            for name, text in bind.settings:
                if name in known:
                    table[name] = parse_option(known[name], text)
                else:
                    item = setting_of_bind(name, known)
                    if item.name in own:
                        raise ConfigError(f"{item.name} is given twice")
                    own[item.name] = parse_option(item, text)
            if own.get("ssl_cert_reqs") and bind.wires and "h3" not in bind.wires:
                # Nobody gets past that by HTTP/3 here.
                own["http3_enabled"] = False
            if table:
                own["plugin_settings"] = {**config.plugin_settings, plugin.name: table}
            config = replace(config, **own)
            self.settings(config.plugin_settings)
        except ConfigError as exc:
            raise ConfigError(f"bind {bind.place}: {exc.message}", code=exc.code, hint=exc.hint) from exc
        return config

    def _plugin_of(self, bind: Bind) -> Plugin:
        """That of the wire which a bind names alone; one without anything where it does not."""
        kind = "datagram wire" if bind.datagrams else "wire"
        entry = self._owners.get((kind, bind.wires[0])) if len(bind.wires) == 1 else None
        return (entry.plugin if entry is not None else None) or NO_PLUGIN

    def parser(self, name: str) -> ParserChoice:
        """The HTTP/1.1 parser of that name, for `auto` the one of highest priority. Raises `ConfigError`."""
        if name == "auto" and self.parsers:
            return max(self.parsers.values(), key=lambda choice: choice.priority)
        if name not in self.parsers:
            raise ConfigError(
                f"http_parser must be auto or one of {', '.join(self.parsers)} (got {name!r})",
                hint=_parser_hint(name, self.parsers),
            )
        return self.parsers[name]

    def settings(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """An instance of every plugin's settings, from the tables in the configuration. Raises `ConfigError`.

        The table of a plugin that is installed and left out is left out as well.
        """
        left_out = {entry.name for entry in self.loaded if entry.plugin is None}
        for name in given:
            if name not in self._settings and name not in left_out:
                raise ConfigError(
                    f"plugin_settings has a table for {name!r}, which is not a plugin with settings",
                    hint=f"Plugins with settings: {', '.join(self._settings) or 'none'}.",
                )
        return {name: _settings_of(name, cls, given.get(name, {})) for name, cls in self._settings.items()}


def _named(entry: Loaded) -> str:
    return f"{entry.name} ({entry.distribution})"


def _conflict(what: str, owner: str, other: str, names: Sequence[str]) -> PluginError:
    hint = f"Leave one out: {' or '.join(f'disable_plugin {name}' for name in names)}."
    if len(names) == 1:
        hint = f"Leave it out: disable_plugin {names[0]}."
        if owner != "pounce itself":
            hint = "disable_plugin goes by this name and leaves out both: uninstall one of them."
    return PluginError(f"{what} is claimed by {owner} and {other}", code="POUNCE_PLUGIN_CONFLICT", hint=hint)


OWN_PARSERS = {"h1fast": "pounce-h1fast"}
"""Parsers of packages of this project. What to install is never made of what somebody wrote: a package of that name
would be anybody's."""


def _parser_hint(name: str, parsers: Iterable[str]) -> str:
    if name in OWN_PARSERS:
        return f"pip install {OWN_PARSERS[name]}"
    return did_you_mean(name, (*parsers, *OWN_PARSERS)) or (
        "It reads HTTP/1.1; the fast one is h1fast, of pounce-h1fast. Other protocols need no choice of a parser."
    )


def installed_options(wanted: Callable[[str], bool]) -> tuple[Option, ...]:
    """The settings of installed plugins whose name is wanted; only these plugins are imported.

    Those that cannot be used have none. The name is that of the entry point.
    """
    found = sorted(_installed(), key=lambda item: item.entry.name)
    plugins = [_load(item, ServerConfig()).plugin for item in found if wanted(item.entry.name)]
    return tuple(
        item for plugin in plugins if plugin and plugin.settings for item in options_of(plugin.settings, plugin.name)
    )


def _settings_of(name: str, cls: type, table: Mapping[str, Any]) -> Any:
    known = {item.field: item for item in options_of(cls, name)}
    for key in table:
        if key not in known:
            raise unknown_setting(f"{name}.{key}", [item.name for item in known.values()])
    values = {key: known[key].checked(value) for key, value in table.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as exc:
        if isinstance(exc, ConfigError):
            raise
        raise ConfigError(f"settings of {name} are not valid: {exc}") from exc


class _Installed(NamedTuple):
    """An entry point and the distribution that has it."""

    entry: EntryPoint
    distribution: str
    version: str


def _installed() -> tuple[_Installed, ...]:
    """What is installed under the group.

    To find it, a file of every installed distribution is read, which takes longer than all else of a start. It is read
    again when the path for imports is another one or one of its folders has changed, as it does when something is
    installed or removed: what is the same then is what reading it anew would bring.
    """
    return _read_installed(tuple((folder, _changed(folder)) for folder in sys.path))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=1)
def _read_installed(folders: tuple[tuple[str, int], ...]) -> tuple[_Installed, ...]:
    return tuple(
        _Installed(entry, entry.dist.name, entry.dist.version) if entry.dist else _Installed(entry, "unknown", "0")
        for entry in entry_points(group=GROUP)
    )


def _load(item: _Installed, config: ServerConfig) -> Loaded:
    entry, distribution, version = item

    def skipped(why: str) -> Loaded:
        return Loaded(entry.name, distribution, version, skipped=why)

    if entry.name in config.disable_plugin:
        return skipped("disabled by disable_plugin")
    if entry.name == HTTP2 and not config.http2_enabled:
        return skipped("disabled by http2_enabled")
    if distribution != CORE:
        if not config.plugins:
            return skipped("plugins are off")
        if config.only_plugins and entry.name not in config.only_plugins:
            return skipped("not among only_plugins")
    had_gil = gil_enabled()
    started = time.perf_counter()
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a stranger's module raises, do without it
        return skipped(f"import failed: {type(exc).__name__}: {exc}")
    if not isinstance(plugin, Plugin):
        return skipped(f"{entry.value} is not a pounce.plugin.Plugin")
    match plugin.api:
        case (int(major), int(minor)):
            if major != API_VERSION[0] or minor > API_VERSION[1]:
                return skipped(f"made for contract {major}.{minor}, this is {API_VERSION[0]}.{API_VERSION[1]}")
        case _:
            return skipped(f"its contract version is {plugin.api!r}, not two numbers")
    return Loaded(
        entry.name,
        distribution,
        version,
        plugin,
        load_time=time.perf_counter() - started,
        gil_enabled=gil_enabled() and not had_gil,
    )
