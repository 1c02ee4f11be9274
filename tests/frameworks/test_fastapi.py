"""FastAPI applications."""

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Request,
    Response,
    UploadFile,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from tests.frameworks import common
from tests.frameworks.common import BODY, FILE_CONTENT, LARGE_PIECE, LARGE_PIECES, Boom, Tally, variable
from tests.frameworks.gates import Gate
from tests.frameworks.wires import ServerLog, Site

SETTINGS = {"max_request_size": 16 * 1024 * 1024}

router = APIRouter()


@router.get("/hello/{name}")
async def hello(name: str, times: int = 1) -> dict[str, Any]:
    return {"name": name, "times": times}


@router.post("/json")
async def echo_json(received: Annotated[Any, Body()]) -> dict[str, Any]:
    return {"received": received}


@router.post("/form")
async def form(name: Annotated[str, Form()], sum: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name, "sum": sum}


@router.post("/files")
async def files(note: Annotated[str, Form()], upload: Annotated[list[UploadFile], File()]) -> dict[str, Any]:
    return {
        "note": note,
        "files": [
            {
                "name": item.filename,
                "type": item.content_type,
                "size": item.size,
                "sha256": common.sha256(await item.read()),
            }
            for item in upload
        ],
    }


@router.post("/pieces")
async def pieces(request: Request, gate: str | None = None) -> dict[str, Any]:
    tally = Tally()
    async for piece in request.stream():
        if piece:
            tally.add(piece)
            if gate and len(tally.pieces) == 1:
                await Gate.named(gate).wait()
    return tally.json()


@router.get("/connection")
async def connection(request: Request) -> dict[str, str]:
    assert request.client is not None
    return {
        "http_version": request.scope["http_version"],
        "scheme": request.url.scheme,
        "client": request.client.host,
    }


@router.get("/cookies")
async def cookies(response: Response, a: Annotated[str, Cookie()], b: Annotated[str, Cookie()]) -> dict[str, str]:
    response.set_cookie("first", "one")
    response.set_cookie("second", "two")
    return {"a": a, "b": b}


@router.get("/redirect")
async def redirect() -> Response:
    return RedirectResponse("/hello/anna")


@router.get("/nothing", status_code=204)
async def nothing() -> None:
    return None


@router.api_route("/file", methods=["GET", "HEAD"])
def file() -> FileResponse:
    return FileResponse(common.FOLDER / "file.bin")


