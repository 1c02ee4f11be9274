"""`pounce init --plugin NAME`: the folder of a plugin that works, with a test, to begin with."""

import re
from pathlib import Path

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION
from pounce_cli import plugin_kinds

__all__ = ["KINDS", "init_plugin"]

PYPROJECT = """\
[project]
name = "pounce-{name}"
version = "0.1.0"
description = "{name} for pounce"
readme = "README.md"
requires-python = ">=3.14"
dependencies = ["pounce-core>=0.1,<0.2"]

[project.entry-points."pounce.plugins"]
{name} = "{module}:plugin"

[dependency-groups]
dev = ["mypy", "pytest"]

[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"

[tool.mypy]
strict = true
files = ["src"]
"""

README = """\
# pounce-{name}

A plugin of pounce, written for version {major}.{minor} of its contract.

    pip install -e .
    pounce plugins
    pytest
"""

WIRE = '''\
"""{name}, a protocol: one line in, an answer out, and the connection ends."""

from pounce.plugin import BadRequest, Headers, Plugin, RequestConnection, RequestHead, Service, Wire


class {class_}Connection(RequestConnection):
    """A connection, which carries one request."""

    def read_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        line, end, rest = data.partition(b"\\n")
        if not end:
            return None
        path = line.strip()
        if not path.startswith(b"/") or not path.isascii() or b" " in path:
            raise BadRequest("This is no path")
        return RequestHead(b"GET", path, [], "1.0"), rest

    def encode_head(self, status: int, headers: Headers) -> bytes:
        return b"%d\\n" % status


def connect(service: Service) -> {class_}Connection:
    return {class_}Connection(service, "{name}")


plugin = Plugin(name="{name}", api=({major}, {minor}), wires=(Wire(name="{name}", connect=connect),))
'''
WIRE_TEST = '''\
from pounce.testing import check_wire

from {module} import plugin


def test_the_wire_keeps_the_contract() -> None:
    check_wire(plugin.wires[0], [b"/\\n", b"/a?b=c\\n"])
'''

RESPONDER = '''\
"""{name}: something that the server answers itself, before the application."""

from collections.abc import Callable

from pounce.plugin import Plugin, RequestHead, Responder, Response, Service


def create(service: Service) -> Callable[[RequestHead], Response | None]:
    def respond(head: RequestHead) -> Response | None:
        if head.target != b"/{name}":
            return None
        return Response(200, [(b"content-type", b"text/plain")], b"{name}")

    return respond


plugin = Plugin(name="{name}", api=({major}, {minor}), responders=(Responder(name="{name}", create=create),))
'''
MIDDLEWARE = '''\
"""{name}: something that wraps the application."""

from typing import Any

from pounce.plugin import ASGIApp, MiddlewareChoice, Plugin, Service


def create(service: Service, app: ASGIApp) -> ASGIApp:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {{**message, "headers": [*message.get("headers", ()), (b"x-{name}", b"{name}")]}}
            await send(message)

        await app(scope, receive, send_marked if scope["type"] == "http" else send)

    return wrapped


plugin = Plugin(name="{name}", api=({major}, {minor}), middleware=(MiddlewareChoice(name="{name}", create=create),))
'''
OBSERVER = '''\
"""{name}: something that sees every request once it is over, with a setting."""

from dataclasses import dataclass
from time import monotonic

from pounce.plugin import Completed, ObserverFactory, Plugin, Service, option


@dataclass(frozen=True)
class Settings:
    seconds: float = option(1.0, "Time from which a request is slow.", unit="seconds", ge=0)


class Observer:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._limit: float = service.settings["{name}"].seconds

    def completed(self, exchange: Completed) -> None:
        taken = monotonic() - exchange.started
        if taken >= self._limit:
            self._service.count("{name}", "{name}: %r took %.1f s", exchange.head.target, taken)


plugin = Plugin(
    name="{name}",
    api=({major}, {minor}),
    settings=Settings,
    observers=(ObserverFactory(name="{name}", create=Observer),),
)
'''
TEST = '''\
from typing import Any
from urllib.request import urlopen

from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import TestServer

from {module} import plugin


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"of the application"}})


def test_it_is_there() -> None:
    with TestServer(app, registry=Registry.of(h1, plugin)) as server, urlopen(f"{{server.url}}/{path}") as answer:
        assert {expected}
'''

KINDS = ("wire", "datagram", "upgrade", "switch", "parser", "responder", "middleware", "observer", "command")
SOURCES = plugin_kinds.SOURCES | {
    "wire": WIRE, "responder": RESPONDER, "middleware": MIDDLEWARE, "observer": OBSERVER,
}  # fmt: skip
EXPECTED = {
    "responder": ("{name}", 'answer.read() == b"{name}"'),
    "middleware": ("", 'answer.headers["x-{name}"] == "{name}"'),
    "observer": ("", 'answer.read() == b"of the application"'),
}


def init_plugin(name: str, kind: str, folder: Path) -> Path:
    """Make the folder `pounce-NAME` in `folder`, and return it. Raises `ConfigError`."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"the name of a plugin has small letters, digits and hyphens (got {name!r})", hint="For example: gopher."
        )
    root = folder / f"pounce-{name}"
    if root.exists():
        raise ConfigError(f"{root} is there already", hint="Choose another name, or remove it.")
    module = f"pounce_{name.replace('-', '_')}"
    class_ = "".join(part.capitalize() for part in name.split("-"))
    values = {"name": name, "module": module, "class_": class_, "major": API_VERSION[0], "minor": API_VERSION[1]}
    test = plugin_kinds.TESTS.get(kind, WIRE_TEST)
    if kind in EXPECTED:
        path, expected = (text.format(**values) for text in EXPECTED[kind])
        values |= {"path": path, "expected": expected}
        test = TEST
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"src/{module}/__init__.py": SOURCES[kind],
        f"tests/test_{module}.py": test,
    }
    files |= {place.format(**values): text for place, text in plugin_kinds.FILES.get(kind, {}).items()}
    for place, text in files.items():
        path_to = root / place
        path_to.parent.mkdir(parents=True, exist_ok=True)
        path_to.write_text(text.format(**values), encoding="utf-8")
    (root / f"src/{module}/py.typed").touch()
    return root
