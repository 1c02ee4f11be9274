"""`pounce info`: what is here, for a report of a problem or a look at a strange machine."""

import importlib.util
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pounce.cpus import usable_cpus
from pounce.gil import gil_enabled
from pounce.observe.logs import escaped_line

__all__ = ["show_info"]

PACKAGES = ("pounce-core", "pounce-cli", "pounce-h1fast", "pounce-h2", "pounce-h3", "pounce-ws")
OPTIONAL = ("uvloop", "watchfiles", "qh3", "redis", "opentelemetry-sdk", "brotli", "setproctitle", "python-dotenv")
FRAMEWORKS = ("fastapi", "starlette", "litestar", "django", "quart", "flask", "blacksheep", "sanic")


def show_info(*, as_json: bool) -> None:
    """Print versions, Python, machine, and what is installed that the server can use. Imports none of it."""
    found = _found()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for title, rows in found.items():
        print(title)
        for name, value in rows.items():
            print(escaped_line(f"  {name:<20} {'-' if value is None else value}"))


def _found() -> dict[str, dict[str, Any]]:
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "free-threaded": "t" in sys.abiflags,
            "gil": "on" if gil_enabled() else "off",
        },
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "cpus to use": usable_cpus(),
        },
        "optional": {name: _version(name) for name in OPTIONAL},
        "frameworks": {name: _version(name) for name in FRAMEWORKS if importlib.util.find_spec(name) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
