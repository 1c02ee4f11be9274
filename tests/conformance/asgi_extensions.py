"""Response extensions: trailers, early hints, files by path and by descriptor."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.asgi_receive import Script
from tests.conformance.asgi_send import START, Send, body, start
from tests.conformance.wires import Wire, answer

PROMISED = start(trailers=True)


def trailers(*fields: tuple[bytes, bytes], more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": list(fields), "more_trailers": more}


def pathsend(path: object) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


@pytest.fixture(params=[0, 1, 5000, 1_000_000], ids=lambda size: f"{size}-bytes")
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(251)) * (request.param // 251) + b"." * (request.param % 251))
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    return path


# Trailers


def test_trailers_follow_the_body(wire: Wire) -> None:
    app = Send(PROMISED, body(b"data"), trailers((b"X-Sum", b"1"), (b"x-b", b"2")))
    response = wire.share(app).request("GET", "/", [(b"te", b"trailers")])
    assert (response.body, response.complete) == (b"data", True)
    assert response.trailers == [(b"x-sum", b"1"), (b"x-b", b"2")]


def test_trailers_may_come_in_several_messages(wire: Wire) -> None:
    app = Send(PROMISED, body(b"a", True), body(b"b"), trailers((b"x-a", b"1"), more=True), trailers((b"x-b", b"2")))
    response = wire.share(app).request("GET", "/")
    assert response.body == b"ab"
    assert response.trailers == [(b"x-a", b"1"), (b"x-b", b"2")]


def test_trailers_that_were_promised_may_be_empty(wire: Wire) -> None:
    response = wire.share(Send(PROMISED, body(b"data"), trailers())).request("GET", "/")
    assert (response.body, response.trailers, response.complete) == (b"data", [], True)


def test_trailers_that_never_come_break_the_answer_visibly(wire: Wire) -> None:
    response = wire.share(Send(PROMISED, body(b"data"))).request("GET", "/")
    assert not response.complete


def test_trailers_that_were_not_promised_raise(wire: Wire) -> None:
    app = Send(START, body(b"data", True), trailers((b"x-a", b"1")))
    assert not wire.share(app).request("GET", "/").complete
    assert isinstance(app.next(), Exception)


@pytest.mark.parametrize("field", [(b"x-a", b"1\r\nx: 2"), (b"x a", b"1"), (b"x-a", "1")], ids=repr)
def test_trailer_that_may_not_be_sent_breaks_the_answer(wire: Wire, field: Any) -> None:
    app = Send(PROMISED, body(b"data"), trailers(field))
    response = wire.share(app).request("GET", "/")
    assert not response.complete
    assert isinstance(app.next(), Exception)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_trailers_of_an_answer_without_a_body_are_no_error(
    wire: Wire, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Send(start(trailers=True, status=200 if method == "HEAD" else 204), body(), trailers((b"x-a", b"1")))
    server = wire.share(app)
    with server.connect() as client:
        for _ in range(2):
            response = client.request(method, "/")
            assert (response.body, response.complete) == (b"", True)
    server.stop()
    assert caplog.text == ""


# Early hints


def test_early_hints_come_before_the_answer(wire: Wire) -> None:
    class Hints(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
            await send({"type": "http.response.early_hint", "links": links})
            await self.wait_for_the_test()
            await answer(send, b"page")

    app = Hints()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        hint = request.read_informational()
        assert hint.status == 103
        assert hint.headers.all(b"link") == [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
        app.go.set()
        assert request.response().body == b"page"


def test_early_hints_may_be_sent_more_than_once(wire: Wire) -> None:
    hints = [{"type": "http.response.early_hint", "links": [b"</%d>" % number]} for number in range(2)]
    response = wire.share(Send(*hints, START, body(b"page"))).request("GET", "/")
    assert [hint.headers.all(b"link") for hint in response.informational] == [[b"</0>"], [b"</1>"]]
    assert response.body == b"page"


def test_early_hint_that_may_not_be_sent_is_a_500(wire: Wire) -> None:
    app = Send({"type": "http.response.early_hint", "links": [b"</a>\r\nx-evil: 1"]}, START, body())
    response = wire.share(app).request("GET", "/")
    assert (response.status, response.informational) == (500, [])


# Files by path


def test_file_is_sent_by_its_path(wire: Wire, file: Path) -> None:
    response = wire.share(Send(START, pathsend(file))).request("GET", "/")
    assert response.body == file.read_bytes()
    assert (response.status, response.complete) == (200, True)
    assert response.headers[b"content-length"] == b"%d" % file.stat().st_size


def test_file_with_a_content_length_of_the_application(wire: Wire, file: Path) -> None:
    length = b"%d" % file.stat().st_size
    response = wire.share(Send(start([(b"content-length", length)]), pathsend(file))).request("GET", "/")
    assert (response.body, response.complete) == (file.read_bytes(), True)
    assert response.headers[b"content-length"] == length


def test_trailers_follow_a_file(wire: Wire, file: Path) -> None:
    begin = {**START, "trailers": True}
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]}
    response = wire.share(Send(begin, pathsend(file), trailers)).request("GET", "/")
    assert (response.body, response.complete) == (file.read_bytes(), True)
    assert list(response.trailers or ()) == [(b"x-sum", b"7")]


def test_connection_is_used_again_after_a_file(wire: Wire, file: Path) -> None:
    with wire.share(Send(START, pathsend(file))).connect() as client:
        for _ in range(3):
            assert client.request("GET", "/").body == file.read_bytes()


def test_application_goes_on_once_the_file_is_sent(wire: Wire, digits: Path) -> None:
    class Then(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(pathsend(digits))
            self.events.put("sent")

    app = Then()
    assert wire.share(app).request("GET", "/").body == b"0123456789"
    assert app.next() == "sent"


def test_head_of_a_file_has_its_length_and_no_body(wire: Wire, digits: Path) -> None:
    response = wire.share(Send(START, pathsend(digits))).request("HEAD", "/")
    assert (response.headers[b"content-length"], response.body, response.complete) == (b"10", b"", True)


def test_file_that_is_missing_is_a_500(wire: Wire, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = Send(START, pathsend(tmp_path / "missing"))
    server = wire.share(app)
    response = server.request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert isinstance(app.next(), FileNotFoundError)
    server.stop()
    assert "Exception in ASGI application" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_regular_file_is_a_500_and_blocks_nobody(wire: Wire, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    response = wire.share(Send(START, pathsend(path))).request("GET", "/")
    assert (response.status, response.complete) == (500, True)


def test_file_with_a_wrong_content_length_is_a_500(wire: Wire, digits: Path) -> None:
    app = Send(start([(b"content-length", b"11")]), pathsend(digits))
    response = wire.share(app).request("GET", "/")
    assert (response.status, response.complete) == (500, True)


def test_file_after_a_head_that_has_left_already_is_sent(wire: Wire, digits: Path) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await self.wait_for_the_test()
            await send(pathsend(digits))

    app = Slow()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        request.read_head()
        app.go.set()
        response = request.response()
        assert (response.body, response.complete) == (b"0123456789", True)


def test_file_after_a_part_of_the_body_is_out_of_order(wire: Wire, digits: Path) -> None:
    app = Send(START, body(b"part", True), pathsend(digits))
    assert not wire.share(app).request("GET", "/").complete
    assert isinstance(app.next(), Exception)


def test_files_are_closed(wire: Wire, digits: Path) -> None:
    def open_descriptors() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(digits) for fd in os.listdir("/proc/self/fd"))

    server = wire.share(Send(START, pathsend(digits)))
    for method in ("GET", "HEAD"):
        server.request(method, "/")
    server.stop()
    assert open_descriptors() == 0


def test_client_that_goes_within_a_file_is_no_error(
    wire: Wire, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    app = Send(START, pathsend(path))
    server = wire.share(app)
    with server.connect() as client:
        request = client.open("GET", "/")
        request.read_piece()
        request.abort()
        assert isinstance(app.next(), OSError)
    server.stop()
    assert "Exception in ASGI application" not in caplog.text


# Middlewares that know start and body alone, as published ones do


class KnowsTwoMessages:
    """A middleware that passes these on, or with `holds` keeps the start until a body comes, and drops all others."""

    def __init__(self, app: Any, holds: bool) -> None:
        self.app, self.holds = app, holds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        held: list[Any] = []

        async def send_what_is_known(message: Any) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                if self.holds:
                    return
            elif message["type"] != "http.response.body":
                return
            while held:
                await send(held.pop())
            if message["type"] == "http.response.body":
                await send(message)

        await self.app(scope, receive, send_what_is_known)


class ByPathWhereOffered(Script):
    """Answers with a file, as frameworks do: by its path where that is offered."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if "http.response.pathsend" in scope["extensions"]:
            await send(pathsend(self.path))
        else:
            await send(body(self.path.read_bytes()))


