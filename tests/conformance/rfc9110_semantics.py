"""HTTP semantics (RFC 9110) of answers, on every wire."""

import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from tests.conformance.asgi_receive import Script
from tests.conformance.asgi_send import START, Send, body, start
from tests.conformance.wires import Wire, answer, read_body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await answer(send, scope["method"].encode() + b":" + await read_body(receive))


# 9.1: "a method that is unrecognized or not implemented" is answered 501; RFC 9112 3 has it of one that is too long


@pytest.mark.parametrize(("length", "status"), [(32, 200), (33, 501), (500, 501)])
def test_method_longer_than_any_that_is_known_is_not_implemented(wire: Wire, length: int, status: int) -> None:
    response = wire.share(echo).request("M" * length, "/")
    assert response.status == status
    if status == 501:
        assert response.headers[b"x-pounce-error-code"] == b"POUNCE_PARSE_METHOD_TOO_LONG"


# 9.3.2 HEAD


def test_head_has_the_headers_of_get_and_no_body(wire: Wire) -> None:
    server = wire.share(Send(start([(b"content-type", b"text/plain")]), body(b"12345")), date_header=False)
    with server.connect() as client:
        get, head = client.request("GET", "/"), client.request("HEAD", "/")
    assert head.body == b""
    assert head.complete
    assert sorted(head.headers) == sorted(get.headers)


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_connection_is_used_again_after_a_streamed_answer_to_head(wire: Wire, pieces: int) -> None:
    app = Send(START, *(body(b"piece", True) for _ in range(pieces)), body())
    with wire.share(app).connect() as client:
        for _ in range(3):
            response = client.request("HEAD", "/")
            assert (response.status, response.body, response.complete) == (200, b"", True)


def test_head_keeps_a_content_length_although_no_body_is_sent(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"1234")]), body())
    with wire.share(app).connect() as client:
        for _ in range(2):
            response = client.request("HEAD", "/")
            assert response.headers[b"content-length"] == b"1234"
            assert response.complete


def test_failure_in_an_answer_to_head_is_a_500_without_a_body(wire: Wire) -> None:
    with wire.share(Send()).connect() as client:
        for _ in range(2):
            response = client.request("HEAD", "/")
            assert (response.status, response.body, response.complete) == (500, b"", True)


# 15.3.5, 15.3.6, 15.4.5: answers without content


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("data", [b"", b"not sent"])
@pytest.mark.parametrize("status", [204, 205, 304])
def test_status_without_content_has_none(wire: Wire, status: int, data: bytes, method: str) -> None:
    with wire.share(Send(start(status=status), body(data))).connect() as client:
        for _ in range(2):
            response = client.request(method, "/")
            assert (response.status, response.body, response.complete) == (status, b"", True)


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_content_has_no_transfer_encoding(wire: Wire, status: int) -> None:
    response = wire.share(Send(start(status=status), body(b"x", True), body())).request("GET", "/")
    assert b"transfer-encoding" not in response.headers


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [(b"content-length", b"5")]], ids=repr)
def test_204_has_no_content_length(wire: Wire, headers: Any) -> None:
    assert b"content-length" not in wire.share(Send(start(headers, 204), body())).request("GET", "/").headers


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]], ids=repr)
def test_205_says_that_its_content_is_empty(wire: Wire, headers: Any) -> None:
    response = wire.share(Send(start(headers, 205), body(b"12345"))).request("GET", "/")
    assert response.headers[b"content-length"] == b"0"


def test_304_may_tell_the_length_of_the_200(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"1234"), (b"etag", b'"x"')], 304), body())
    with wire.share(app).connect() as client:
        for _ in range(2):
            response = client.request("GET", "/")
            assert response.headers[b"content-length"] == b"1234"
            assert (response.body, response.complete) == (b"", True)


def test_304_has_no_content_length_of_its_own(wire: Wire) -> None:
    assert b"content-length" not in wire.share(Send(start(status=304), body())).request("GET", "/").headers


# 8.6 Content-Length


def test_empty_answer_has_content_length_zero(wire: Wire) -> None:
    assert wire.share(Send(START, body())).request("GET", "/").headers[b"content-length"] == b"0"


def test_streamed_answer_has_no_content_length(wire: Wire) -> None:
    assert b"content-length" not in wire.share(Send(START, body(b"a", True), body())).request("GET", "/").headers


def test_content_length_is_never_sent_with_transfer_encoding(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]), body(b"a"))
    response = wire.share(app).request("GET", "/")
    assert (response.headers[b"content-length"], response.body) == (b"1", b"a")
    assert b"transfer-encoding" not in response.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_request_with_content_length_zero_has_no_body(wire: Wire, method: str) -> None:
    with wire.share(echo).connect() as client:
        for _ in range(2):
            response = client.request(method, "/", [(b"content-length", b"0")])
            assert response.body == method.encode() + b":"


# 9.1 Methods


