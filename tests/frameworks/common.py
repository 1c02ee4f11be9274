"""What an application does behind this server, whatever framework it is written with.

The module of each framework serves these paths and inherits the classes that apply to it:

    GET  /hello/{name}?times=N      JSON: name, times
    POST /json                      JSON: {"received": the JSON received}
    POST /form                      JSON: the form's fields
    POST /files                     JSON: note (a field), files (name, type, size, sha256 of each "upload")
    POST /pieces[?gate=]            reads the body in pieces, passes the gate after the first; JSON: a tally's
    GET  /connection                JSON: http_version, scheme, client (its address)
    GET  /cookies                   JSON: the cookies received; sets two
    GET  /redirect                  to /hello/anna
    GET  /nothing                   204
    GET  /file                      file.bin in `FOLDER`
    GET  /stream?gate=              "first", the gate, "second"
    GET  /events?gate=              the same as events, text/event-stream
    GET  /large                     `LARGE_PIECES` pieces of `LARGE_PIECE`
    GET  /endless?gate=             pieces for ever; leaves the gate when it is given up
    GET  /waiting?gate=             "first", then nothing; leaves the gate when the source of its pieces ends
    GET  /hang?gate=                reaches the gate, answers never; leaves the gate when the client is gone
    POST /background?gate=          answers at once; passes the gate and leaves it afterwards
    GET  /boom                      raises `Boom`
    GET  /boom-midway               a piece, then raises `Boom`
    GET  /refused                   the framework's own exception for 418, with a detail "short and stout"
    GET  /context/{value}?gate=     sets a context variable, passes the gate, JSON: the variable's value
    GET  /state                     JSON: {"answer": from the lifespan}
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.frameworks.gates import Gate
from tests.frameworks.wires import PATIENCE, ServerLog, Site

LARGE_PIECE = bytes(range(256)) * 256
LARGE_PIECES = 32
BODY = random.Random(1).randbytes(2 * 2**20)
"""2 MiB in which no two parts are alike."""

CLIENTS = 20
"""Requests at once, twice as many as there are connections for them."""

FOLDER = Path()
"""Where `file.bin` is, which is served as a file; made for each test session."""
FILE_CONTENT = BODY[:300_000]

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Boom(Exception):
    """What the applications raise."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Tally:
    """Counts the pieces of a body."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        self.pieces.append(len(piece))
        self._hash.update(piece)

    def json(self) -> dict[str, Any]:
        return {"bytes": sum(self.pieces), "sha256": self._hash.hexdigest(), "pieces": len(self.pieces)}


def in_pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    """The data as an upload whose length is not announced."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Requests:
    """Routing, parameters, small bodies, and the parts of an answer."""

    def test_path_and_query_reach_the_handler_decoded(self, client: httpx.Client) -> None:
        response = client.get("/hello/J%C3%BCrgen%20M", params={"times": "3"})
        assert response.status_code == 200
        assert response.json() == {"name": "Jürgen M", "times": 3}

    def test_connection_is_described(self, client: httpx.Client, site: Site) -> None:
        response = client.get("/connection")
        scheme = "https" if site.wire.tls else "http"
        assert response.json() == {
            "http_version": site.wire.http_version.removeprefix("HTTP/"),
            "scheme": scheme,
            "client": "127.0.0.1",
        }
        assert response.http_version == site.wire.http_version

    def test_unknown_path_is_404_and_wrong_method_405(self, client: httpx.Client) -> None:
        assert client.get("/nowhere").status_code == 404
        assert client.post("/hello/anna").status_code == 405

    def test_json_makes_the_round_trip(self, client: httpx.Client) -> None:
        document = {"text": "Zürich ☃", "numbers": [1, 2.5, None, True], "nested": {"empty": {}}}
        assert client.post("/json", json=document).json() == {"received": document}

    def test_form_fields_are_decoded(self, client: httpx.Client) -> None:
        fields = {"name": "Jürgen & Söhne", "sum": "1+1=2"}
        assert client.post("/form", data=fields).json() == fields

    def test_cookies_pass_both_ways_one_field_each(self, client: httpx.Client) -> None:
        response = client.get("/cookies", headers={"cookie": "a=1; b=2"})
        assert response.json() == {"a": "1", "b": "2"}
        assert len(response.headers.get_list("set-cookie")) == 2
        assert client.cookies["first"] == "one"
        assert client.cookies["second"] == "two"

    def test_redirect_is_followed_on_the_same_connection(self, client: httpx.Client) -> None:
        response = client.get("/redirect", follow_redirects=True)
        assert [step.is_redirect for step in response.history] == [True]
        assert response.json()["name"] == "anna"
        assert _stream_of(response) is _stream_of(response.history[0])

    def test_204_has_neither_body_nor_length(self, client: httpx.Client) -> None:
        response = client.get("/nothing")
        assert response.status_code == 204
        assert "content-length" not in response.headers
        assert "transfer-encoding" not in response.headers
        assert client.get("/hello/anna").status_code == 200

    def test_head_has_the_fields_of_get_without_its_body(self, client: httpx.Client) -> None:
        plain = {"accept-encoding": "identity"}
        get, head = client.get("/file", headers=plain), client.head("/file", headers=plain)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(FILE_CONTENT))
        # An answer to the next request shows that the application is through with this one.
        assert client.get("/hello/anna").status_code == 200

    def test_many_clients_at_once_get_each_their_own_answer(self, site: Site) -> None:
        async def run() -> list[str]:
            async with site.async_client(limits=httpx.Limits(max_connections=10)) as client:
                answers = await asyncio.gather(*(client.get(f"/hello/{number}") for number in range(CLIENTS)))
            return [answer.json()["name"] for answer in answers]

        assert asyncio.run(run()) == [str(number) for number in range(CLIENTS)]

    def test_requests_do_not_share_context_variables(self, site: Site) -> None:
        async def run() -> list[str]:
            gates = [Gate() for _ in range(5)]
            async with site.async_client() as client:
                asked = [
                    asyncio.create_task(client.get(f"/context/v{number}", params={"gate": gate.key}))
                    for number, gate in enumerate(gates)
                ]
                for gate in gates:
                    assert await asyncio.to_thread(gate.was_reached)
                for gate in gates:
                    gate.open()
                return [(await answer).json() for answer in asked]

        assert asyncio.run(run()) == ["v0", "v1", "v2", "v3", "v4"]


