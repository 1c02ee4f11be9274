"""Static files of the server over every wire: the setting, ranges and conditions end to end, large files, races."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.wires import Started, Wire, answer

BIG = os.urandom(1000) * 100


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, b"app", 404 if scope["path"] == "/nobody" else 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    (folder / "a.txt").write_bytes(b"0123456789")
    (folder / "big.bin").write_bytes(BIG)
    (folder / "empty").write_bytes(b"")
    (folder / "index.html").write_bytes(b"<p>home")
    return folder


@pytest.fixture
def site(wire: Wire, folder: Path) -> Started:
    return wire.share(app, static_files={"/static": str(folder)})


def field(response: Any, name: bytes) -> bytes | None:
    values = [value for key, value in response.headers if key == name]
    assert len(values) < 2
    return values[0] if values else None


def test_files_are_served_and_the_rest_is_the_applications(site: Started) -> None:
    with site.connect() as client:
        response = client.request("GET", "/static/a.txt")
        assert (response.status, response.body) == (200, b"0123456789")
        assert field(response, b"content-type") == b"text/plain; charset=utf-8"
        assert client.request("GET", "/static/none").body == b"app"
        assert client.request("GET", "/").body == b"app"
        empty = client.request("GET", "/static/empty")
        assert (empty.status, empty.body, empty.complete) == (200, b"", True)


def test_large_file_arrives_whole_and_in_parts(site: Started) -> None:
    with site.connect() as client:
        whole = client.request("GET", "/static/big.bin")
        assert (whole.status, whole.body == BIG, field(whole, b"content-length")) == (200, True, b"100000")
        part = client.request("GET", "/static/big.bin", [(b"range", b"bytes=20000-89999")])
        assert (part.status, part.body == BIG[20000:90000]) == (206, True)
        parts = client.request("GET", "/static/big.bin", [(b"range", b"bytes=0-9,20000-89999")])
        assert parts.status == 206
        assert BIG[20000:90000] in parts.body
        assert client.request("HEAD", "/static/big.bin").body == b""


def test_condition_saves_the_body(site: Started) -> None:
    with site.connect() as client:
        etag = field(client.request("GET", "/static/big.bin"), b"etag")
        assert etag is not None
        again = client.request("GET", "/static/big.bin", [(b"if-none-match", etag)])
        assert (again.status, again.body) == (304, b"")


def test_path_does_not_lead_out(site: Started, folder: Path) -> None:
    (folder.parent / "outside").write_bytes(b"outside")
    with site.connect() as client:
        for path in ("/static/../outside", "/static/%2e%2e/outside", "/static/..%2foutside"):
            assert client.request("GET", path).body == b"app"


def test_page_of_a_browser_that_nobody_has_is_the_fallback(wire: Wire, folder: Path) -> None:
    site = wire.start(app, static_files={"/": str(folder)}, static_fallback="index.html")
    with site.connect() as client:
        assert client.request("GET", "/nobody", [(b"accept", b"text/html")]).body == b"<p>home"
        assert client.request("GET", "/nobody").body == b"app"


def test_file_that_became_shorter_before_it_was_sent_is_an_error(wire: Wire, folder: Path, monkeypatch: Any) -> None:
    from pounce.middleware.static import files

    # As if it had been cut between the look at its size and the sending.
    def load(directory: str, parts: list[str], follow: bool) -> Any:
        found = original(directory, parts, follow)
        return found and found._replace(size=found.size * 2)

    original = files.load
    monkeypatch.setattr(files, "load", load)
    with wire.start(app, static_files={"/static": str(folder)}).connect() as client:
        assert client.request("GET", "/static/big.bin").status == 500