@router.get("/stream")
async def stream(gate: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(gate).wait()
        yield "second"

    return StreamingResponse(parts(), media_type="text/plain")


@router.get("/events")
async def events(gate: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await Gate.named(gate).wait()
        yield "data: second\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


@router.get("/large")
def large() -> StreamingResponse:
    # A plain generator: Starlette draws its pieces in a thread.
    return StreamingResponse(LARGE_PIECE for _ in range(LARGE_PIECES))


@router.get("/endless")
async def endless(gate: str) -> StreamingResponse:
    class Endless(StreamingResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                Gate.named(gate).left.set()

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield LARGE_PIECE

    return Endless(parts())


@router.get("/waiting")
async def waiting(gate: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await Gate.named(gate).wait_for_ever()

    return StreamingResponse(parts(), media_type="text/plain")


@router.get("/hang")
async def hang(request: Request, gate: str) -> str:
    Gate.named(gate).reached.set()
    with anyio.fail_after(10):
        while not await request.is_disconnected():
            await anyio.lowlevel.checkpoint()
    Gate.named(gate).left.set()
    return "nobody reads this"


@router.post("/background")
async def background(gate: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(Gate.named(gate).wait)
    tasks.add_task(Gate.named(gate).left.set)
    return "accepted"


@router.get("/boom")
async def boom() -> None:
    raise Boom("on purpose")


@router.get("/boom-midway")
async def boom_midway() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Boom("on purpose")

    return StreamingResponse(parts())


@router.get("/refused")
async def refused() -> None:
    raise HTTPException(418, "short and stout", headers={"x-pot": "tea"})


@router.get("/context/{value}")
async def context(value: str, gate: str) -> str:
    variable.set(value)
    await Gate.named(gate).wait()
    return variable.get()


@router.get("/state")
async def state(request: Request) -> dict[str, int]:
    return {"answer": request.state.answer}


def application(happened: list[str] | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if happened is not None:
            happened.append("startup")
        yield {"answer": 42}
        if happened is not None:
            happened.append("shutdown")

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app


class TestRequests(common.Requests):
    def test_invalid_parameter_is_422(self, client: httpx.Client) -> None:
        response = client.get("/hello/anna", params={"times": "often"})
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["query", "times"]


class TestBodies(common.Bodies, common.IncrementalUploads):
    def test_range_of_a_file(self, client: httpx.Client) -> None:
        response = client.get("/file", headers={"range": "bytes=10-19"})
        assert (response.status_code, response.content) == (206, FILE_CONTENT[10:20])


class TestStreams(common.Streams, common.Departures):
    pass


class TestFailures(common.Failures, common.FailuresMidway):
    pass


class TestBackground(common.Background):
    pass


class TestLifespan(common.Lifespan):
    pass


class TestModels:
    def test_model_is_validated_and_serialised(self, serve: Callable[..., Site]) -> None:
        class Item(BaseModel):
            name: str
            price: float

        app = FastAPI()

        @app.post("/items", status_code=201)
        async def create(item: Item, x_token: Annotated[str, Header()]) -> Item:
            return Item(name=f"{item.name} for {x_token}", price=item.price * 2)

        with serve(app).client(headers={"x-token": "me"}) as client:
            made = client.post("/items", json={"name": "tea", "price": 1.5})
            assert (made.status_code, made.json()) == (201, {"name": "tea for me", "price": 3.0})
            assert client.post("/items", json={"name": "tea"}).status_code == 422
            assert client.post("/items", content=b"{broken").status_code == 422
            assert client.get("/openapi.json").json()["paths"].keys() == {"/items"}
            assert "swagger" in client.get("/docs").text


class TestDependencies:
    def test_yielding_dependency_is_torn_down_after_the_answer(self, serve: Callable[..., Site]) -> None:
        happened: list[str] = []
        gate = Gate()
        app = FastAPI()

        async def resource() -> AsyncIterator[str]:
            happened.append("open")
            try:
                yield "resource"
            except Boom:
                happened.append("roll back")
                raise
            finally:
                happened.append("close")
                gate.left.set()

        @app.get("/")
        async def use(found: Annotated[str, Depends(resource)], fail: bool = False) -> str:
            if fail:
                raise HTTPException(409) from Boom()
            happened.append(f"use {found}")
            return found

        with serve(app).client() as client:
            assert client.get("/").json() == "resource"
        assert gate.was_left()
        assert happened == ["open", "use resource", "close"]

    def test_yielding_dependency_sees_the_exception(self, serve: Callable[..., Site], server_log: ServerLog) -> None:
        happened: list[str] = []
        app = FastAPI()

        async def resource() -> AsyncIterator[None]:
            try:
                yield
            except Boom:
                happened.append("roll back")
                raise

        @app.get("/", dependencies=[Depends(resource)])
        async def use() -> None:
            raise Boom("on purpose")

        with serve(app).client() as client:
            assert client.get("/").status_code == 500
        assert happened == ["roll back"]
        assert server_log.take(1) == [f"Exception in ASGI application: {Boom('on purpose')!r}"]

    def test_sync_dependencies_and_handlers_run_in_threads_at_the_same_time(self, serve: Callable[..., Site]) -> None:
        together = threading.Barrier(4)
        app = FastAPI()

        def meet() -> int:
            return together.wait(60)

        @app.get("/")
        def answer(place: Annotated[int, Depends(meet)]) -> int:
            return place

        site = serve(app)

        async def run() -> list[int]:
            async with site.async_client() as client:
                return sorted([answer.json() for answer in await asyncio.gather(*(client.get("/") for _ in range(4)))])

        assert asyncio.run(run()) == [0, 1, 2, 3]


class TestMiddleware:
    def test_function_middleware_gzip_and_cors_together(self, serve: Callable[..., Site]) -> None:
        app = application()
        app.add_middleware(GZipMiddleware, minimum_size=100)
        app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_credentials=True)

        @app.middleware("http")
        async def add_field(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-path"] = request.url.path
            return response

        with serve(app, **SETTINGS).client(headers={"origin": "https://app.example"}) as client:
            read = client.post("/pieces", content=BODY)
            large = client.get("/large")
        assert read.json()["sha256"] == common.sha256(BODY)
        assert read.headers["x-path"] == "/pieces"
        assert read.headers["access-control-allow-credentials"] == "true"
        assert large.headers["content-encoding"] == "gzip"
        assert large.content == LARGE_PIECE * LARGE_PIECES

    def test_exception_handler_answers(self, serve: Callable[..., Site]) -> None:
        app = application()

        @app.exception_handler(Boom)
        async def handle(request: Request, exc: Boom) -> Response:
            return Response(str(exc), status_code=503)

        with serve(app).client() as client:
            response = client.get("/boom")
        assert (response.status_code, response.text) == (503, "on purpose")

    def test_timeout_in_a_handler_cancels_what_it_surrounds(self, serve: Callable[..., Site]) -> None:
        app = FastAPI()

        @app.get("/")
        async def wait() -> str:
            try:
                with anyio.fail_after(0.01):
                    await anyio.sleep_forever()
            except TimeoutError:
                raise HTTPException(504) from None

        with serve(app).client() as client:
            assert [client.get("/").status_code for _ in range(2)] == [504, 504]


class TestMounts:
    def test_sub_application_and_static_files(self, serve: Callable[..., Site]) -> None:
        inner = FastAPI()

        @inner.get("/where")
        async def where(request: Request) -> str:
            return str(request.scope["root_path"])

        app = FastAPI()
        app.mount("/inner", inner)
        app.mount("/static", StaticFiles(directory=common.FOLDER))
        with serve(app).client() as client:
            assert client.get("/inner/where").json() == "/inner"
            assert client.get("/static/file.bin").content == FILE_CONTENT


class TestExample:
    """examples/fastapi_app.py, as a newcomer would start it."""

    @pytest.fixture
    def example(self, serve: Callable[..., Site]) -> Site:
        return serve(importlib.import_module("examples.fastapi_app").app, max_request_size=0)

    def test_page_and_json(self, example: Site) -> None:
        with example.client() as client:
            assert "<h1>It works</h1>" in client.get("/").text
            version = client.get("/version").json()["http_version"]
            assert f"HTTP/{version}" == example.wire.http_version
            assert client.get("/items/42", params={"q": "hello"}).json() == {"item_id": 42, "q": "hello", "answer": 42}

    def test_upload_of_any_size(self, example: Site) -> None:
        with example.client() as client:
            assert client.post("/upload", content=common.in_pieces(BODY)).json() == {"bytes": len(BODY)}

    def test_events_begin_at_once(self, example: Site) -> None:
        with example.client() as client, client.stream("GET", "/events") as response:
            assert next(response.iter_lines()) == "data: 1"