class Bodies:
    """Uploads and downloads of some size."""

    def test_multipart_upload_arrives_whole(self, client: httpx.Client) -> None:
        small = ("Ärger.txt", b"hello", "text/plain")
        large = ("large.bin", BODY, "application/octet-stream")
        response = client.post("/files", data={"note": "two files"}, files=[("upload", small), ("upload", large)])
        assert response.status_code in (200, 201)
        assert response.json() == {
            "note": "two files",
            "files": [
                {"name": "Ärger.txt", "type": "text/plain", "size": 5, "sha256": sha256(b"hello")},
                {
                    "name": "large.bin",
                    "type": "application/octet-stream",
                    "size": len(BODY),
                    "sha256": sha256(BODY),
                },
            ],
        }

    @pytest.mark.parametrize("content", [lambda: BODY, lambda: in_pieces(BODY)], ids=["with-length", "chunked"])
    def test_several_mebibytes_are_read_in_pieces(
        self, client: httpx.Client, content: Callable[[], bytes | Iterator[bytes]]
    ) -> None:
        read = client.post("/pieces", content=content()).json()
        assert (read["bytes"], read["sha256"]) == (len(BODY), sha256(BODY))
        assert read["pieces"] > 1

    def test_body_above_the_limit_is_refused_before_the_application(
        self, serve: Callable[..., Site], request: pytest.FixtureRequest
    ) -> None:
        site = serve(request.module.application(), max_request_size=1000)
        with site.client() as client:
            response = client.post("/json", content=b" " * 1001)
            assert response.status_code == 413
            assert response.headers["x-pounce-error-code"] == "POUNCE_LIMIT_REQUEST_TOO_LARGE"
            assert client.post("/json", json=[]).json() == {"received": []}

    def test_body_that_grows_above_the_limit_is_refused_while_it_arrives(
        self, serve: Callable[..., Site], request: pytest.FixtureRequest
    ) -> None:
        site = serve(request.module.application(), max_request_size=200_000)
        with site.client() as client:
            assert client.post("/pieces", content=in_pieces(BODY[:1_000_000])).status_code == 413
            assert client.post("/pieces", content=in_pieces(BODY[:200_000])).json()["bytes"] == 200_000

    def test_large_answer_arrives_whole_at_a_client_that_reads_slowly(self, client: httpx.Client) -> None:
        tally = Tally()
        with client.stream("GET", "/large") as response:
            for piece in response.iter_bytes(10_000):
                tally.add(piece)
        assert tally.json()["bytes"] == LARGE_PIECES * len(LARGE_PIECE)
        assert tally.json()["sha256"] == sha256(LARGE_PIECE * LARGE_PIECES)

    def test_file_arrives_whole(self, client: httpx.Client) -> None:
        assert client.get("/file").content == FILE_CONTENT
        # An answer to the next request shows that the application has closed the file of this one.
        assert client.get("/hello/anna").status_code == 200


