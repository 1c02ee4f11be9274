"""Quart applications."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from quart import (
    Blueprint,
    Quart,
    Response,
    abort,
    current_app,
    g,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    stream_with_context,
)
from quart.utils import run_sync
from tests.frameworks import common
from tests.frameworks.common import FILE_CONTENT, LARGE_PIECE, LARGE_PIECES, Boom, Tally, variable
from tests.frameworks.gates import Gate
from tests.frameworks.wires import Site

SETTINGS = {"max_request_size": 16 * 1024 * 1024}

routes = Blueprint("routes", __name__)


@routes.get("/hello/<name>")
async def hello(name: str) -> Any:
    return {"name": name, "times": int(request.args.get("times", "1"))}


@routes.post("/json")
async def echo_json() -> Any:
    return {"received": await request.get_json(force=True)}


@routes.post("/form")
async def form() -> Any:
    return dict(await request.form)


@routes.post("/files")
async def files() -> Any:
    found = []
    for upload in (await request.files).getlist("upload"):
        content = upload.read()
        found.append(
            {
                "name": upload.filename,
                "type": upload.content_type,
                "size": len(content),
                "sha256": common.sha256(content),
            }
        )
    return {"note": (await request.form)["note"], "files": found}


@routes.post("/pieces")
async def pieces() -> Any:
    tally = Tally()
    gate = request.args.get("gate")
    async for piece in request.body:
        if piece:
            tally.add(piece)
            if gate and len(tally.pieces) == 1:
                await Gate.named(gate).wait()
    return tally.json()


@routes.get("/connection")
async def connection() -> Any:
    return {"http_version": request.http_version, "scheme": request.scheme, "client": request.remote_addr}


@routes.get("/cookies")
async def cookies() -> Any:
    response = jsonify(request.cookies)
    response.set_cookie("first", "one")
    response.set_cookie("second", "two")
    return response


@routes.get("/redirect")
async def to_anna() -> Any:
    return redirect("/hello/anna")


@routes.get("/nothing")
async def nothing() -> Any:
    return "", 204


@routes.get("/file")
async def file() -> Any:
    return await send_file(common.FOLDER / "file.bin", conditional=True)


@routes.get("/stream")
async def stream() -> Any:
    @stream_with_context
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await Gate.named(request.args["gate"]).wait()
        yield b"second"

    return parts(), {"content-type": "text/plain"}


@routes.get("/events")
async def events() -> Any:
    @stream_with_context
    async def parts() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await Gate.named(request.args["gate"]).wait()
        yield b"data: second\n\n"

    response = await make_response(parts(), {"content-type": "text/event-stream"})
    assert isinstance(response, Response)
    response.timeout = None
    return response


@routes.get("/large")
async def large() -> Any:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE_PIECES):
            yield LARGE_PIECE

    return parts()


@routes.get("/endless")
async def endless() -> Any:
    @stream_with_context
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield LARGE_PIECE
        finally:
            Gate.named(request.args["gate"]).left.set()

    return parts()


@routes.get("/waiting")
async def waiting() -> Any:
    @stream_with_context
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await Gate.named(request.args["gate"]).wait_for_ever()

    response = await make_response(parts(), {"content-type": "text/plain"})
    assert isinstance(response, Response)
    response.timeout = None
    return response


@routes.get("/hang")
async def hang() -> Any:
    gate = Gate.named(request.args["gate"])
    gate.reached.set()
    try:
        # Quart cancels a handler whose client is gone.
        await asyncio.Event().wait()
    finally:
        gate.left.set()


@routes.post("/background")
async def background() -> Any:
    gate = Gate.named(request.args["gate"])

    async def work() -> None:
        await gate.wait()
        gate.left.set()

    current_app.add_background_task(work)
    return "accepted"


@routes.get("/boom")
async def boom() -> Any:
    raise Boom("on purpose")


@routes.get("/boom-midway")
async def boom_midway() -> Any:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Boom("on purpose")

    return parts()


@routes.get("/refused")
async def refused() -> Any:
    abort(418, description="short and stout")


@routes.get("/context/<value>")
async def context(value: str) -> Any:
    variable.set(value)
    g.value = value
    await Gate.named(request.args["gate"]).wait()
    assert g.value == variable.get()
    return jsonify(variable.get())


@routes.get("/state")
async def state() -> Any:
    return {"answer": current_app.config["ANSWER"]}


def application(happened: list[str] | None = None) -> Quart:
    app = Quart(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    app.register_blueprint(routes)

    @app.while_serving
    async def lifespan() -> AsyncIterator[None]:
        app.config["ANSWER"] = 42
        if happened is not None:
            happened.append("startup")
        yield
        if happened is not None:
            happened.append("shutdown")

    return app


class TestRequests(common.Requests):
    pass


class TestBodies(common.Bodies, common.IncrementalUploads):
    pass


class TestStreams(common.Streams, common.Departures):
    pass


class TestFailures(common.Failures):
    logged = ()  # Quart keeps exceptions of handlers to itself


class TestFailuresMidway(common.FailuresMidway):
    logged_midway = (
        f"Exception in ASGI application: {ExceptionGroup('unhandled errors in a TaskGroup', [Boom('on purpose')])!r}",
    )


class TestBackground(common.Background):
    pass


class TestLifespan(common.Lifespan):
    pass


class TestTimeouts:
    def test_answer_that_takes_longer_than_its_timeout_is_cancelled(self, serve: Callable[..., Site]) -> None:
        app = Quart(__name__)
        gate = Gate()

        @app.get("/")
        async def stall() -> Any:
            async def parts() -> AsyncIterator[bytes]:
                try:
                    yield b"first"
                    await asyncio.Event().wait()
                finally:
                    gate.left.set()

            response = await make_response(parts())
            assert isinstance(response, Response)
            response.timeout = 0.05
            return response

        with serve(app).client() as client, client.stream("GET", "/") as response:
            assert next(response.iter_bytes()) == b"first"
            assert gate.was_left()

    def test_body_that_stops_arriving_times_out_in_quart(self, serve: Callable[..., Site]) -> None:
        app = Quart(__name__)
        app.config["BODY_TIMEOUT"] = 0.05
        answered = Gate()

        @app.post("/")
        async def read() -> Any:
            return str(len(await request.get_data()))

        @app.after_request
        async def note(response: Any) -> Any:
            answered.left.set()
            return response

        def content() -> Any:
            yield b"a part"
            answered.was_left()

        with serve(app).client() as client:
            assert client.post("/", content=content()).status_code == 408


class TestHandlers:
    def test_sync_handler_and_run_sync_work_in_threads(self, serve: Callable[..., Site]) -> None:
        app = Quart(__name__)
        gate = Gate()

        @app.get("/wait")
        def wait() -> str:
            gate.wait_in_thread()
            return "waited"

        @app.get("/open")
        async def open_gate() -> str:
            await run_sync(gate.open)()
            return "opened"

        site = serve(app)

        async def run() -> str:
            async with site.async_client() as client:
                waiting = asyncio.create_task(client.get("/wait"))
                assert await asyncio.to_thread(gate.was_reached)
                await client.get("/open")
                return (await waiting).text

        assert asyncio.run(run()) == "waited"

    def test_range_and_conditional_request_of_a_file(self, client: httpx.Client) -> None:
        part = client.get("/file", headers={"range": "bytes=5-14"})
        assert (part.status_code, part.content) == (206, FILE_CONTENT[5:15])
        etag = client.get("/file").headers["etag"]
        assert client.get("/file", headers={"if-none-match": etag}).status_code == 304