@pytest.mark.parametrize(
    "method",
    ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "PURGE", "BREW", "X-a!#$%&'*+.^_`|~"],
)
def test_every_method_reaches_the_application(wire: Wire, method: str) -> None:
    assert wire.share(echo).request(method, "/").body == method.encode() + b":"


def test_methods_are_case_sensitive(wire: Wire) -> None:
    assert wire.share(echo).request("get", "/").body == b"get:"


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "QUERY"])
def test_body_is_delivered_whatever_the_method(wire: Wire, method: str) -> None:
    assert wire.share(echo).request(method, "/", body=b"data").body == method.encode() + b":data"


# 15 Status codes


@pytest.mark.parametrize("status", [200, 201, 301, 404, 418, 422, 429, 500, 503, 511])
def test_registered_status_has_its_phrase(wire: Wire, status: int) -> None:
    response = wire.share(Send(start(status=status), body())).request("GET", "/")
    assert response.status == status
    assert response.reason == (HTTPStatus(status).phrase.encode() if wire.case.has_reasons else b"")


@pytest.mark.parametrize("status", [299, 499, 599, 600, 799, 999])
def test_unregistered_status_is_sent_without_a_phrase(wire: Wire, status: int) -> None:
    response = wire.share(Send(start(status=status), body(b"x"))).request("GET", "/")
    assert (response.status, response.reason, response.body) == (status, b"", b"x")


def test_status_may_be_an_enumeration_member(wire: Wire) -> None:
    assert wire.share(Send(start(status=HTTPStatus.CREATED), body())).request("GET", "/").status == 201


# 6.6.1 Date


def test_date_is_an_imf_fixdate_of_now(wire: Wire) -> None:
    before = datetime.now(UTC)
    value = wire.share(Send(START, body())).request("GET", "/").headers[b"date"].decode()
    assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", value)
    sent = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert timedelta(seconds=-2) <= sent - before <= timedelta(seconds=10)


def test_errors_of_the_server_have_a_date_and_a_server(wire: Wire) -> None:
    headers = wire.share(Send()).request("GET", "/").headers
    assert headers[b"date"].endswith(b" GMT")
    assert headers[b"server"] == b"pounce"


# 10.1.1 Expect

EXPECT = (b"expect", b"100-continue")


def test_100_is_sent_when_the_application_reads(wire: Wire) -> None:
    class Reads(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.put("begun")
            await self.wait_for_the_test()
            await answer(send, await read_body(receive))

    app = Reads()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", [EXPECT, (b"content-length", b"4")], body=True)
        app.next()
        app.go.set()
        assert request.read_informational().status == 100
        request.send_body(b"data")
        request.end()
        response = request.response()
        assert (response.status, response.body) == (200, b"data")
        assert [head.status for head in response.informational] == [100]


def test_100_is_not_sent_when_the_application_refuses_without_reading(wire: Wire) -> None:
    with wire.share(Send(start(status=403), body(b"no"))).connect() as client:
        request = client.open("POST", "/", [EXPECT, (b"content-length", b"1000")], body=True)
        response = request.response()
        assert (response.status, response.body, response.informational) == (403, b"no", [])


def test_100_is_not_sent_for_a_request_without_a_body(wire: Wire) -> None:
    with wire.share(echo).connect() as client:
        response = client.open("POST", "/", [EXPECT, (b"content-length", b"0")]).response()
        assert (response.status, response.informational) == (200, [])


def test_100_is_sent_once(wire: Wire) -> None:
    class ReadsTwice(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            first = await receive()
            self.events.put(first["body"])
            await answer(send, first["body"] + await read_body(receive))

    app = ReadsTwice()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", [EXPECT], body=True)
        assert request.read_informational().status == 100
        request.send_body(b"one")
        assert app.next() == b"one"
        request.send_body(b"two")
        request.end()
        response = request.response()
        assert response.body == b"onetwo"
        assert len(response.informational) == 1


def test_unknown_expectation_is_refused_with_417(wire: Wire) -> None:
    assert wire.share(echo).request("GET", "/", [(b"expect", b"a-miracle")]).status == 417


def test_expectation_is_case_insensitive(wire: Wire) -> None:
    with wire.share(echo).connect() as client:
        request = client.open("POST", "/", [(b"expect", b"100-Continue")], body=True)
        assert request.read_informational().status == 100
        request.send_body(b"x")
        request.end()
        assert request.response().body == b"POST:x"


# 15.5.14


@pytest.mark.parametrize("known", [True, False], ids=["announced", "streamed"])
def test_body_above_the_limit_is_refused_with_413(wire: Wire, known: bool) -> None:
    with wire.share(echo, max_request_size=1000).connect() as client:
        headers = [(b"content-length", b"1001")] if known else []
        request = client.open("POST", "/", headers, body=True)
        request.send_body(bytes(1001))
        request.end()
        assert request.response().status == 413


def test_body_of_exactly_the_limit_is_taken(wire: Wire) -> None:
    assert wire.share(echo, max_request_size=1000).request("POST", "/", body=bytes(1000)).status == 200
