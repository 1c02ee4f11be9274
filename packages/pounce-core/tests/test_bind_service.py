"""The service of a worker as the connections of a bind see it that has settings of its own."""

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pounce
from pounce.exchange.bind_service import CHANGING, BindService
from pounce.exchange.service import Service
from pounce.exchange.waiting import Verdict, WaitingExchange
from pounce.net.bind import parse_bind
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce_h2.plugin import plugin as h2

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def bound(service: Service, **settings: Any) -> BindService:
    return BindService(
        service, replace(service.config, **settings), service.settings, service.create_parser, identity=None
    )


def test_what_happens_on_it_happens_to_the_worker() -> None:
    async def check() -> None:
        service = memory_service(app)
        connection = MemoryConnection(service=bound(service, header_timeout=3.0))
        assert service.connections == {connection.protocol}
        connection.feed(REQUEST)
        assert service.requests == 1
        service.draining = True
        connection.feed(REQUEST)
        await connection.until_read()
        assert b"connection: close" in connection.received.lower()

    asyncio.run(check())


def targets(tree: ast.AST, owners: tuple[str, ...]) -> Iterator[str]:
    """Attributes that something is assigned to, of what has one of these names."""
    for node in ast.walk(tree):
        found = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in found:
            if isinstance(target, ast.Attribute):
                owner = target.value
                if getattr(owner, "id", getattr(owner, "attr", "")) in owners:
                    yield target.attr


def test_all_that_changes_of_a_service_is_asked_of_the_worker() -> None:
    source = Path(pounce.__file__).parent
    found = {
        name
        for path in (*source.rglob("*.py"), *source.parents[2].glob("pounce-*/src/**/*.py"))
        if source / "testing" not in path.parents
        for name in targets(ast.parse(path.read_text()), ("service", "_service"))
    }
    methods = ast.parse(textwrap.dedent(inspect.getsource(Service))).body[0]
    assert isinstance(methods, ast.ClassDef)
    for method in methods.body:
        # `end()` is called for each of them.
        if getattr(method, "name", "") not in ("__init__", "_take_settings", "end"):
            found.update(targets(method, ("self",)))
    assert found - CHANGING == set(), "each of these belongs into CHANGING, or is made in __init__ once"


def test_time_for_a_head_and_between_requests_are_the_binds() -> None:
    async def check() -> None:
        service = memory_service(app, header_timeout=1000.0, keep_alive_timeout=1000.0)
        connection = MemoryConnection(service=bound(service, header_timeout=3.0, keep_alive_timeout=7.0))
        now = service.loop.time()
        assert connection.protocol.deadline - now <= 3.0
        connection.feed(REQUEST)
        await connection.until_read()
        assert 3.0 < connection.protocol.deadline - now < 500.0

    asyncio.run(check())


def test_time_for_an_answer_and_what_must_be_taken_in_it_are_the_binds() -> None:
    async def check() -> None:
        service = memory_service(app)
        own = bound(service, write_timeout=2.0, min_write_rate=100)
        assert (own.least_taken, service.least_taken) == (200, 7200)

    asyncio.run(check())


def test_request_that_had_to_wait_is_of_its_bind_all_the_same() -> None:
    async def tells(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})

    async def check() -> None:
        promise: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        waits = lambda service: lambda head, stream: WaitingExchange(service, head, stream, promise)  # noqa: E731
        service = memory_service(tells, admission=(waits,))
        connection = MemoryConnection(service=bound(service, root_path="/bind"))
        connection.feed(REQUEST)
        promise.set_result(None)
        await connection.wait_until(lambda: b"/bind" in connection.received)

    asyncio.run(check())


def test_a_built_in_wire_that_is_named_alone_has_settings_of_its_plugin() -> None:
    registry = Registry.of(h2)

    async def check() -> None:
        service = memory_service(app, registry)
        config = registry.config_of(parse_bind("127.0.0.1:1?wire=h2&stream_window=64KiB&max_headers=9"), service.config)
        settings = registry.settings(config.plugin_settings)
        own = BindService(service, config, settings, None, identity=None)
        connection = MemoryConnection(service=own, wire=h2.wires[0])
        await connection.wait_until(lambda: bool(connection.received))
        # SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 6.5.2)
        assert b"\x00\x04" + (65536).to_bytes(4) in connection.received
        assert config.max_headers == 9

    asyncio.run(check())
