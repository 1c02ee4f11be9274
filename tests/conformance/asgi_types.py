"""Types: wherever ASGI says bytes, str or int, a subclass is as good, and for bytes whatever holds some.

Frameworks give their own kinds of text, statuses and codes; what leaves is what a plain value would have made.
"""

import asyncio
import enum
from collections import UserDict
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from tests.conformance.asgi_receive import Script
from tests.conformance.asgi_send import Send
from tests.conformance.wires import Wire

from pounce import LifespanError


class Bytes(bytes):
    """As frameworks have them, with a mind of its own."""

    def __bytes__(self) -> bytes:
        return b"something else"

    def __str__(self) -> str:
        return "something else"

    def strip(self, *args: Any) -> bytes:
        return b"something else"

    def lower(self) -> bytes:
        return b"something-else"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def encode(self, *args: Any) -> bytes:
        return b"something else"


class Number(int):
    def __str__(self) -> str:
        return "something else"

    def __bytes__(self) -> bytes:
        return b"something else"


class Kind(enum.StrEnum):
    START = "http.response.start"
    BODY = "http.response.body"


class Pair(NamedTuple):
    name: Any
    value: Any


def hold(kind: Callable[[bytearray], Any]) -> Callable[[bytes], Any]:
    return lambda data: kind(bytearray(data))


def every_second(data: bytes) -> memoryview:
    return memoryview(b"".join(data[at : at + 1] + b"-" for at in range(len(data))))[::2]


HOLD_BYTES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "subclass": Bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memoryview-that-may-change": hold(memoryview),
    "memoryview-of-what-may-change": hold(lambda data: memoryview(data).toreadonly()),
    "memoryview-with-gaps": every_second,
}
MAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict,
    "subclass": lambda message: type("Message", (dict,), {})(message),
    "proxy": MappingProxyType,
    "mapping": UserDict,
}


def body(data: Any, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def start(headers: Any = (), status: Any = 200, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


# Bytes


@pytest.fixture(params=HOLD_BYTES.values(), ids=HOLD_BYTES)
def of(request: pytest.FixtureRequest) -> Callable[[bytes], Any]:
    """Makes what holds some bytes."""
    made: Callable[[bytes], Any] = request.param
    return made


def test_bodies_are_whatever_holds_bytes(wire: Wire, of: Callable[[bytes], Any]) -> None:
    response = wire.share(Send(start(), body(of(b"one"), True), body(of(b"two")))).request("GET", "/")
    assert (response.body, response.complete) == (b"onetwo", True)


def test_fields_are_whatever_holds_bytes(wire: Wire, of: Callable[[bytes], Any]) -> None:
    fields = [(of(b"X-Mine"), of(b" value ")), Pair(of(b"content-length"), of(b"2")), [of(b"set-cookie"), of(b"a=1")]]
    with wire.share(Send(start(fields), body(b"ok"))).connect() as client:
        # The second time they may come out of a table.
        for _ in range(2):
            response = client.request("GET", "/")
            assert (response.status, response.body) == (200, b"ok")
            assert response.headers[b"x-mine"] == b"value"
            assert response.headers.all(b"content-length") == [b"2"]
            assert response.headers[b"set-cookie"] == b"a=1"


def test_trailers_are_whatever_holds_bytes(wire: Wire, of: Callable[[bytes], Any]) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(of(b"X-Sum"), of(b"1"))]}
    response = wire.share(Send(start(trailers=True), body(b"data"), trailers)).request("GET", "/")
    assert (response.trailers, response.complete) == ([(b"x-sum", b"1")], True)


def test_hints_are_whatever_holds_bytes(wire: Wire, of: Callable[[bytes], Any]) -> None:
    hint = {"type": "http.response.early_hint", "links": [of(b"</a>"), of(b"</b>")]}
    response = wire.share(Send(hint, start(), body(b""))).request("GET", "/")
    assert [head.headers.all(b"link") for head in response.informational] == [[b"</a>", b"</b>"]]