class IncrementalUploads:
    """For frameworks that hand the body on while it arrives."""

    def test_application_reads_a_piece_before_the_next_is_sent(self, client: httpx.Client) -> None:
        gate = Gate()

        def content() -> Iterator[bytes]:
            yield b"first"
            assert gate.was_reached()
            gate.open()
            yield b"second"

        read = client.post("/pieces", params={"gate": gate.key}, content=content()).json()
        assert (read["bytes"], read["sha256"]) == (11, sha256(b"firstsecond"))


class Streams:
    """Answers that come in pieces, and clients that do not wait for their end."""

    @pytest.mark.parametrize(
        ("path", "first", "second"),
        [("/stream", "first", "second"), ("/events", "data: first\n\n", "data: second\n\n")],
        ids=["stream", "events"],
    )
    def test_each_piece_is_sent_when_it_is_there(
        self, client: httpx.Client, path: str, first: str, second: str
    ) -> None:
        gate = Gate()
        with client.stream("GET", path, params={"gate": gate.key}) as response:
            pieces = (piece.replace("\r", "") for piece in response.iter_text())
            assert next(pieces) == first
            gate.open()
            assert "".join(pieces) == second
        if path == "/events":
            assert response.headers["content-type"].startswith("text/event-stream")

    def test_answer_that_is_given_up_ends_in_the_application(self, site: Site, client: httpx.Client) -> None:
        gate = Gate()
        # A client of its own, which closes: over HTTP/2, httpx does not tell the server of a stream that it gives up.
        request = {"params": {"gate": gate.key}, "headers": {"accept-encoding": "identity"}}
        with site.client() as leaving, leaving.stream("GET", "/endless", **request) as response:
            assert next(response.iter_bytes())
        assert gate.was_left()
        assert client.get("/hello/anna").status_code == 200

    def test_stream_that_waits_ends_when_its_client_leaves(self, site: Site, client: httpx.Client) -> None:
        gate = Gate()
        with begin_waiting(site, gate):
            assert not gate.left.is_set()
        assert gate.was_left()
        assert client.get("/hello/anna").status_code == 200

    def test_shutdown_does_not_wait_for_streams_whose_clients_have_left(
        self, serve: Callable[..., Site], request: pytest.FixtureRequest
    ) -> None:
        site = serve(request.module.application(), shutdown_timeout=2 * PATIENCE)
        gates = [Gate() for _ in range(3)]
        for gate in gates:
            with begin_waiting(site, gate):
                pass
        site.server.stop(timeout=PATIENCE)
        assert all(gate.left.is_set() for gate in gates)


