"""Server-Timing, over every wire: what is told in the head, what in the trailer section, and to whom."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.client import Response
from tests.conformance.wires import Wire, answer

METRIC = r"[a-z]+;dur=[0-9]+\.[0-9]{3}"
TAKES_TRAILERS = [(b"te", b"trailers")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, b"body", headers=[(b"server-timing", b"db;dur=7")])


async def of_known_length(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"body", headers=[(b"content-length", b"4")])


def told(fields: Any) -> list[str]:
    """Names of the metrics of the server's own."""
    names: list[str] = []
    for name, value in fields or ():
        if name == b"server-timing" and value != b"db;dur=7":
            assert re.fullmatch(f"{METRIC}(, {METRIC})*", value.decode())
            names += [part.partition(";")[0] for part in value.decode().split(", ")]
    return names


def ask(wire: Wire, application: Any, fields: Any = (), method: str = "GET", **settings: Any) -> Response:
    server = wire.share(application, server_timing=True, **settings)
    # HTTP/1.1: TE is for the next hop (RFC 9110 10.1.4).
    named = [(b"connection", b"te")] if fields and wire.case.has_reasons else []
    return server.request(method, "/", [*fields, *named])


def test_head_tells_all_that_is_known_to_a_client_that_takes_no_trailers(wire: Wire) -> None:
    response = ask(wire, app)
    assert told(response.headers) == ["parse", "queue", "app", "total"]
    assert (b"server-timing", b"db;dur=7") in list(response.headers)
    assert (response.body, response.trailers or []) == (b"body", [])


def test_application_and_total_are_in_the_trailers_of_a_client_that_takes_them(wire: Wire) -> None:
    response = ask(wire, app, TAKES_TRAILERS)
    assert (told(response.headers), told(response.trailers)) == (["parse", "queue"], ["app", "total"])
    assert dict(response.headers)[b"trailer"] == b"server-timing"
    assert response.body == b"body"


def test_trailers_follow_an_answer_of_known_length_where_the_wire_can(wire: Wire) -> None:
    response = ask(wire, of_known_length, TAKES_TRAILERS)
    told_last = [] if wire.case.has_reasons else ["app", "total"]
    assert told(response.trailers) == told_last
    assert told(response.headers) == ["parse", "queue", *([] if told_last else ["app", "total"])]
    assert response.body == b"body"


def test_trailers_of_the_application_stay(wire: Wire) -> None:
    async def trails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-b", b"2")]})

    response = ask(wire, trails, TAKES_TRAILERS, asgi_extensions=("trailers",))
    assert [name for name, _ in response.trailers or ()] == [b"x-a", b"x-b", b"server-timing"]
    assert told(response.trailers) == ["app", "total"]


def test_trailers_follow_a_file_that_leaves_by_itself(wire: Wire, tmp_path: Path) -> None:
    """It is of a size that no peer takes at once."""
    file = tmp_path / "file"
    file.write_bytes(b"f" * 6_000_000)

    async def sends_file(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(file)})

    response = ask(wire, sends_file, TAKES_TRAILERS)
    assert response.body == file.read_bytes()
    assert told(response.trailers) == ["app", "total"]


def test_answer_without_a_body_tells_it_in_its_head(wire: Wire) -> None:
    assert told(ask(wire, app, TAKES_TRAILERS, method="HEAD").headers) == ["parse", "queue", "app", "total"]


def test_answers_of_the_server_tell_it_too(wire: Wire) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    response = ask(wire, fails, TAKES_TRAILERS, request_id=True)
    assert (response.status, told(response.headers)) == (500, ["parse", "queue", "app", "total"])
    assert b"x-request-id" in dict(response.headers)


def test_times_add_up(wire: Wire) -> None:
    response = ask(wire, app, TAKES_TRAILERS)
    values = b", ".join(
        value for name, value in [*response.headers, *(response.trailers or ())] if name == b"server-timing"
    )
    times = {name.decode(): float(time) for name, time in re.findall(rb"([a-z]+);dur=([0-9.]+)", values)}
    assert times["parse"] > 0
    # Rounded to microseconds each.
    assert times["parse"] + times["queue"] + times["app"] <= times["total"] + 0.01


@pytest.mark.parametrize("fields", [[], TAKES_TRAILERS])
def test_nothing_is_told_where_it_is_off(wire: Wire, fields: Any) -> None:
    response = wire.share(of_known_length).request("GET", "/", fields)
    assert b"server-timing" not in dict([*response.headers, *(response.trailers or ())])
