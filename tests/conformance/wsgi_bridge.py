"""WSGI applications over every wire (PEP 3333), checked by wsgiref.validate."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from tests.conformance.wires import Started, Wire

from pounce.middleware.wsgi import WSGI

PATIENCE = 60.0


def echo(environ: Any, start_response: Any) -> Any:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def serve(wire: Wire) -> Iterator[Callable[..., Started]]:
    """A function that serves a WSGI application."""
    with ExitStack() as stack:

        def start(app: Any, settings: dict[str, Any] | None = None, **options: Any) -> Started:
            bridge = WSGI(app, **options)
            stack.callback(bridge.close)
            return wire.share(bridge, **(settings or {}))

        yield start


def shows(*names: str) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        text = "\n".join(str(environ.get(name)) for name in names)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode("latin-1")]

    return app


def test_application_that_is_checked_finds_nothing_wrong(serve: Callable[..., Started]) -> None:
    with serve(validator(echo)).connect() as client:
        response = client.request("POST", "/a%20b?c=d", [(b"content-length", b"4")], b"body")
        assert (response.status, response.body) == (200, b"body")
        assert client.request("GET", "/").body == b""


def test_environment_tells_of_the_request(serve: Callable[..., Started]) -> None:
    app = shows("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "HTTP_X_A", "HTTP_COOKIE")
    server = serve(app, {"root_path": "/root"})
    headers = [(b"content-type", b"a/b"), (b"x-a", b"1"), (b"x-a", b"2"), (b"cookie", b"c=1")]
    response = server.request("GET", "/caf%C3%A9?q=%20", headers)
    assert response.body == "GET\n/root\n/caf\xc3\xa9\nq=%20\na/b\n1,2\nc=1".encode("latin-1")


def test_field_with_an_underscore_is_not_taken_for_its_twin(serve: Callable[..., Started]) -> None:
    response = serve(shows("HTTP_X_A")).request("GET", "/", [(b"x_a", b"evil")])
    assert response.body == b"None"


def test_body_is_read_as_it_comes_and_lines_are_found(serve: Callable[..., Started]) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        source = environ["wsgi.input"]
        seen = [
            source.read(3),
            source.readline(),
            source.readline(2),
            *source.readlines(),
            source.read(),
            source.read(1),
        ]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr(seen).encode()]

    body = b"0123\nabcdef\nlast"
    headers = [(b"content-length", b"%d" % len(body))]
    response = serve(app).request("POST", "/", headers, body)
    assert response.body == repr([b"012", b"3\n", b"ab", b"cdef\n", b"last", b"", b""]).encode()


def test_pieces_are_sent_as_they_are_made(serve: Callable[..., Started]) -> None:
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first "
        assert go_on.wait(PATIENCE)
        yield b""
        yield b"second"

    with serve(validator(app)).connect() as client:
        request = client.open("GET", "/")
        request.read_head()
        assert request.read_piece() == b"first "
        go_on.set()
        assert request.read_piece() == b"second"


def test_write_sends_at_once_and_before_what_is_returned(serve: Callable[..., Started]) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        return [b"returned"]

    assert serve(app).request("GET", "/").body == b"written returned"


def test_large_answer_waits_for_its_reader_and_arrives_whole(serve: Callable[..., Started]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        for _ in range(24):
            yield b"x" * 65536

    response = serve(app).request("GET", "/")
    assert (len(response.body), response.complete) == (24 * 65536, True)


def test_error_before_the_answer_is_500_and_after_it_breaks_it(serve: Callable[..., Started]) -> None:
    closed: list[str] = []

    class Result:
        def __init__(self, path: str) -> None:
            self.path = path

        def __iter__(self) -> Iterator[bytes]:
            if self.path == "/late":
                yield b"some"
            raise RuntimeError("as asked")

        def close(self) -> None:
            closed.append(self.path)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Result(environ["PATH_INFO"])

    server = serve(app)
    assert server.request("GET", "/early").status == 500
    assert not server.request("GET", "/late").complete
    assert closed == ["/early", "/late"]


def test_answer_can_be_replaced_by_that_of_an_error(serve: Callable[..., Started]) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        import sys

        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Busy", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    response = serve(app).request("GET", "/")
    assert (response.status, response.body) == (503, b"sorry")


def forgets(environ: Any, start_response: Any) -> Any:
    return [b"body"]


def says(status: str, *headers: tuple[str, str], body: Any = b"") -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return [body]

    return app


@pytest.mark.parametrize("app", [forgets, says("OK"), says("20 OK"), says("200 OK", body="text")])
def test_application_that_breaks_the_rules_is_an_error(serve: Callable[..., Started], app: Any) -> None:
    assert serve(app).request("GET", "/").status == 500


def test_fields_of_the_next_hop_are_left_out_and_said_once(
    serve: Callable[..., Started], caplog: pytest.LogCaptureFixture
) -> None:
    fields = [("Keep-Alive", "timeout=5"), ("Transfer-Encoding", "chunked"), ("Upgrade", "h2c"), ("X-Own", "1")]
    server = serve(says("200 OK", *fields, body=b"body"))
    for _ in range(2):
        response = server.request("GET", "/")
        assert (response.status, response.body) == (200, b"body")
        names = {name for name, _ in response.headers}
        assert b"x-own" in names
        assert names.isdisjoint((b"keep-alive", b"transfer-encoding", b"upgrade"))
    told = [record.getMessage() for record in caplog.records if "WSGI" in record.getMessage()]
    assert [line.split()[4] for line in told] == ["keep-alive,", "transfer-encoding,", "upgrade,"]


def test_application_may_ask_for_the_end_of_its_connection(wire: Wire, serve: Callable[..., Started]) -> None:
    response = serve(says("200 OK", ("Connection", "close"), body=b"body")).request("GET", "/")
    assert (response.status, response.body) == (200, b"body")
    # Which only HTTP/1.1 has a field for.
    assert ((b"connection", b"close") in list(response.headers)) is wire.case.has_reasons


@pytest.mark.parametrize("kind", [bytearray, memoryview, type("Own", (bytes,), {})])
def test_whatever_holds_bytes_is_sent(serve: Callable[..., Started], kind: Callable[[bytes], Any]) -> None:
    assert serve(says("200 OK", body=kind(b"in one"))).request("GET", "/").body == b"in one"

    def in_pieces(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(kind(b"in "))
        return iter([kind(b"three "), kind(b""), kind(b"pieces")])

    assert serve(in_pieces).request("GET", "/").body == b"in three pieces"


def test_client_that_leaves_ends_the_iteration(serve: Callable[..., Started]) -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 65536

        def close(self) -> None:
            closed.set()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Endless()

    server = serve(app)
    client = server.connect()
    client.open("GET", "/").read_head()
    server.hang_up()
    assert closed.wait(PATIENCE)


def test_file_is_sent_whole(serve: Callable[..., Started], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)

    def app(environ: Any, start_response: Any) -> Any:
        file = path.open("rb")
        file.seek(5)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](file, 4096)

    for sends_files in (True, False):
        response = serve(app, sends_files=sends_files).request("GET", "/")
        assert response.body == path.read_bytes()[5:]


def test_file_behind_what_was_written_is_as_long_as_the_rest(serve: Callable[..., Started], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * 200)

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
        write(b"0123456789")
        return environ["wsgi.file_wrapper"](path.open("rb"), 4096)

    response = serve(app).request("GET", "/")
    assert (response.body, response.complete) == (b"0123456789" + b"f" * 90, True)


def test_last_line_of_errors_needs_no_end(serve: Callable[..., Started], caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.errors"].write("first\nlast")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    assert serve(app).request("GET", "/").body == b"done"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["first", "last"]


def test_number_of_threads_is_bounded_and_all_are_answered(serve: Callable[..., Started]) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def app(environ: Any, start_response: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        environ["wsgi.input"].read()
        with lock:
            running -= 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    server = serve(app, threads=2)
    clients = [server.connect() for _ in range(6)]
    requests = [client.open("GET", "/") for client in clients]
    answers = [request.response().body for request in requests]
    assert answers == [b"done"] * 6
    assert most <= 2


def test_short_body_of_a_slow_client_keeps_no_thread(serve: Callable[..., Started]) -> None:
    server = serve(echo, threads=1)
    with server.connect() as slow, server.connect() as other:
        request = slow.open("POST", "/", [(b"content-length", b"4")], body=True)
        request.send_body(b"bo")
        assert other.request("POST", "/", [(b"content-length", b"5")], b"other").body == b"other"
        request.send_body(b"dy")
        request.end()
        assert request.response().body == b"body"
