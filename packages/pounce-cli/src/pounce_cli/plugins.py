"""`pounce plugins`: what is installed, what it brings, and why something is left out."""

import json
import sys
from typing import TYPE_CHECKING

from pounce.observe.logs import escaped_line
from pounce.plugin import API_VERSION, Plugin
from pounce.plugin_checks import fault_of

if TYPE_CHECKING:
    from pounce.registry import Loaded, Registry

__all__ = ["show_plugins"]


def show_plugins(registry: Registry, *, as_json: bool = False) -> None:
    """Print the plugins of `registry` on standard output, as a table or as JSON."""
    if as_json:
        contract = ".".join(map(str, API_VERSION))
        plugins = [_described(entry, registry) for entry in registry.loaded]
        print(json.dumps({"contract": contract, "plugins": plugins}, indent=2))
    else:
        _print_table(registry)


def _errors(entry: Loaded, registry: Registry) -> list[str]:
    """Why the server does not start with this plugin."""
    return [error.message for owner, error in registry.errors if owner is entry]


def _described(entry: Loaded, registry: Registry) -> dict[str, object]:
    plugin = entry.plugin
    return {
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "contract": ".".join(map(str, plugin.api)) if plugin is not None else None,
        "provides": _provided(plugin) if plugin is not None and fault_of(plugin) is None else {},
        "load_ms": round(entry.load_time * 1000, 2) if plugin is not None else None,
        "gil_enabled": entry.gil_enabled,
        "skipped": entry.skipped,
        "errors": _errors(entry, registry),
    }


def _provided(plugin: Plugin) -> dict[str, list[str]]:
    """What a plugin brings, by kind; kinds it brings none of are left out."""
    found = {
        "wires": [wire.name for wire in plugin.wires],
        "alpn": [protocol for wire in plugin.wires for protocol in wire.alpn],
        "datagrams": [datagram.name for datagram in plugin.datagrams],
        "upgrades": [upgrade.token.decode("ascii", "backslashreplace") for upgrade in plugin.upgrades],
        "switches": [switch.token.decode("ascii", "backslashreplace") for switch in plugin.switches],
        "parsers": [parser.name for parser in plugin.parsers],
        "responders": [responder.name for responder in plugin.responders],
        "observers": [observer.name for observer in plugin.observers],
        "middleware": [f"{each.name} ({each.where})" for each in plugin.middleware],
        "commands": [command.name for command in plugin.commands],
        "settings": [plugin.settings.__name__] if plugin.settings is not None else [],
    }
    return {kind: names for kind, names in found.items() if names}


def _print_table(registry: Registry) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "distribution", "version", "contract", "provides", "load", box=box.SIMPLE_HEAD)
    for entry in registry.loaded:
        plugin = entry.plugin
        contract, load = "", ""
        if plugin is None:
            lines = [f"skipped: {entry.skipped}"]
        else:
            provided = _provided(plugin) if fault_of(plugin) is None else {}
            lines = [f"{kind}: {', '.join(names)}" for kind, names in provided.items()]
            lines += [f"ERROR: {error}" for error in _errors(entry, registry)]
            contract, load = ".".join(map(str, plugin.api)), f"{entry.load_time * 1000:.1f} ms"
        if entry.gil_enabled:
            lines.append("switches the GIL on")
        # Who wrote the plugin chose the names, and the reasons are what its code raised.
        name, distribution, version = map(escaped_line, (entry.name, entry.distribution, entry.version))
        table.add_row(name, distribution, version, contract, "\n".join(map(escaped_line, lines)), load)
    # A pipe has no width: nothing may be cut off there.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)
