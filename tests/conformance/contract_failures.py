"""A method of a stream that raises is its wire's fault: it is logged under the wire's name, the client sees that its
answer is broken, the application is told that its client is gone, and nobody else notices. Over every wire."""

import queue
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, Wire, answer, read_body

from pounce import ClientGone

METHODS = ["start", "write", "inform", "trailers", "consumed"]


class Failing:
    """A stream of which some methods raise."""

    def __init__(self, stream: Any, methods: tuple[str, ...]) -> None:
        self.stream = stream
        self.methods = methods

    def __getattr__(self, name: str) -> Any:
        if name in self.methods:
            return self._fail
        return getattr(self.stream, name)

    def _fail(self, *args: object) -> None:
        raise ValueError("the wire is broken")


class FailingApp:
    """Has the stream fail in the methods that the path names, and notes what it hears of it."""

    def __init__(self) -> None:
        self.heard: queue.Queue[str] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await answer(send, b"well")
            return
        methods = tuple(scope["path"].strip("/").split("/"))
        exchange = receive.__self__
        exchange.stream = Failing(exchange.stream, methods)
        try:
            await read_body(receive)
            if "inform" in methods:
                await send({"type": "http.response.early_hint", "links": [b"</a>"]})
            await send({"type": "http.response.start", "status": 200, "trailers": "trailers" in methods})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await send({"type": "http.response.body", "body": b"and ended"})
            await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})
        except ClientGone:
            self.heard.put("ClientGone")
            raise
        except ConnectionError as exc:
            self.heard.put(str(exc))


@pytest.fixture
def app() -> FailingApp:
    return FailingApp()


@pytest.fixture
def server(wire: Wire, app: FailingApp) -> Started:
    return wire.share(app)


def named(wire: Wire) -> str:
    return wire.case.wire.partition("-")[0]


def test_a_stream_that_raises_breaks_its_answer_and_blames_its_wire(
    wire: Wire, server: Started, app: FailingApp, caplog: pytest.LogCaptureFixture
) -> None:
    for method in METHODS:
        caplog.clear()
        told = server.request("POST", f"/{method}", body=b"hello")
        heard = app.heard.get(timeout=PATIENCE)
        assert (method, told.complete) == (method, False)
        assert (method, heard) == (method, "http.disconnect" if method == "consumed" else "ClientGone")
        failures = [record for record in caplog.records if record.levelname == "ERROR"]
        assert [record.getMessage() for record in failures] == [f"Plugin {named(wire)} failed on a request"]
        assert str(failures[0].exc_info[1]) == "the wire is broken"  # type: ignore[index]
    assert server.request("GET", "/").body == b"well"


def test_a_stream_that_cannot_be_reset_costs_its_connection(
    wire: Wire, server: Started, app: FailingApp, caplog: pytest.LogCaptureFixture
) -> None:
    for method in METHODS:
        caplog.clear()
        told = server.request("POST", f"/{method}/reset", body=b"hello")
        app.heard.get(timeout=PATIENCE)
        assert (method, told.complete) == (method, False)
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
            f"Plugin {named(wire)} failed on a request",
            f"Plugin {named(wire)} failed on a connection",
        ]
    assert server.request("GET", "/").body == b"well"


def test_other_streams_of_the_connection_go_on(wire: Wire, server: Started, app: FailingApp) -> None:
    if named(wire) == "h1":
        pytest.skip("a connection of HTTP/1.1 has one stream at a time")
    with server.connect() as client:
        for method in METHODS:
            client.request("POST", f"/{method}", body=b"hello")
            assert client.request("GET", "/").body == b"well"
