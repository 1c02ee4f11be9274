"""Starlette applications."""

import asyncio
import inspect
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from tests.frameworks import common
from tests.frameworks.common import BODY, FILE_CONTENT, LARGE_PIECE, LARGE_PIECES, Boom, Tally, variable
from tests.frameworks.gates import Gate
from tests.frameworks.wires import PATIENCE, Certificate, ServerLog, Site, Wire, serve_on

from pounce import AppImportError, ServerConfig
from pounce.importer import import_app
from pounce.testing import TestServer

SETTINGS = {"max_request_size": 16 * 1024 * 1024}


async def hello(request: Request) -> Response:
    return JSONResponse({"name": request.path_params["name"], "times": int(request.query_params.get("times", "1"))})


async def echo_json(request: Request) -> Response:
    return JSONResponse({"received": await request.json()})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse(dict(fields))


async def files(request: Request) -> Response:
    async with request.form() as fields:
        found = []
        for upload in fields.getlist("upload"):
            assert isinstance(upload, UploadFile)
            content = await upload.read()
            found.append(
                {
                    "name": upload.filename,
                    "type": upload.content_type,
                    "size": upload.size,
                    "sha256": common.sha256(content),
                }
            )
        return JSONResponse({"note": fields["note"], "files": found})


async def pieces(request: Request) -> Response:
    tally = Tally()
    gate = request.query_params.get("gate")
    async for piece in request.stream():
        if piece:
            tally.add(piece)
            if gate and len(tally.pieces) == 1:
                await Gate.named(gate).wait()
    return JSONResponse(tally.json())


async def connection(request: Request) -> Response:
    assert request.client is not None
    return JSONResponse(
        {
            "http_version": request.scope["http_version"],
            "scheme": request.url.scheme,
            "client": request.client.host,
        }
    )


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("first", "one")
    response.set_cookie("second", "two", path="/", samesite="strict")
    return response


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.url_for("hello", name="anna"))


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


async def file(request: Request) -> Response:
    return FileResponse(common.FOLDER / "file.bin")


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(request.query_params["gate"]).wait()
        yield "second"

    return StreamingResponse(parts(), media_type="text/plain")


