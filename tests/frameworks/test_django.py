"""Django sites, with sync and async views."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.core.signals import request_finished, request_started
from tests.frameworks import common, django_site
from tests.frameworks.common import FILE_CONTENT
from tests.frameworks.gates import Gate
from tests.frameworks.wires import Site

SETTINGS = {"max_request_size": 16 * 1024 * 1024}


def application() -> Any:
    return django_site.application


class TestRequests(common.Requests):
    def test_async_middleware_surrounds_sync_and_async_views(self, client: httpx.Client) -> None:
        assert client.get("/hello/anna").headers["x-middleware"] == "async"
        assert client.get("/connection").headers["x-middleware"] == "async"


class TestBodies(common.Bodies):
    pass


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
class TestStreams(common.Streams, common.Departures):
    def test_sync_iterator_is_streamed(self, client: httpx.Client) -> None:
        assert client.get("/sync-stream").text == "0\n1\n2\n"


class TestFailures(common.Failures):
    logged = ()  # Django keeps exceptions of views to itself


class TestFailuresMidway(common.FailuresMidway):
    pass


class TestLifespan:
    def test_application_without_lifespan_is_served(self, site: Site) -> None:
        with site.client() as client:
            assert client.get("/hello/anna").status_code == 200


class TestThreads:
    def test_async_view_answers_while_a_sync_view_waits(self, site: Site) -> None:
        async def run() -> list[str]:
            gate = Gate()
            async with site.async_client(params={"gate": gate.key}) as client:
                waiting = asyncio.create_task(client.get("/wait"))
                assert await asyncio.to_thread(gate.was_reached)
                opened = await client.get("/open")
                return [opened.text, (await waiting).text]

        assert asyncio.run(run()) == ["opened", "waited"]


class TestSignals:
    def test_sync_and_async_receivers_answer(self, client: httpx.Client) -> None:
        def receive(what: str, **_: Any) -> str:
            return f"sync {what}"

        async def areceive(what: str, **_: Any) -> str:
            return f"async {what}"

        django_site.happened.connect(receive)
        django_site.happened.connect(areceive)
        try:
            assert client.get("/signal").json() == ["sync something", "async something"]
        finally:
            django_site.happened.disconnect(receive)
            django_site.happened.disconnect(areceive)

    def test_request_signals_surround_a_request(self, client: httpx.Client) -> None:
        seen: list[str] = []
        gate = Gate()

        def started(scope: Any, **_: Any) -> None:
            seen.append(scope["path"])

        def finished(**_: Any) -> None:
            # The request of an earlier test may end now; it counts for nothing before this one's start.
            if seen:
                gate.left.set()

        request_started.connect(started)
        request_finished.connect(finished)
        try:
            client.get("/hello/anna")
            assert gate.was_left()
        finally:
            request_started.disconnect(started)
            request_finished.disconnect(finished)
        assert seen == ["/hello/anna"]


class TestAnswers:
    def test_answers_are_compressed_where_asked_for(self, client: httpx.Client) -> None:
        whole = client.get("/large", headers={"accept-encoding": "gzip"})
        assert whole.headers["content-encoding"] == "gzip"
        assert common.sha256(whole.content) == common.sha256(common.LARGE_PIECE * common.LARGE_PIECES)

    def test_root_path_is_the_script_name(self, serve: Callable[..., Site]) -> None:
        with serve(application(), root_path="/site").client(follow_redirects=False) as client:
            assert client.get("/hello/anna").json()["name"] == "anna"

    def test_file_is_closed_and_served_again(self, client: httpx.Client) -> None:
        contents = [client.get("/file", headers={"accept-encoding": "identity"}).content for _ in range(3)]
        assert contents == [FILE_CONTENT] * 3