@pytest.mark.parametrize("holds", [False, True], ids=["passes-the-start", "holds-the-start"])
def test_file_passes_a_middleware_that_knows_start_and_body_alone(wire: Wire, digits: Path, holds: bool) -> None:
    server = wire.share(KnowsTwoMessages(ByPathWhereOffered(digits), holds))
    response = server.request("GET", "/")
    assert (response.status, response.body, response.complete) == (200, b"0123456789", True)


@pytest.mark.parametrize("holds", [False, True], ids=["passes-the-start", "holds-the-start"])
def test_log_says_why_an_answer_that_was_offered_a_way_may_be_lost(
    wire: Wire, digits: Path, holds: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = wire.share(KnowsTwoMessages(ByPathWhereOffered(digits), holds), asgi_extensions=["early_hint", "pathsend"])
    response = server.request("GET", "/")
    assert (response.status, response.headers[b"x-pounce-error-code"]) == (500, b"POUNCE_APP_NO_RESPONSE")
    server.stop()
    (line,) = [record.getMessage() for record in caplog.records if "without completing" in record.getMessage()]
    assert "POUNCE_APP_NO_RESPONSE" in line
    assert "asgi_extensions offers pathsend:" in line


def test_log_names_no_extension_where_none_is_offered(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    server = wire.share(Send(START))
    assert server.request("GET", "/").status == 500
    server.stop()
    assert "without completing its response" in caplog.text
    assert "asgi_extensions" not in caplog.text


# Files by descriptor


class ZeroCopy(Script):
    """Sends parts of a file, each given by the arguments of its message."""

    def __init__(self, path: Path, *parts: dict[str, Any], headers: Any = (), by_number: bool = False) -> None:
        super().__init__()
        self.path, self.parts, self.headers, self.by_number = path, parts, headers, by_number

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        await send(start(self.headers))
        with self.path.open("rb", buffering=0) as file:
            given = file.fileno() if self.by_number else file
            for part in self.parts:
                await send({"type": "http.response.zerocopysend", "file": given, **part})


@pytest.mark.parametrize(
    ("part", "expected"),
    [({}, b"0123456789"), ({"offset": 3, "count": 4}, b"3456"), ({"offset": 8, "count": 9}, b"89")],
    ids=str,
)
def test_part_of_a_file_is_sent_by_its_path_on_every_wire(
    wire: Wire, tmp_path: Path, part: dict[str, Any], expected: bytes
) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    sent = {"type": "pounce.response.sendfile", "path": str(path), "more_body": True, **part}
    server = wire.share(Send(start(), sent, body(b"!")))
    response = server.request("GET", "/")
    assert (response.body, response.complete) == (expected + b"!", True)


def test_path_that_is_no_file_breaks_off_a_part(wire: Wire, tmp_path: Path) -> None:
    server = wire.share(Send(start(), {"type": "pounce.response.sendfile", "path": str(tmp_path)}))
    assert server.request("GET", "/").status == 500


@pytest.fixture
def zero_copy_wire(wire: Wire) -> Wire:
    if not wire.case.sends_files:
        pytest.skip("not offered")
    return wire


@pytest.mark.parametrize("by_number", [True, False], ids=["descriptor", "file-object"])
def test_whole_file_is_sent_from_its_position(zero_copy_wire: Wire, file: Path, by_number: bool) -> None:
    response = zero_copy_wire.share(ZeroCopy(file, {}, by_number=by_number)).request("GET", "/")
    assert (response.body, response.complete) == (file.read_bytes(), True)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"offset": 3}, b"3456789"),
        ({"count": 4}, b"0123"),
        ({"offset": 2, "count": 3}, b"234"),
        ({"offset": 8, "count": 100}, b"89"),
        ({"offset": 10}, b""),
        ({"offset": 99}, b""),
        ({"offset": 0, "count": 0}, b""),
    ],
    ids=repr,
)
def test_part_of_a_file_is_sent(zero_copy_wire: Wire, digits: Path, part: dict[str, Any], expected: bytes) -> None:
    response = zero_copy_wire.share(ZeroCopy(digits, part)).request("GET", "/")
    assert (response.body, response.complete) == (expected, True)