async def events(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await Gate.named(request.query_params["gate"]).wait()
        yield "data: second\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def large(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE_PIECES):
            yield LARGE_PIECE

    return StreamingResponse(parts())


async def endless(request: Request) -> Response:
    class Endless(StreamingResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                Gate.named(request.query_params["gate"]).left.set()

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield LARGE_PIECE

    return Endless(parts())


async def waiting(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(request.query_params["gate"]).wait_for_ever()

    return StreamingResponse(parts(), media_type="text/plain")


async def hang(request: Request) -> Response:
    gate = Gate.named(request.query_params["gate"])
    gate.reached.set()
    with anyio.fail_after(10):
        while not await request.is_disconnected():
            await anyio.lowlevel.checkpoint()
    gate.left.set()
    return PlainTextResponse("nobody reads this")


async def background(request: Request) -> Response:
    gate = Gate.named(request.query_params["gate"])
    tasks = BackgroundTasks()
    tasks.add_task(gate.wait)
    tasks.add_task(gate.left.set)  # a plain function: runs in a thread
    return PlainTextResponse("accepted", background=tasks)


async def boom(request: Request) -> Response:
    raise Boom("on purpose")


async def boom_midway(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Boom("on purpose")

    return StreamingResponse(parts())


async def refused(request: Request) -> Response:
    raise HTTPException(418, "short and stout", headers={"x-pot": "tea"})


async def context(request: Request) -> Response:
    variable.set(request.path_params["value"])
    await Gate.named(request.query_params["gate"]).wait()
    return JSONResponse(variable.get())


async def state(request: Request) -> Response:
    return JSONResponse({"answer": request.state.answer})


def routes() -> list[Any]:
    return [
        Route("/hello/{name}", hello),
        Route("/json", echo_json, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/files", files, methods=["POST"]),
        Route("/pieces", pieces, methods=["POST"]),
        Route("/connection", connection),
        Route("/cookies", cookies),
        Route("/redirect", redirect),
        Route("/nothing", nothing),
        Route("/file", file),
        Route("/stream", stream),
        Route("/events", events),
        Route("/large", large),
        Route("/endless", endless),
        Route("/waiting", waiting),
        Route("/hang", hang),
        Route("/background", background, methods=["POST"]),
        Route("/boom", boom),
        Route("/boom-midway", boom_midway),
        Route("/refused", refused),
        Route("/context/{value}", context),
        Route("/state", state),
    ]


def application(happened: list[str] | None = None, middleware: list[Middleware] | None = None) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        if happened is not None:
            happened.append("startup")
        yield {"answer": 42}
        if happened is not None:
            happened.append("shutdown")

    return Starlette(routes=routes(), lifespan=lifespan, middleware=middleware)


class TestRequests(common.Requests):
    pass


class TestBodies(common.Bodies, common.IncrementalUploads):
    pass


class TestStreams(common.Streams, common.Departures):
    pass


class TestFailures(common.Failures, common.FailuresMidway):
    def test_headers_of_an_http_exception_are_sent(self, client: httpx.Client) -> None:
        assert client.get("/refused").headers["x-pot"] == "tea"


class TestBackground(common.Background):
    def test_failing_background_task_is_logged_and_the_answer_stands(
        self, serve: Callable[..., Site], server_log: ServerLog
    ) -> None:
        async def fail() -> None:
            raise Boom("afterwards")

        async def answer(request: Request) -> Response:
            return PlainTextResponse("fine", background=BackgroundTask(fail))

        with serve(Starlette(routes=[Route("/", answer)])).client() as client:
            assert client.get("/").text == "fine"
            assert client.get("/").text == "fine"
        assert server_log.take(2) == [f"Exception in ASGI application: {Boom('afterwards')!r}"] * 2


class TestLifespan(common.Lifespan):
    def test_state_is_shallow_copied_for_each_request(self, serve: Callable[..., Site]) -> None:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
            yield {"number": 0, "shared": []}

        async def change(request: Request) -> Response:
            request.state.number += 1
            request.state.shared.append(request.state.number)
            return JSONResponse(request.state.shared)

        with serve(Starlette(routes=[Route("/", change)], lifespan=lifespan)).client() as client:
            assert client.get("/").json() == [1]
            assert client.get("/").json() == [1, 1]


# Middleware


class Dispatching(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["x-dispatched"] = request.scope["raw_path"].decode()
        return response


class BodyReading(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        size = len(await request.body())
        response = await call_next(request)
        response.headers["x-size"] = str(size)
        return response


class Recording:
    """Pure ASGI: adds a field, and notes the types of the messages that pass."""

    def __init__(self, app: Any, sent: list[str]) -> None:
        self.app = app
        self.sent = sent

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            self.sent.append(message["type"])
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-pure", b"yes")]}
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


class TestUnderBaseHTTPMiddleware(
    common.Requests, common.Bodies, common.IncrementalUploads, common.Streams, common.Failures, common.Background
):
    """Everything again: this middleware puts its own receive and send in between.

    It hides two things behind any server: that an answer broke off, and `is_disconnected()`.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, wire: Wire, certificate: Certificate) -> Iterator[Site]:
        app = application(middleware=[Middleware(Dispatching)])
        with serve_on(wire, certificate, app, **SETTINGS) as site:
            yield site

    def test_field_is_added(self, serve: Callable[..., Site]) -> None:
        with serve(application(middleware=[Middleware(Dispatching)])).client() as client:
            assert client.get("/hello/anna").headers["x-dispatched"] == "/hello/anna"

    def test_body_read_by_the_middleware_is_there_for_the_handler(self, serve: Callable[..., Site]) -> None:
        app = application(middleware=[Middleware(BodyReading), Middleware(Dispatching)])
        with serve(app, **SETTINGS).client() as client:
            response = client.post("/pieces", content=BODY)
        assert response.headers["x-size"] == str(len(BODY))
        assert response.json()["sha256"] == common.sha256(BODY)


class TestMiddleware:
    def test_pure_asgi_middleware_adds_a_field(self, serve: Callable[..., Site]) -> None:
        sent: list[str] = []
        with serve(application(middleware=[Middleware(Recording, sent=sent)])).client() as client:
            assert client.get("/hello/anna").headers["x-pure"] == "yes"
        assert sent == ["http.response.start", "http.response.body"]

    def test_gzip_is_transparent_and_announced(self, serve: Callable[..., Site]) -> None:
        with serve(application(middleware=[Middleware(GZipMiddleware)])).client() as client:
            whole, streamed = client.get("/file"), client.get("/large")
            plain = client.get("/file", headers={"accept-encoding": "identity"})
        assert plain.content == whole.content == FILE_CONTENT
        assert streamed.headers["content-encoding"] == "gzip"
        assert streamed.content == LARGE_PIECE * LARGE_PIECES
        assert "content-encoding" not in plain.headers

    def test_gzip_stream_is_flushed_piece_by_piece(self, serve: Callable[..., Site]) -> None:
        async def numbers(request: Request) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield BODY[:50_000]
                await Gate.named(request.query_params["gate"]).wait()
                yield b"end"

            return StreamingResponse(parts(), media_type="text/plain")

        gate = Gate()
        app = Starlette(routes=[Route("/", numbers)], middleware=[Middleware(GZipMiddleware)])
        with (
            serve(app).client() as client,
            client.stream("GET", "/", params={"gate": gate.key}) as response,
        ):
            pieces = response.iter_bytes()
            first = next(pieces)
            gate.open()
            assert first + b"".join(pieces) == BODY[:50_000] + b"end"

    def test_cors_preflight_and_answer(self, serve: Callable[..., Site]) -> None:
        cors = Middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_methods=["POST"])
        with serve(application(middleware=[cors])).client() as client:
            preflight = client.options(
                "/json", headers={"origin": "https://app.example", "access-control-request-method": "POST"}
            )
            refused = client.options(
                "/json", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
            )
            answer = client.post("/json", json=1, headers={"origin": "https://app.example"})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert refused.status_code == 400
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.json() == {"received": 1}

    def test_sessions_last_from_request_to_request(self, serve: Callable[..., Site]) -> None:
        async def count(request: Request) -> Response:
            request.session["count"] = request.session.get("count", 0) + 1
            return JSONResponse(request.session["count"])

        # secret_key is a test's own.
        app = Starlette(routes=[Route("/", count)], middleware=[Middleware(SessionMiddleware, secret_key="x")])
        with serve(app).client() as client:
            assert [client.get("/").json() for _ in range(3)] == [1, 2, 3]


# Files


class TestFiles:
    def test_file_response_is_sent_in_pieces_that_every_middleware_knows(self, serve: Callable[..., Site]) -> None:
        sent: list[str] = []
        with serve(application(middleware=[Middleware(Recording, sent=sent)])).client() as client:
            assert client.get("/file").content == FILE_CONTENT
        assert set(sent) == {"http.response.start", "http.response.body"}

    def test_file_response_is_sent_by_path_where_that_is_offered(self, serve: Callable[..., Site]) -> None:
        sent: list[str] = []
        app = application(middleware=[Middleware(Recording, sent=sent)])
        with serve(app, asgi_extensions=["pathsend"]).client() as client:
            assert client.get("/file").content == FILE_CONTENT
        assert sent == ["http.response.start", "http.response.pathsend"]

    def test_file_response_under_base_http_middleware_is_sent_by_path(self, serve: Callable[..., Site]) -> None:
        sent: list[str] = []
        app = application(middleware=[Middleware(Recording, sent=sent), Middleware(Dispatching)])
        with serve(app, asgi_extensions=["pathsend"]).client() as client:
            assert client.get("/file").content == FILE_CONTENT
        assert sent == ["http.response.start", "http.response.pathsend"]

    def test_single_range(self, client: httpx.Client) -> None:
        response = client.get("/file", headers={"range": "bytes=1000-1999"})
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes 1000-1999/{len(FILE_CONTENT)}"
        assert response.content == FILE_CONTENT[1000:2000]

    def test_suffix_range_of_several_reads(self, client: httpx.Client) -> None:
        response = client.get("/file", headers={"range": "bytes=-200000"})
        assert response.status_code == 206
        assert response.content == FILE_CONTENT[-200_000:]

    def test_several_ranges(self, client: httpx.Client) -> None:
        response = client.get("/file", headers={"range": "bytes=0-9,100-109"})
        assert response.status_code == 206
        boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", response.headers["content-type"])
        assert boundary is not None
        parts = response.content.split(b"--" + boundary[1].encode())[1:-1]
        assert [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts] == [
            FILE_CONTENT[:10],
            FILE_CONTENT[100:110],
        ]

    def test_range_beyond_the_end_is_416(self, client: httpx.Client) -> None:
        response = client.get("/file", headers={"range": "bytes=400000-"})
        assert response.status_code == 416
        assert response.headers["content-range"] == f"bytes */{len(FILE_CONTENT)}"

    def test_file_for_which_the_client_does_not_wait_is_given_up(self, site: Site) -> None:
        with site.client() as client:
            with client.stream("GET", "/file") as response:
                next(response.iter_raw(1))
            assert client.get("/file").content == FILE_CONTENT

    @pytest.mark.parametrize(
        "headers", [{}, {"range": "bytes=1-"}, {"range": "bytes=0-1,3-"}], ids=["whole", "range", "ranges"]
    )
    def test_file_whose_client_leaves_ends_in_the_application(
        self, serve: Callable[..., Site], headers: dict[str, str]
    ) -> None:
        gate = Gate()
        path = common.FOLDER / "huge.bin"
        with open(path, "wb") as huge:
            huge.truncate(64 * 1024 * 1024)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await FileResponse(path)(scope, receive, send)
            finally:
                gate.left.set()

        with serve(app, lifespan="off").client() as client, client.stream("GET", "/", headers=headers) as response:
            pieces = response.iter_bytes()
            assert next(pieces)
            assert not gate.left.is_set()
        assert gate.was_left()

    def test_static_files(self, serve: Callable[..., Site]) -> None:
        static = Mount("/static", StaticFiles(directory=common.FOLDER))
        with serve(Starlette(routes=[static])).client() as client:
            found = client.get("/static/file.bin")
            assert found.content == FILE_CONTENT
            again = client.get("/static/file.bin", headers={"if-none-match": found.headers["etag"]})
            assert again.status_code == 304
            assert again.content == b""
            assert client.get("/static/file.bin").content == FILE_CONTENT
            assert client.get("/static/other.bin").status_code == 404
            assert client.get("/static/%2e%2e/%2e%2e/etc/passwd").status_code == 404

    def test_empty_file(self, serve: Callable[..., Site]) -> None:
        (common.FOLDER / "empty.txt").touch()
        static = Mount("/static", StaticFiles(directory=common.FOLDER))
        with serve(Starlette(routes=[static])).client() as client:
            response = client.get("/static/empty.txt")
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["content-length"] == "0"
            assert client.get("/static/empty.txt").status_code == 200


# Concurrency within handlers


class TestConcurrency:
    def test_task_group_gathers(self, serve: Callable[..., Site]) -> None:
        async def gather(request: Request) -> Response:
            found: list[int] = []

            async def add(number: int, wait_for: anyio.Event, then: anyio.Event) -> None:
                await wait_for.wait()
                found.append(number)
                then.set()

            turns = [anyio.Event() for _ in range(4)]
            async with anyio.create_task_group() as group:
                for number in (2, 1, 0):
                    group.start_soon(add, number, turns[number], turns[number + 1])
                turns[0].set()
            return JSONResponse(found)

        with serve(Starlette(routes=[Route("/", gather)])).client() as client:
            assert client.get("/").json() == [0, 1, 2]

    def test_failing_task_cancels_its_group_and_is_a_500(
        self, serve: Callable[..., Site], server_log: ServerLog
    ) -> None:
        cancelled: list[bool] = []

        async def wait() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(True)

        async def fail() -> None:
            raise Boom("on purpose")

        async def gather(request: Request) -> Response:
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                group.start_soon(fail)
            raise AssertionError("not reached")

        with serve(Starlette(routes=[Route("/", gather)])).client() as client:
            assert client.get("/").status_code == 500
        assert cancelled == [True]
        assert len(server_log.take(1)) == 1

    def test_timeouts_of_anyio_and_asyncio_end_what_they_surround(self, serve: Callable[..., Site]) -> None:
        async def wait(request: Request) -> Response:
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep_forever()
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                return JSONResponse([scope.cancelled_caught, "timeout"])
            raise AssertionError("not reached")

        with serve(Starlette(routes=[Route("/", wait)])).client() as client:
            assert client.get("/").json() == [True, "timeout"]

    def test_sync_handlers_run_in_threads_at_the_same_time(self, serve: Callable[..., Site]) -> None:
        together = threading.Barrier(3)

        def meet(request: Request) -> Response:
            together.wait(60)
            return PlainTextResponse(str(threading.get_ident()))

        site = serve(Starlette(routes=[Route("/", meet)]))

        async def run() -> set[str]:
            async with site.async_client() as client:
                return {answer.text for answer in await asyncio.gather(*(client.get("/") for _ in range(3)))}

        assert len(asyncio.run(run())) == 3

    def test_upload_that_the_client_gives_up_is_a_disconnect(self, serve: Callable[..., Site]) -> None:
        gate = Gate()
        seen: list[str] = []

        async def read(request: Request) -> Response:
            try:
                async for piece in request.stream():
                    seen.append(f"{len(piece)} bytes")
                    gate.reached.set()
            except ClientDisconnect:
                seen.append("disconnect")
            gate.left.set()
            return PlainTextResponse("read")

        site = serve(Starlette(routes=[Route("/", read, methods=["POST"])]))

        async def run() -> None:
            async def content() -> AsyncIterator[bytes]:
                yield b"x" * 10
                await anyio.sleep_forever()

            async with site.async_client() as client:
                sending = asyncio.create_task(client.post("/", content=content()))
                assert await asyncio.to_thread(gate.was_reached)
                sending.cancel()
                assert await asyncio.to_thread(gate.was_left)

        asyncio.run(run())
        assert seen == ["10 bytes", "disconnect"]


class TestRouting:
    def test_mounted_application_sees_its_root_path(self, serve: Callable[..., Site]) -> None:
        async def where(request: Request) -> Response:
            return JSONResponse([request.scope["root_path"], request.url.path])

        site = serve(Starlette(routes=[Mount("/inner", routes=[Route("/where", where, name="where")])]))
        with site.client() as client:
            assert client.get("/inner/where").json() == ["/inner", "/inner/where"]

    def test_root_path_of_the_server_is_part_of_urls(self, serve: Callable[..., Site]) -> None:
        async def where(request: Request) -> Response:
            return JSONResponse([request.url.path, request.url_for("where").path])

        site = serve(Starlette(routes=[Route("/where", where, name="where")]), root_path="/api")
        with site.client() as client:
            assert client.get("/where").json() == ["/api/where", "/api/where"]

    def test_host_routing(self, serve: Callable[..., Site]) -> None:
        async def say(request: Request) -> Response:
            return PlainTextResponse(request.path_params["tenant"])

        tenants = Starlette(routes=[Route("/", say)])
        site = serve(Starlette(routes=[Host("{tenant}.example.org", tenants)]))
        with site.client() as client:
            assert client.get("/", headers={"host": "blue.example.org"}).text == "blue"


def test_stream_of_sse_starlette_does_not_hold_up_an_end_that_somebody_waits_for(
    wire: Wire, certificate: Certificate
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def ticks() -> AsyncIterator[str]:
        try:
            yield "one"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def events(request: Request) -> Response:
        return EventSourceResponse(ticks())

    app = Starlette(routes=[Route("/", events)])
    # Four fifths of which an application would have otherwise.
    with serve_on(wire, certificate, app, shutdown_timeout=600.0) as site, site.client() as client:
        with client.stream("GET", "/") as response:
            assert begun.wait(PATIENCE)
            site.server.shutdown(hurry=True)
            # Who is told that its client is gone gives up its answer; what a client makes of that is its own affair.
            with suppress(Exception):
                response.read()
        assert ended.wait(PATIENCE)
@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_middleware_that_cannot_be_put_together_ends_the_start(lifespan: str) -> None:
    app = Starlette(middleware=[Middleware(CORSMiddleware, allow_origin=["*"])])
    with pytest.raises(AppImportError, match="allow_origin") as caught:
        TestServer(app, lifespan=lifespan).start()
    assert caught.value.code == "POUNCE_APP_MIDDLEWARE_FAILED"


GIVEN = {
    "Starlette": "app = Starlette(middleware=[Middleware(Own, wrong=1)])",
    "add_middleware": "app = Starlette()\napp.add_middleware(\n    Own, wrong=1)",
    "FastAPI": "app = FastAPI()\napp.add_middleware(Own, wrong=1)",
    "factory": "def app():\n    return Starlette(middleware=[Middleware(Own, wrong=1)])",
}
OWN = """from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware

class Own:
    def __init__(self, app): ...

"""


@pytest.mark.parametrize("given", GIVEN)
def test_middleware_with_wrong_arguments_is_named_with_its_place_and_that_in_the_application(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "pounce_bad_stack", raising=False)
    file = tmp_path / "pounce_bad_stack.py"
    file.write_text(OWN + GIVEN[given])
    line = OWN.count("\n") + 1 + (given != "Starlette")
    with pytest.raises(AppImportError) as caught:
        import_app(f"pounce_bad_stack:app{'()' * (given == 'factory')}", ServerConfig(app_dir=str(tmp_path)))
    assert str(caught.value) == (
        f"the middleware Own ({file}:5) of pounce_bad_stack:app{'()' * (given == 'factory')} ({file}:{line}) cannot be"
        " put together: TypeError: Own.__init__() got an unexpected keyword argument 'wrong'"
    )
    assert "add_middleware(Own)" in (caught.value.hint or "")
    del sys.modules["pounce_bad_stack"]


class Fails:
    def __init__(self, app: Any) -> None:
        raise RuntimeError("no luck")


def test_middleware_whose_constructor_raises_is_named_with_the_line_that_did() -> None:
    _, first = inspect.getsourcelines(Fails)
    with pytest.raises(AppImportError) as caught:
        TestServer(Starlette(middleware=[Middleware(Fails)])).start()
    assert str(caught.value) == (
        f"the middleware Fails ({__file__}:{first}) of the application cannot be put together:"
        f" RuntimeError: no luck ({__file__}:{first + 2})"
    )


def test_middleware_that_fails_behind_another_application_is_named() -> None:
    within = Starlette(middleware=[Middleware(CORSMiddleware, allow_origin=["*"])])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await within(scope, receive, send)

    with pytest.raises(AppImportError, match=r"the middleware CORSMiddleware \(\S+cors.py:\d+\) of the application"):
        TestServer(app).start()