def test_interim_answers_are_whatever_holds_bytes(wire: Wire, of: Callable[[bytes], Any]) -> None:
    app = Send(start([(of(b"x-a"), of(b"1"))], Number(103)), start(), body(b""))
    response = wire.share(app).request("GET", "/")
    assert [(head.status, head.headers[b"x-a"]) for head in response.informational] == [(103, b"1")]


def test_what_is_changed_after_it_was_sent_leaves_as_it_was(wire: Wire) -> None:
    class Changes(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            name, value, data = bytearray(b"x-a"), bytearray(b"before"), bytearray(b"before")
            fields = [(memoryview(name).toreadonly(), memoryview(value).toreadonly())]
            await send(start(fields))
            name[:], value[:] = b"x-b", b"AFTER!"
            await send(body(data, True))
            data[:] = b"AFTER!"
            await send(body(b""))

    with wire.share(Changes()).connect() as client:
        for _ in range(3):
            response = client.request("GET", "/")
            assert (response.headers[b"x-a"], response.body) == (b"before", b"before")
            assert b"x-b" not in response.headers


# Numbers


@pytest.mark.parametrize("status", [HTTPStatus.CREATED, Number(201)], ids=["IntEnum", "subclass"])
def test_statuses_may_be_members_of_an_enum(wire: Wire, status: Any) -> None:
    response = wire.share(Send(start(status=status), body(b"made"))).request("GET", "/")
    assert (response.status, response.body, response.complete) == (201, b"made", True)


@pytest.mark.parametrize("status", [HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED], ids=str)
def test_statuses_without_a_body_are_known_as_members_of_an_enum(wire: Wire, status: HTTPStatus) -> None:
    with wire.share(Send(start(status=status), body(b"not wanted"))).connect() as client:
        for _ in range(2):
            response = client.request("GET", "/")
            assert (response.status, response.body, response.complete) == (status, b"", True)


def test_parts_of_files_are_given_by_any_number(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")

    class Part(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(start())
            with path.open("rb") as file:
                part = {"file": Number(file.fileno()), "offset": Number(2), "count": Number(3)}
                await send({"type": "http.response.zerocopysend", **part})

    assert wire.share(Part()).request("GET", "/").body == b"234"


def test_files_are_named_by_any_text_or_path(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    for name in (Text(path), path):
        app = Send(start(), {"type": "http.response.pathsend", "path": name})
        assert wire.share(app).request("GET", "/").body == b"0123456789"


# Messages


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
def test_messages_are_any_mapping_with_any_text_for_a_type(wire: Wire, mapping: Callable[..., Any]) -> None:
    app = Send(mapping(start() | {"type": Kind.START}), mapping(body(b"data") | {"type": Kind.BODY}))
    assert wire.share(app).request("GET", "/").body == b"data"


@pytest.mark.parametrize("kind", ["complete", "failed"])
def test_messages_of_the_lifespan_are_as_free(wire: Wire, kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send(UserDict({"type": Text(f"lifespan.startup.{kind}"), "message": Text("a reason")}))
            await receive()
            await send(MappingProxyType({"type": Text("lifespan.shutdown.complete")}))
            return
        await send(start())
        await send(body(b"served"))

    if kind == "complete":
        assert wire.start(app).request("GET", "/").body == b"served"
    else:
        with pytest.raises(LifespanError, match="a reason"):
            wire.start(app)


# What is neither


@pytest.mark.parametrize("value", ["text", 5, None, [98], asyncio.Lock(), True], ids=lambda item: type(item).__name__)
def test_what_holds_no_bytes_is_refused_as_before(wire: Wire, value: Any) -> None:
    for app in (Send(start(), body(value)), Send(start([(b"x-a", value)]), body(b"")), Send(start([(value, b"1")]))):
        response = wire.share(app).request("GET", "/")
        assert (response.status, response.complete) == (500, True)