def test_parts_of_a_file_follow_each_other(zero_copy_wire: Wire, digits: Path) -> None:
    app = ZeroCopy(
        digits,
        {"offset": 5, "count": 2, "more_body": True},
        {"offset": 0, "count": 3, "more_body": True},
        {"offset": 9},
    )
    response = zero_copy_wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"560129", True)


def test_parts_without_an_offset_go_on_where_the_last_one_ended(zero_copy_wire: Wire, digits: Path) -> None:
    app = ZeroCopy(digits, {"count": 4, "more_body": True}, {"count": 3, "more_body": True}, {})
    assert zero_copy_wire.share(app).request("GET", "/").body == b"0123456789"


def test_parts_of_a_file_and_bytes_may_be_mixed(zero_copy_wire: Wire, digits: Path) -> None:
    class Mixed(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"<", True))
            with digits.open("rb") as file:
                await send({"type": "http.response.zerocopysend", "file": file, "count": 3, "more_body": True})
            await send(body(b">"))

    with zero_copy_wire.share(Mixed()).connect() as client:
        for _ in range(2):
            response = client.request("GET", "/")
            assert (response.body, response.complete) == (b"<012>", True)


def test_part_of_a_file_with_its_content_length(zero_copy_wire: Wire, digits: Path) -> None:
    app = ZeroCopy(digits, {"offset": 5}, headers=[(b"content-length", b"5")])
    with zero_copy_wire.share(app).connect() as client:
        assert client.request("GET", "/").body == b"56789"
        assert client.request("HEAD", "/").headers[b"content-length"] == b"5"
        assert client.request("GET", "/").body == b"56789"
