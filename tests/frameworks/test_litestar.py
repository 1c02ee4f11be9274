"""Litestar applications."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from litestar import Controller, Litestar, MediaType, Request, Response, delete, get, head, post
from litestar.background_tasks import BackgroundTask
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.datastructures import Cookie, State, UploadFile
from litestar.di import Provide
from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException, LitestarException
from litestar.params import Body
from litestar.response import File, Redirect, ServerSentEvent, Stream
from litestar.response.sse import ServerSentEventMessage
from litestar.static_files import create_static_files_router
from tests.frameworks import common
from tests.frameworks.common import FILE_CONTENT, LARGE_PIECE, LARGE_PIECES, Boom, Tally, variable
from tests.frameworks.gates import Gate
from tests.frameworks.wires import ServerLog, Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")

SETTINGS = {"max_request_size": 16 * 1024 * 1024}


@get("/hello/{name:str}")
async def hello(name: str, times: int = 1) -> dict[str, Any]:
    return {"name": name, "times": times}


@post("/json")
async def echo_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"received": await request.json()}


@post("/form")
async def form(data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]) -> dict[str, str]:
    return data


@post("/files")
async def files(request: Request[Any, Any, Any]) -> dict[str, Any]:
    fields = await request.form()
    found = []
    for upload in fields.getall("upload"):
        assert isinstance(upload, UploadFile)
        content = await upload.read()
        found.append(
            {
                "name": upload.filename,
                "type": upload.content_type,
                "size": len(content),
                "sha256": common.sha256(content),
            }
        )
    return {"note": fields["note"], "files": found}


@post("/pieces")
async def pieces(request: Request[Any, Any, Any], gate: str | None = None) -> dict[str, Any]:
    tally = Tally()
    async for piece in request.stream():
        if piece:
            tally.add(piece)
            if gate and len(tally.pieces) == 1:
                await Gate.named(gate).wait()
    return tally.json()


@get("/connection")
async def connection(request: Request[Any, Any, Any]) -> dict[str, str]:
    assert request.client is not None
    return {
        "http_version": request.scope["http_version"],
        "scheme": request.url.scheme,
        "client": request.client.host,
    }


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    return Response(dict(request.cookies), cookies=[Cookie("first", value="one"), Cookie("second", value="two")])


@get("/redirect")
async def redirect() -> Redirect:
    return Redirect("/hello/anna")


@get("/nothing", status_code=204)
async def nothing() -> None:
    return None


@get("/file")
async def file() -> File:
    return File(common.FOLDER / "file.bin")


@head("/file")
async def file_head() -> File:
    return File(common.FOLDER / "file.bin")


@get("/stream", media_type=MediaType.TEXT)
async def stream(gate: str) -> Stream:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(gate).wait()
        yield "second"

    return Stream(parts())


@get("/events")
async def events(gate: str) -> ServerSentEvent:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(gate).wait()
        yield "second"

    return ServerSentEvent(parts())


@get("/large")
async def large() -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE_PIECES):
            yield LARGE_PIECE

    return Stream(parts())


@get("/endless")
async def endless(gate: str) -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield LARGE_PIECE
                await asyncio.sleep(0)
        finally:
            Gate.named(gate).left.set()

    return Stream(parts())


@get("/waiting", media_type=MediaType.TEXT)
async def waiting(gate: str) -> Stream:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(gate).wait_for_ever()

    return Stream(parts())


@post("/background")
async def background(gate: str) -> Response[str]:
    async def work() -> None:
        await Gate.named(gate).wait()
        Gate.named(gate).left.set()

    return Response("accepted", background=BackgroundTask(work))


@get("/boom")
async def boom() -> None:
    raise Boom("on purpose")


@get("/boom-midway")
async def boom_midway() -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Boom("on purpose")

    return Stream(parts())


@get("/refused")
async def refused() -> None:
    raise HTTPException(status_code=418, detail="short and stout")


@get("/context/{value:str}")
async def context(value: str, gate: str) -> Response[str]:
    variable.set(value)
    await Gate.named(gate).wait()
    return Response(json.dumps(variable.get()), media_type=MediaType.JSON)


@get("/state")
async def answer(state: State) -> dict[str, int]:
    return {"answer": state.answer}


HANDLERS: list[Any] = [
    hello, echo_json, form, files, pieces, connection, cookies, redirect, nothing, file, file_head, stream, events,
    large, endless, waiting, background, boom, boom_midway, refused, context, answer,
]  # fmt: skip


def application(happened: list[str] | None = None, **settings: Any) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.answer = 42
        if happened is not None:
            happened.append("startup")
        yield
        if happened is not None:
            happened.append("shutdown")

    return Litestar(HANDLERS, lifespan=[lifespan], request_max_body_size=None, logging_config=None, **settings)


class TestRequests(common.Requests):
    pass


class TestBodies(common.Bodies, common.IncrementalUploads):
    pass


class TestStreams(common.Streams):
    pass


class TestFailures(common.Failures):
    logged = ()  # Litestar keeps exceptions of handlers to itself


class TestFailuresMidway(common.FailuresMidway):
    logged_midway = (
        f"Exception in ASGI application: {LitestarException(detail='Exception caught after response started')!r}",
    )


class TestBackground(common.Background):
    pass


class TestLifespan(common.Lifespan):
    pass


class TestControllers:
    def test_controller_with_dependencies_and_methods(self, serve: Callable[..., Site]) -> None:
        kept: dict[int, str] = {1: "one"}

        async def store() -> dict[int, str]:
            return kept

        class Items(Controller):
            path = "/items"
            dependencies = {"store": Provide(store)}  # noqa: RUF012 - as Litestar has it

            @get("/{number:int}")
            async def one(self, number: int, store: dict[int, str]) -> dict[str, str]:
                return {"item": store[number]}

            @delete("/{number:int}")
            async def remove(self, number: int) -> None:
                del kept[number]

        with serve(Litestar([Items], logging_config=None)).client() as client:
            assert client.get("/items/1").json() == {"item": "one"}
            removed = client.delete("/items/1")
            assert (removed.status_code, removed.content) == (204, b"")
            assert client.get("/items/x").status_code == 404
        assert kept == {}

    def test_server_sent_events_with_names_and_ids(self, serve: Callable[..., Site]) -> None:
        @get("/")
        async def count() -> ServerSentEvent:
            return ServerSentEvent(ServerSentEventMessage(data=data, event="letter", id="7") for data in "ab")

        with serve(Litestar([count], logging_config=None)).client() as client:
            text = client.get("/").text.replace("\r", "")
        assert text.split("\n\n")[:-1] == ["id: 7\nevent: letter\ndata: a", "id: 7\nevent: letter\ndata: b"]

    def test_sync_handler_runs_in_a_thread(self, serve: Callable[..., Site]) -> None:
        gate = Gate()

        @get("/wait", sync_to_thread=True, media_type=MediaType.TEXT)
        def wait() -> str:
            gate.wait_in_thread()
            return "waited"

        @get("/open")
        async def open_gate() -> None:
            gate.open()

        site = serve(Litestar([wait, open_gate], logging_config=None))

        async def run() -> str:
            async with site.async_client() as client:
                waiting = asyncio.create_task(client.get("/wait"))
                assert await asyncio.to_thread(gate.was_reached)
                await client.get("/open")
                return (await waiting).text

        assert asyncio.run(run()) == "waited"


class TestMiddleware:
    def test_compression_and_cors(self, serve: Callable[..., Site]) -> None:
        app = application(
            compression_config=CompressionConfig(backend="gzip", minimum_size=100),
            cors_config=CORSConfig(allow_origins=["https://app.example"]),
        )
        with serve(app).client(headers={"origin": "https://app.example", "accept-encoding": "gzip"}) as client:
            large = client.get("/large")
            preflight = client.options("/json", headers={"access-control-request-method": "POST"})
        assert large.headers["content-encoding"] == "gzip"
        assert large.content == LARGE_PIECE * LARGE_PIECES
        assert large.headers["access-control-allow-origin"] == "https://app.example"
        assert preflight.status_code == 204

    def test_static_files(self, serve: Callable[..., Site]) -> None:
        router = create_static_files_router("/static", directories=[common.FOLDER])
        with serve(Litestar([router], logging_config=None)).client() as client:
            assert client.get("/static/file.bin").content == FILE_CONTENT
            assert client.head("/static/file.bin").headers["content-length"] == str(len(FILE_CONTENT))
            assert client.get("/static/none.bin").status_code == 404

    def test_body_limit_of_litestar_answers_413(self, serve: Callable[..., Site], server_log: ServerLog) -> None:
        @post("/", request_max_body_size=10)
        async def read(request: Request[Any, Any, Any]) -> int:
            return len(await request.body())

        with serve(Litestar([read], logging_config=None)).client() as client:
            assert client.post("/", content=b"x" * 11).status_code == 413
            assert client.post("/", content=b"x" * 10).status_code == 201


def test_debug_answer_of_litestar_names_the_exception(
    serve: Callable[..., Site], server_log: ServerLog, client: httpx.Client
) -> None:
    with serve(Litestar([boom], debug=True, logging_config=None)).client() as debugging:
        assert "on purpose" in debugging.get("/boom").text
    assert "on purpose" not in client.get("/boom").text
