"""A Django site: settings, views and the application."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.dispatch import Signal
from django.http import FileResponse, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import async_only_middleware
from django.views import View
from django.views.decorators.http import require_GET, require_POST
from tests.frameworks import common
from tests.frameworks.common import LARGE_PIECE, LARGE_PIECES, Boom, Tally, variable
from tests.frameworks.gates import Gate

happened = Signal()


@async_only_middleware
def adding_middleware(get_response: Any) -> Any:
    async def middleware(request: ASGIRequest) -> Any:
        response = await get_response(request)
        response["x-middleware"] = "async"
        return response

    return middleware


@require_GET
def hello(request: ASGIRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name, "times": int(request.GET.get("times", "1"))})


async def echo_json(request: ASGIRequest) -> HttpResponse:
    return JsonResponse({"received": json.loads(request.body)})


@require_POST
def form(request: ASGIRequest) -> HttpResponse:
    return JsonResponse(request.POST.dict())


@require_POST
def files(request: ASGIRequest) -> HttpResponse:
    return JsonResponse(
        {
            "note": request.POST["note"],
            "files": [
                {
                    "name": upload.name,
                    "type": upload.content_type,
                    "size": upload.size,
                    "sha256": common.sha256(upload.read()),
                }
                for upload in request.FILES.getlist("upload")
            ],
        }
    )


def pieces(request: ASGIRequest) -> HttpResponse:
    tally = Tally()
    while piece := request.read(100_000):
        tally.add(piece)
    return JsonResponse(tally.json())


async def connection(request: ASGIRequest) -> HttpResponse:
    return JsonResponse(
        {
            "http_version": request.scope["http_version"],
            "scheme": request.scheme,
            "client": request.META["REMOTE_ADDR"],
        }
    )


def cookies(request: ASGIRequest) -> HttpResponse:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("first", "one")
    response.set_cookie("second", "two")
    return response


def redirect(request: ASGIRequest) -> HttpResponse:
    return HttpResponseRedirect("/hello/anna")


class Nothing(View):
    async def get(self, request: ASGIRequest) -> HttpResponse:
        return HttpResponse(status=204)


def file(request: ASGIRequest) -> FileResponse:
    return FileResponse(open(common.FOLDER / "file.bin", "rb"))


async def stream(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await Gate.named(request.GET["gate"]).wait()
        yield b"second"

    return StreamingHttpResponse(parts(), content_type="text/plain")


async def events(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await Gate.named(request.GET["gate"]).wait()
        yield "data: second\n\n"

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


async def large(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE_PIECES):
            yield LARGE_PIECE

    return StreamingHttpResponse(parts())


async def endless(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield LARGE_PIECE

    return StreamingHttpResponse(parts())


async def waiting(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await Gate.named(request.GET["gate"]).wait_for_ever()

    return StreamingHttpResponse(parts(), content_type="text/plain")


async def hang(request: ASGIRequest) -> HttpResponse:
    gate = Gate.named(request.GET["gate"])
    gate.reached.set()
    try:
        # Django cancels a view whose client is gone.
        await asyncio.Event().wait()
    finally:
        gate.left.set()
    return HttpResponse()


def boom(request: ASGIRequest) -> HttpResponse:
    raise Boom("on purpose")


async def boom_midway(request: ASGIRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Boom("on purpose")

    return StreamingHttpResponse(parts())


async def refused(request: ASGIRequest) -> HttpResponse:
    return HttpResponse("short and stout", status=418)


async def context(request: ASGIRequest, value: str) -> HttpResponse:
    variable.set(value)
    await Gate.named(request.GET["gate"]).wait()
    # A thread sees what the view has set.
    return JsonResponse(await sync_to_async(variable.get)(), safe=False)


def wait_in_thread(request: ASGIRequest) -> HttpResponse:
    Gate.named(request.GET["gate"]).wait_in_thread()
    return HttpResponse("waited")


async def open_gate(request: ASGIRequest) -> HttpResponse:
    Gate.named(request.GET["gate"]).open()
    return HttpResponse("opened")


async def send_signal(request: ASGIRequest) -> HttpResponse:
    answers = await happened.asend(sender=None, what="something")
    return JsonResponse([answer for _, answer in answers], safe=False)


def sync_stream(request: ASGIRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return StreamingHttpResponse(parts())


settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", f"{__name__}.adding_middleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

urlpatterns = [
    path("hello/<name>", hello),
    path("json", echo_json),
    path("form", form),
    path("files", files),
    path("pieces", pieces),
    path("connection", connection),
    path("cookies", cookies),
    path("redirect", redirect),
    path("nothing", Nothing.as_view()),
    path("file", file),
    path("stream", stream),
    path("events", events),
    path("large", large),
    path("endless", endless),
    path("waiting", waiting),
    path("hang", hang),
    path("boom", boom),
    path("boom-midway", boom_midway),
    path("refused", refused),
    path("context/<value>", context),
    path("wait", wait_in_thread),
    path("open", open_gate),
    path("signal", send_signal),
    path("sync-stream", sync_stream),
]

django_application = get_asgi_application()


async def application(scope: Any, receive: Any, send: Any) -> None:
    try:
        await django_application(scope, receive, send)
    finally:
        if scope.get("path") == "/endless":
            Gate.named(scope["query_string"].decode().removeprefix("gate=")).left.set()