@contextmanager
def begin_waiting(site: Site, gate: Gate) -> Iterator[None]:
    """A client that has the first piece of a stream that waits, until it leaves."""
    # Of its own, as it closes: over HTTP/2, httpx does not tell the server of a stream that it gives up.
    request = {"params": {"gate": gate.key}, "headers": {"accept-encoding": "identity"}}
    with site.client() as leaving, leaving.stream("GET", "/waiting", **request) as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"first"
        yield


class Departures:
    """Clients that are gone before the answer begins."""

    def test_client_that_goes_before_the_answer_is_noticed(self, site: Site) -> None:
        async def run() -> None:
            gate = Gate()
            async with site.async_client() as leaving:
                waiting = asyncio.create_task(leaving.get("/hang", params={"gate": gate.key}))
                assert await asyncio.to_thread(gate.was_reached)
                waiting.cancel()
            assert await asyncio.to_thread(gate.was_left)
            async with site.async_client() as client:
                assert (await client.get("/hello/anna")).status_code == 200

        asyncio.run(run())


class Failures:
    """Exceptions, the framework's own and others."""

    logged: tuple[str, ...] = (f"Exception in ASGI application: {Boom('on purpose')!r}",)
    """What the server logs when a handler raises: nothing where the framework keeps the exception to itself."""

    def test_exception_is_a_500_and_the_connection_goes_on(self, client: httpx.Client, server_log: ServerLog) -> None:
        before = client.get("/hello/anna")
        response = client.get("/boom")
        assert response.status_code == 500
        after = client.get("/hello/anna")
        assert after.status_code == 200
        assert _stream_of(after) is _stream_of(before)
        assert tuple(server_log.take(len(self.logged))) == self.logged

    def test_http_exception_is_answered_by_the_framework(self, client: httpx.Client) -> None:
        response = client.get("/refused")
        assert response.status_code == 418
        assert "short and stout" in response.text


class FailuresMidway:
    logged_midway: tuple[str, ...] = (f"Exception in ASGI application: {Boom('on purpose')!r}",)

    def test_exception_in_mid_answer_breaks_it_off_visibly(self, client: httpx.Client, server_log: ServerLog) -> None:
        with client.stream("GET", "/boom-midway") as response:
            assert response.status_code == 200
            pieces = response.iter_bytes()
            assert next(pieces) == b"first"
            with pytest.raises(httpx.RemoteProtocolError):
                next(pieces)
        assert client.get("/hello/anna").status_code == 200
        assert tuple(server_log.take(len(self.logged_midway))) == self.logged_midway


class Background:
    def test_answer_arrives_before_the_background_task_ends(self, client: httpx.Client) -> None:
        gate = Gate()
        response = client.post("/background", params={"gate": gate.key})
        assert response.status_code in (200, 201)
        assert gate.was_reached()
        assert not gate.left.is_set()
        # Neither does it hold up the next request of the connection.
        assert client.get("/hello/anna").status_code == 200
        gate.open()
        assert gate.was_left()

    def test_shutdown_waits_for_the_background_task(
        self, serve: Callable[..., Site], request: pytest.FixtureRequest
    ) -> None:
        gate = Gate()
        site = serve(request.module.application())
        with site.client() as client:
            client.post("/background", params={"gate": gate.key})
        assert gate.was_reached()
        # The server's loop takes these two in this order.
        site.server.shutdown()
        gate.open()
        site.server.stop()
        assert gate.left.is_set()


class Lifespan:
    """The module's `application(events)` adds "startup" and "shutdown" to that list."""

    def test_lifespan_runs_once_around_all_requests(
        self, serve: Callable[..., Site], request: pytest.FixtureRequest
    ) -> None:
        events: list[str] = []
        site = serve(request.module.application(events), lifespan="on")
        assert events == ["startup"]
        with site.client() as client:
            assert client.get("/state").json() == {"answer": 42}
        site.server.stop()
        assert events == ["startup", "shutdown"]


def _stream_of(response: httpx.Response) -> Any:
    """Of the connection that brought a response: the same object is the same connection."""
    return response.extensions["network_stream"]
