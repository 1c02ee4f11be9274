"""aioquic and niquests, in an ordinary Python, against this server: see tests/clients."""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from tests.clients.ordinary import run_client
from tests.conformance.wires import Started, answer, read_body

from .relay import Relay

Start = Callable[..., Started]
UNKNOWN_VERSION, VERSION_2 = 0x1A2A3A4A, 0x6B3343CF
HELLO = ["ask", "GET", "/hello"]


def content(size: int) -> bytes:
    """What the clients send too."""
    return b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]


@cache
def large_body() -> bytes:
    return content(2_000_000)


async def site(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    body = await read_body(receive)
    if path == "/hello":
        await answer(send, b"hello over %b" % scope["http_version"].encode())
    elif path == "/echo":
        await answer(send, body)
    elif path == "/large":
        await answer(send, large_body())
    elif path == "/who":
        await answer(send, str(scope["client"][1]).encode())
    elif path == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
        await answer(send, b"late")


async def trailers(scope: Any, receive: Any, send: Any) -> None:
    """The trailers of the request come back as those of the answer."""
    fields: Any = []
    more = True
    while more:
        message = await receive()
        fields, more = message.get("trailers", fields), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"body"})
    await send({"type": "http.response.trailers", "headers": fields})


def aioquic(server: Started, *steps: list[Any], port: int = 0, **task: Any) -> Any:
    """What aioquic reports of these steps."""
    where = {"host": server.server.host, "port": port or server.server.port, "ca": server.certificate.certfile}
    return run_client("aioquic_client", **where, steps=steps, **task)


def is_whole(report: Any, expected: bytes) -> bool:
    return (report["status"], report["size"], report["sha256"], report["ended"]) == (
        [200], len(expected), hashlib.sha256(expected).hexdigest(), True,
    )  # fmt: skip


@pytest.mark.parametrize(("loss", "reordering"), [(0, 0), (0.01, 0), (0.05, 0), (0, 0.1), (0.02, 0.05)])
def test_bodies_arrive_whole(start: Start, loss: float, reordering: float) -> None:
    server = start(site)
    relay = Relay((server.server.host, server.server.port), loss, reordering, seed=11)
    steps = [HELLO, ["ask", "GET", "/large"], ["ask", "POST", "/echo", 400_000], *[["ask", "POST", "/echo", 100]] * 10]
    with relay.running():
        hello, large, echo, *small = aioquic(server, *steps, port=relay.port)["answers"]
    assert hello["text"] == "hello over 3"
    assert is_whole(large, large_body())
    assert is_whole(echo, content(400_000))
    assert all(is_whole(report, content(100)) for report in small)
    assert (relay.lost > 0, relay.reordered > 0) == (loss > 0, reordering > 0)


def test_large_upload(start: Start) -> None:
    [report] = aioquic(start(site), ["ask", "POST", "/echo", 5_000_000])["answers"]
    assert is_whole(report, content(5_000_000))


def test_interim_answer_comes_before_the_answer(start: Start) -> None:
    [report] = aioquic(start(site), ["ask", "GET", "/hints"])["answers"]
    assert (report["status"], report["text"]) == ([103, 200], "late")


def test_trailers_in_both_directions(start: Start) -> None:
    [report] = aioquic(start(trailers), ["ask", "POST", "/", 10, [["x-sum", "42"]]])["answers"]
    assert (report["text"], report["trailers"]) == ("body", {"x-sum": "42"})


def test_requests_at_a_time(start: Start) -> None:
    [texts] = aioquic(start(site), ["ask together", "/hello", 100])["answers"]
    assert texts == ["hello over 3"] * 100


def test_download_survives_a_change_of_port(start: Start) -> None:
    before, download, after = aioquic(
        start(site), ["ask", "GET", "/who"], ["ask and move", "/large"], ["ask", "GET", "/who"]
    )["answers"]
    assert is_whole(download, large_body())
    assert before["text"] != after["text"]


def test_keys_are_updated(start: Start) -> None:
    report = aioquic(start(site), HELLO, ["update keys"], HELLO, ["ask", "GET", "/large"])
    assert report["key_phase"] == 1
    assert is_whole(report["answers"][3], large_body())


def test_client_proves_its_address(start: Start) -> None:
    report = aioquic(start(site, http3_retry_above=0), HELLO)
    assert (report["retries"], report["answers"][0]["text"]) == (1, "hello over 3")


def test_version_is_negotiated(start: Start) -> None:
    report = aioquic(start(site), HELLO, version=UNKNOWN_VERSION)
    assert (report["version"], report["answers"][0]["text"]) == (1, "hello over 3")


@pytest.mark.parametrize("retries", [0, 1])
def test_second_version_is_spoken(start: Start, retries: int) -> None:
    """RFC 9369."""
    server = start(site, **({"http3_retry_above": 0} if retries else {}))
    report = aioquic(server, HELLO, ["ask", "GET", "/large"], version=VERSION_2)
    assert (report["version"], report["retries"], report["answers"][0]["text"]) == (VERSION_2, retries, "hello over 3")
    assert is_whole(report["answers"][1], large_body())


@pytest.mark.parametrize("capacity", [0, 100, 65536])
def test_dynamic_table_may_have_any_size(start: Start, capacity: int) -> None:
    server = start(site, http3_qpack_max_table_capacity=capacity)
    answers = aioquic(server, *[HELLO] * 5, ["ask together", "/hello", 50])["answers"]
    assert [report["text"] for report in answers[:5]] + answers[5] == ["hello over 3"] * 55


def test_niquests_comes_over_by_alt_svc(start: Start) -> None:
    server = start(site)
    report = run_client("niquests_client", url=f"https://localhost:{server.server.port}")
    assert report["first"]["version"] < 30
    hello, echo, large, hints = report["answers"]
    assert {answer["version"] for answer in report["answers"]} == {30}
    assert hello["text"] == "hello over 3"
    assert echo["sha256"] == hashlib.sha256(content(1_280_000)).hexdigest()
    assert large["sha256"] == hashlib.sha256(large_body()).hexdigest()
    assert (hints["text"], report["early"]) == ("late", [103])
