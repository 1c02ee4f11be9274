"""Applications of Flask and Django as WSGI, over every wire."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from django.core.wsgi import get_wsgi_application
from tests.conformance.wires import Wire
from tests.frameworks import django_site

from pounce.middleware.wsgi import WSGI

CONTENT = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(8 * 1024))
"""256 KiB in which no two parts are alike."""
BOUNDARY = b"--parts"


def flask_site() -> flask.Flask:
    site = flask.Flask(__name__)

    @site.get("/hello/<name>")
    def hello(name: str) -> Any:
        return {"name": name, "times": int(flask.request.args.get("times", "1"))}

    @site.post("/files")
    def files() -> Any:
        upload = flask.request.files["upload"]
        found = {"name": upload.filename, "sha256": hashlib.sha256(upload.read()).hexdigest()}
        return {"note": flask.request.form["note"], "files": [found]}

    @site.post("/form")
    def form() -> Any:
        return flask.request.form.to_dict()

    @site.get("/sync-stream")
    def stream() -> Any:
        def pieces() -> Iterator[str]:
            yield from (f"{number}\n" for number in range(3))

        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")

    @site.get("/boom")
    def boom() -> Any:
        raise RuntimeError("boom")

    return site


def django() -> Any:
    assert django_site.application
    return get_wsgi_application()


@pytest.fixture(scope="module", params=[flask_site, django], ids=["Flask", "Django"])
def site(request: pytest.FixtureRequest) -> Iterator[WSGI]:
    bridge = WSGI(request.param())
    yield bridge
    bridge.close()


def test_view_has_its_path_and_query(wire: Wire, site: Any) -> None:
    response = wire.share(site).request("GET", "/hello/anna%20b?times=3")
    assert (response.status, json.loads(response.body)) == (200, {"name": "anna b", "times": 3})


def test_form_is_read(wire: Wire, site: Any) -> None:
    fields = [(b"content-type", b"application/x-www-form-urlencoded")]
    response = wire.share(site).request("POST", "/form", fields, b"a=1&b=x+y")
    assert json.loads(response.body) == {"a": "1", "b": "x y"}


def test_upload_arrives_whole(wire: Wire, site: Any) -> None:
    body = b"\r\n".join(
        [
            BOUNDARY,
            b'Content-Disposition: form-data; name="note"',
            b"",
            b"a note",
            BOUNDARY,
            b'Content-Disposition: form-data; name="upload"; filename="large.bin"',
            b"Content-Type: application/octet-stream",
            b"",
            CONTENT,
            BOUNDARY + b"--",
            b"",
        ]
    )
    fields = [(b"content-type", b"multipart/form-data; boundary=parts")]
    found = json.loads(wire.share(site).request("POST", "/files", fields, body).body)
    assert found["note"] == "a note"
    assert [(each["name"], each["sha256"]) for each in found["files"]] == [
        ("large.bin", hashlib.sha256(CONTENT).hexdigest())
    ]


def test_iterator_is_streamed(wire: Wire, site: Any) -> None:
    assert wire.share(site).request("GET", "/sync-stream").body == b"0\n1\n2\n"


def test_view_that_raises_is_500_and_the_next_is_served(wire: Wire, site: Any) -> None:
    server = wire.share(site)
    assert server.request("GET", "/boom").status == 500
    assert server.request("GET", "/hello/anna").status == 200
