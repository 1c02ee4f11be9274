"""Static files as plain ASGI, without a server: what is served, what is not, and under which conditions."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from pounce import ConfigError
from pounce.middleware.static import StaticFiles, StaticMount, create_static_handler, served
from pounce.middleware.static.files import SMALL
from pounce.middleware.static.mounts import HASHED

BIG = bytes(range(256)) * (SMALL // 256 + 2)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def application(scope: Any, receive: Any, send: Any) -> None:
    status = 404 if scope["path"].startswith("/missing") else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-from", b"app")]})
    await send({"type": "http.response.body", "body": b"app"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    (root / "sub").mkdir(parents=True)
    (root / ".well-known").mkdir()
    files = {
        "a.txt": b"0123456789",
        "empty.txt": b"",
        "big.bin": BIG,
        "index.html": b"<p>home",
        "sub/index.html": b"<p>sub",
        "sub/page.html": b"<p>page",
        ".secret": b"secret",
        ".well-known/x": b"known",
        "app.4f3a9c1b.js": b"hashed",
        "café.txt": "é".encode(),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    (tmp_path / "outside.txt").write_bytes(b"outside")
    return root


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class Site:
    """Asks an application for paths."""

    def __init__(self, runner: asyncio.Runner, app: Any, extensions: Any = ()) -> None:
        self.runner = runner
        self.app = app
        self.extensions = {name: {} for name in extensions}
        self.messages: list[Any] = []

    def get(self, target: str, method: str = "GET", root_path: str = "", **headers: str) -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode(),
            "query_string": query.encode(),
            "root_path": root_path,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "extensions": self.extensions,
        }
        self.messages = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.zerocopysend":
                content = os.pread(message["file"], message["count"], message["offset"])
                message = message | {"body": content}
            self.messages.append(message)

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        self.runner.run(self.app(scope, receive, send))
        start, *bodies = self.messages
        fields = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
        assert len(dict(fields)) == len(fields), fields
        body = b"".join(message.get("body", b"") for message in bodies)
        answer = Answer(start["status"], dict(fields), body)
        if method == "GET" and answer.status != 304 and "content-length" in answer.headers:
            assert int(answer.headers["content-length"]) == len(body)
        return answer


@pytest.fixture
def site(folder: Path, loop: asyncio.Runner) -> Site:
    return Site(loop, StaticFiles(application, mounts=[StaticMount("/static", str(folder))]))


def test_file_is_served_with_its_type_and_validators(site: Site, folder: Path) -> None:
    answer = site.get("/static/a.txt")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"][0] == '"'
    assert answer.headers["last-modified"].endswith(" GMT")
    assert answer.headers["vary"] == "accept-encoding"


def test_empty_file_has_an_answer_with_an_empty_body(site: Site) -> None:
    assert site.get("/static/empty.txt").status == 200
    assert [message["type"] for message in site.messages] == ["http.response.start", "http.response.body"]


def test_large_file_is_read_piece_by_piece_where_the_server_cannot_send_it(site: Site) -> None:
    answer = site.get("/static/big.bin")
    assert answer.body == BIG
    assert answer.headers["content-type"] == "application/octet-stream"


def test_large_file_is_sent_by_the_server_that_offers_it(site: Site) -> None:
    site.extensions = {"http.response.zerocopysend": {}}
    assert site.get("/static/big.bin").body == BIG
    assert site.messages[1]["type"] == "http.response.zerocopysend"


def test_no_descriptor_stays_open(site: Site) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        site.get("/static/big.bin")
        site.get("/static/a.txt")
        site.get("/static/sub")
        site.get("/static/nothing")
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_head_is_answered_as_get_without_its_body(site: Site) -> None:
    get, head = site.get("/static/a.txt"), site.get("/static/a.txt", "HEAD")
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")


@pytest.mark.parametrize("name", ["nothing.txt", "sub/nothing", "a.txt/more"])
def test_what_is_not_there_is_the_applications(site: Site, name: str) -> None:
    assert site.get(f"/static/{name}").body == b"app"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_the_applications(site: Site, method: str) -> None:
    assert site.get("/static/a.txt", method).body == b"app"


def test_path_beside_the_mount_is_the_applications(site: Site) -> None:
    assert site.get("/staticky/a.txt").body == b"app"
    assert site.get("/other").body == b"app"


def test_without_an_application_a_miss_is_404_and_another_method_405(folder: Path, loop: asyncio.Runner) -> None:
    alone = Site(loop, create_static_handler({"/": str(folder)}))
    assert alone.get("/nothing").status == 404
    answer = alone.get("/a.txt", "POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_longest_mount_wins(folder: Path, loop: asyncio.Runner) -> None:
    both = Site(loop, create_static_handler({"/": str(folder / "sub"), "/x": str(folder)}))
    assert both.get("/page.html").body == b"<p>page"
    assert both.get("/x/a.txt").body == b"0123456789"


def test_root_path_is_no_part_of_the_mount(site: Site) -> None:
    assert site.get("/static/a.txt", root_path="/api").body == b"0123456789"


def test_name_beyond_ascii_is_found(site: Site) -> None:
    assert site.get("/static/caf%C3%A9.txt").body == "é".encode()


# Directories


def test_directory_is_its_page_below_a_slash(site: Site) -> None:
    assert site.get("/static/sub/").body == b"<p>sub"
    assert site.get("/static/").body == b"<p>home"


@pytest.mark.parametrize(("path", "to"), [("/static/sub", "/static/sub/"), ("/static", "/static/")])
def test_directory_without_a_slash_is_redirected_with_its_query(site: Site, path: str, to: str) -> None:
    answer = site.get(path + "?a=b")
    assert (answer.status, answer.headers["location"]) == (307, to + "?a=b")


def test_redirect_never_names_another_host(folder: Path, loop: asyncio.Runner) -> None:
    (folder / "evil.example").mkdir()
    (folder / "evil.example" / "index.html").write_bytes(b"x")
    alone = Site(loop, create_static_handler({"/": str(folder)}))
    assert alone.get("//evil.example").status == 404
    assert alone.get("/evil.example").headers["location"] == "/evil.example/"


def test_directory_without_a_page_is_a_miss(site: Site, folder: Path) -> None:
    (folder / "bare").mkdir()
    assert site.get("/static/bare").body == b"app"
    assert site.get("/static/bare/").body == b"app"


def test_no_index_where_none_is_wanted(folder: Path, loop: asyncio.Runner) -> None:
    alone = Site(loop, create_static_handler({"/": str(folder)}, index_file=None))
    assert alone.get("/sub/").status == 404
    assert alone.get("/sub").status == 404


# No way out


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "sub/../../outside.txt",
        "sub/..",
        "./a.txt",
        "sub//page.html",
        "sub%2Fpage.html",
        "/a.txt",
        ".secret",
        "%2Esecret",
        "a.txt%00",
        "%00",
        "a.txt/",
        "a.txt%00.html",
        "x" * 5000,
    ],
)
def test_path_that_leads_astray_finds_nothing(site: Site, path: str) -> None:
    site.get("/static/a.txt")
    site.get("/static/sub/page.html")
    assert site.get("/static/" + path).body == b"app"


def test_well_known_names_are_no_secret(site: Site) -> None:
    assert site.get("/static/.well-known/x").body == b"known"


def link(folder: Path) -> None:
    (folder / "out.txt").symlink_to(folder.parent / "outside.txt")
    (folder / "in.txt").symlink_to(folder / "a.txt")
    (folder / "outdir").symlink_to(folder.parent)
    (folder / "indir").symlink_to(folder / "sub")
    (folder / "loop").symlink_to("loop")
    (folder / "sub" / "in.txt").symlink_to("../a.txt")


@pytest.mark.parametrize("name", ["out.txt", "in.txt", "outdir/outside.txt", "indir/page.html", "loop"])
def test_links_are_not_followed(site: Site, folder: Path, name: str) -> None:
    link(folder)
    assert site.get("/static/" + name).body == b"app"


def test_index_that_is_a_link_is_not_followed(site: Site, folder: Path) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "index.html").symlink_to(folder.parent / "outside.txt")
    assert site.get("/static/linked/").body == b"app"
    assert site.get("/static/linked").body == b"app"


def test_links_are_followed_where_allowed_and_only_inside(folder: Path, loop: asyncio.Runner) -> None:
    link(folder)
    alone = Site(loop, create_static_handler({"/": str(folder)}, follow_symlinks=True))
    assert alone.get("/in.txt").body == b"0123456789"
    assert alone.get("/sub/in.txt").body == b"0123456789"
    assert alone.get("/indir/page.html").body == b"<p>page"
    for name in ("out.txt", "outdir/outside.txt", "loop"):
        assert alone.get("/" + name).status == 404


def test_what_is_no_regular_file_is_not_opened(site: Site, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert site.get("/static/pipe").body == b"app"


def test_directory_may_itself_be_a_link(folder: Path, loop: asyncio.Runner) -> None:
    current = folder.parent / "current"
    current.symlink_to(folder)
    assert Site(loop, create_static_handler({"/": str(current)})).get("/a.txt").body == b"0123456789"


# Coded siblings


@pytest.fixture
def coded(folder: Path) -> Path:
    for end in (".br", ".zst", ".gz"):
        (folder / f"a.txt{end}").write_bytes(end.encode())
    return folder


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("X-GZip", "gzip"),
        ("*", "br"),
        ("br;q=0, *;q=0.1", "zstd"),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity, br", "br"),
        ("gzip;q=0", None),
        ("deflate", None),
        ("", None),
        ("gzip;q=2", None),
    ],
)
def test_best_coding_that_the_client_takes_is_sent(site: Site, coded: Path, accept: str, coding: str | None) -> None:
    answer = site.get("/static/a.txt", accept_encoding=accept)
    assert answer.headers.get("content-encoding") == coding
    ends = {"br": b".br", "zstd": b".zst", "gzip": b".gz"}
    assert answer.body == (ends[coding] if coding else b"0123456789")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["vary"] == "accept-encoding"


def test_each_coding_has_an_etag_of_its_own(site: Site, coded: Path) -> None:
    tags = {site.get("/static/a.txt", accept_encoding=coding).headers["etag"] for coding in ("br", "zstd", "gzip", "")}
    assert len(tags) == 4


def test_sibling_that_is_older_is_not_sent(site: Site, coded: Path) -> None:
    os.utime(coded / "a.txt.br", (1, 1))
    assert site.get("/static/a.txt", accept_encoding="br").body == b"0123456789"


def test_sibling_is_not_sent_where_it_is_not_wanted(coded: Path, loop: asyncio.Runner) -> None:
    alone = Site(loop, create_static_handler({"/": str(coded)}, precompressed=False))
    answer = alone.get("/a.txt", accept_encoding="br")
    assert answer.body == b"0123456789"
    assert "vary" not in answer.headers


def test_sibling_that_is_a_link_is_not_followed(site: Site, coded: Path) -> None:
    (coded / "a.txt.br").unlink()
    (coded / "a.txt.br").symlink_to(coded.parent / "outside.txt")
    assert site.get("/static/a.txt", accept_encoding="br").body == b"0123456789"


def test_archive_is_not_said_to_be_coded(site: Site, folder: Path) -> None:
    (folder / "a.tar.gz").write_bytes(b"archive")
    answer = site.get("/static/a.tar.gz")
    assert answer.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in answer.headers


# Conditions (RFC 9110 13)


def test_client_that_has_it_is_told_so(site: Site) -> None:
    first = site.get("/static/a.txt")
    again = site.get("/static/a.txt", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    for name in ("etag", "cache-control", "vary", "last-modified"):
        assert again.headers[name] == first.headers[name]
    assert "content-type" not in again.headers


@pytest.mark.parametrize("condition", ["*", "W/{0}", '"x", {0}', ' "x" ,W/{0} ', '"a,b",{0}'])
def test_none_match_is_a_list_compared_weakly(site: Site, condition: str) -> None:
    etag = site.get("/static/a.txt").headers["etag"]
    assert site.get("/static/a.txt", if_none_match=condition.format(etag)).status == 304


@pytest.mark.parametrize("condition", ['"x"', "x", "", '"x" {0}'])
def test_none_match_that_does_not_match_gets_it_all(site: Site, condition: str) -> None:
    etag = site.get("/static/a.txt").headers["etag"]
    assert site.get("/static/a.txt", if_none_match=condition.format(etag)).status == 200


def test_date_is_asked_only_without_an_etag(site: Site) -> None:
    modified = site.get("/static/a.txt").headers["last-modified"]
    assert site.get("/static/a.txt", if_modified_since=modified).status == 304
    assert site.get("/static/a.txt", if_modified_since=modified, if_none_match='"x"').status == 200
    assert site.get("/static/a.txt", if_modified_since="Sun, 06 Nov 1994 08:49:37 GMT").status == 200
    assert site.get("/static/a.txt", if_modified_since="yesterday").status == 200


@pytest.mark.parametrize(
    ("condition", "status"), [("*", 200), ("{0}", 200), ('"x", {0}', 200), ("W/{0}", 412), ('"x"', 412)]
)
def test_match_is_compared_strongly(site: Site, condition: str, status: int) -> None:
    etag = site.get("/static/a.txt").headers["etag"]
    answer = site.get("/static/a.txt", if_match=condition.format(etag))
    assert (answer.status, answer.body) == (status, b"0123456789" if status == 200 else b"")


@pytest.mark.parametrize(
    "date",
    ["{0}, {0}", "Sun, 06 Nov 2039 08:49:37 +0200", "1 Jan 2039 0:0", "Sun, 6 Nov 2039 08:49:37 GMT", "2039-01-01"],
)
def test_what_is_no_single_http_date_is_ignored(site: Site, date: str) -> None:
    """RFC 9110 13.1.3, 13.1.4."""
    date = date.format(site.get("/static/a.txt").headers["last-modified"])
    assert site.get("/static/a.txt", if_modified_since=date).status == 200
    assert site.get("/static/a.txt", if_unmodified_since=date.replace("2039", "1999")).status == 200


@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 2039 08:49:37 GMT", "Sunday, 06-Nov-39 08:49:37 GMT", "Sun Nov  6 08:49:37 2039"]
)
def test_each_form_of_an_http_date_is_taken(site: Site, date: str) -> None:
    """RFC 9110 5.6.7."""
    assert site.get("/static/a.txt", if_modified_since=date).status == 304


def test_unmodified_since_fails_for_what_was_modified(site: Site) -> None:
    modified = site.get("/static/a.txt").headers["last-modified"]
    assert site.get("/static/a.txt", if_unmodified_since=modified).status == 200
    assert site.get("/static/a.txt", if_unmodified_since="Sun, 06 Nov 1994 08:49:37 GMT").status == 412


# Ranges (RFC 9110 14)


@pytest.mark.parametrize(
    ("asked", "shown", "body"),
    [
        ("bytes=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=8-", "bytes 8-9/10", b"89"),
        ("bytes=8-99", "bytes 8-9/10", b"89"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
        ("BYTES=1-1", "bytes 1-1/10", b"1"),
        ("bytes=20-30, 2-3", "bytes 2-3/10", b"23"),
        ("bytes=0-3,2-5", "bytes 0-5/10", b"012345"),
    ],
)
def test_range_is_cut_out(site: Site, asked: str, shown: str, body: bytes) -> None:
    answer = site.get("/static/a.txt", range=asked)
    assert (answer.status, answer.headers["content-range"], answer.body) == (206, shown, body)


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=", "bytes=a-b", "lines=1-2", "bytes=-", "bytes=1-2;3", "0-3"])
def test_range_that_is_not_valid_is_ignored(site: Site, asked: str) -> None:
    assert site.get("/static/a.txt", range=asked).status == 200


def test_more_ranges_than_anybody_needs_are_ignored(site: Site) -> None:
    assert site.get("/static/big.bin", range="bytes=" + ",".join(f"{n * 9}-{n * 9}" for n in range(11))).status == 200


@pytest.mark.parametrize(("name", "asked"), [("a.txt", "bytes=10-"), ("empty.txt", "bytes=0-"), ("a.txt", "bytes=-0")])
def test_range_outside_is_416(site: Site, name: str, asked: str) -> None:
    answer = site.get(f"/static/{name}", range=asked)
    size = 10 if name == "a.txt" else 0
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize("name", ["a.txt", "big.bin"])
def test_several_ranges_come_as_parts(site: Site, folder: Path, name: str) -> None:
    answer = site.get(f"/static/{name}", range="bytes=0-1,4-4,-2")
    content = (folder / name).read_bytes()
    assert answer.status == 206
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = answer.body.split(b"--" + boundary.encode())
    assert (parts[0], parts[-1]) == (b"", b"--\r\n")
    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]]
    assert bodies == [content[0:2], content[4:5], content[-2:]]
    size = len(content)
    assert f"content-range: bytes {size - 2}-{size - 1}/{size}".encode() in parts[3]


def test_range_of_a_large_file_is_sent_by_the_server(site: Site) -> None:
    site.extensions = {"http.response.zerocopysend": {}}
    answer = site.get("/static/big.bin", range="bytes=70000-70009")
    assert answer.body == BIG[70000:70010]


def test_head_knows_no_ranges(site: Site) -> None:
    assert site.get("/static/a.txt", "HEAD", range="bytes=0-1").status == 200


@pytest.mark.parametrize(("condition", "status"), [("{0}", 206), ("W/{0}", 200), ('"x"', 200)])
def test_if_range_is_compared_strongly(site: Site, condition: str, status: int) -> None:
    etag = site.get("/static/a.txt").headers["etag"]
    assert site.get("/static/a.txt", range="bytes=0-1", if_range=condition.format(etag)).status == status


def test_if_range_takes_the_date_of_what_did_not_change_lately(site: Site, folder: Path) -> None:
    fresh = site.get("/static/a.txt").headers["last-modified"]
    assert site.get("/static/a.txt", range="bytes=0-1", if_range=fresh).status == 200
    os.utime(folder / "sub/page.html", (1_000_000_000, 1_000_000_000))
    old = site.get("/static/sub/page.html").headers["last-modified"]
    assert site.get("/static/sub/page.html", range="bytes=0-1", if_range=old).status == 206


# What is kept


def test_kept_file_is_read_again_once_it_has_changed(site: Site, folder: Path, monkeypatch: Any) -> None:
    first = site.get("/static/a.txt")
    (folder / "a.txt").write_bytes(b"changed")
    assert site.get("/static/a.txt").body == first.body
    monkeypatch.setattr(served, "LOOK_INTERVAL", 0.0)
    second = site.get("/static/a.txt")
    assert second.body == b"changed"
    assert second.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize("replaced", [False, True])
def test_file_of_the_same_size_and_time_is_read_again(
    site: Site, folder: Path, monkeypatch: Any, replaced: bool
) -> None:
    """As tar, cp -p and builds that can be repeated leave it; the number of a file that is gone is used again."""
    monkeypatch.setattr(served, "LOOK_INTERVAL", 0.0)
    path = folder / "a.txt"
    os.utime(path, (1, 1))
    first = site.get("/static/a.txt")
    if replaced:
        path.unlink()
    path.write_bytes(bytes(reversed(first.body)))
    os.utime(path, (1, 1))
    second = site.get("/static/a.txt", if_none_match=first.headers["etag"])
    assert (second.status, second.body) == (200, bytes(reversed(first.body)))


def test_kept_file_is_gone_once_it_is_removed(site: Site, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(served, "LOOK_INTERVAL", 0.0)
    site.get("/static/a.txt")
    (folder / "a.txt").unlink()
    assert site.get("/static/a.txt").body == b"app"


def test_new_sibling_is_noticed(site: Site, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(served, "LOOK_INTERVAL", 0.0)
    site.get("/static/a.txt", accept_encoding="gzip")
    (folder / "a.txt.gz").write_bytes(b"gz")
    assert site.get("/static/a.txt", accept_encoding="gzip").body == b"gz"


def test_kept_file_is_not_looked_at_within_a_second(site: Site, monkeypatch: Any) -> None:
    site.get("/static/a.txt")
    monkeypatch.setattr("pounce.middleware.static.files._open", None)
    monkeypatch.setattr(served, "LOOK_INTERVAL", 1e9)
    assert site.get("/static/a.txt").body == b"0123456789"


def test_number_of_kept_files_is_bounded(folder: Path, loop: asyncio.Runner) -> None:
    files = StaticFiles(mounts=[StaticMount("/", str(folder), stat_cache_size=2)])
    alone = Site(loop, files)
    for name in ("a.txt", "empty.txt", "index.html", "sub/page.html"):
        alone.get("/" + name)
    assert len(files._served[0][1]._kept) == 2


def test_touched_file_keeps_the_etag_of_its_content(site: Site, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(served, "LOOK_INTERVAL", 0.0)
    first = site.get("/static/a.txt").headers["etag"]
    os.utime(folder / "a.txt", (time.time() + 5, time.time() + 5))
    assert site.get("/static/a.txt").headers["etag"] == first


# Pages of applications that run in the browser


@pytest.fixture
def pages(folder: Path, loop: asyncio.Runner) -> Site:
    return Site(loop, StaticFiles(application, mounts=[StaticMount("/", str(folder), fallback="index.html")]))


def test_page_that_nobody_has_is_the_fallback(pages: Site) -> None:
    answer = pages.get("/missing/page", accept="text/html,*/*")
    assert (answer.status, answer.body) == (200, b"<p>home")


def test_fallback_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"static_fallback\) must be the name of a file .*'nope.html'"):
        StaticFiles(mounts=[StaticMount("/", str(folder), fallback="nope.html")])


def test_fallback_need_not_be_in_every_directory(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "without_index"
    other.mkdir()
    mounts = [StaticMount(path, str(each), fallback="index.html") for path, each in (("/", folder), ("/o", other))]
    StaticFiles(mounts=mounts)


def test_fallback_is_for_pages_alone(pages: Site) -> None:
    assert pages.get("/missing.js", accept="*/*").body == b"app"
    assert pages.get("/missing.js", accept="text/html", sec_fetch_mode="no-cors").body == b"app"
    assert pages.get("/missing", "POST", accept="text/html").body == b"app"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"accept": "text/html"}, 200),
        ({"accept": "*/*"}, 404),
        ({"accept": "text/html", "sec_fetch_mode": "cors"}, 404),
    ],
)
def test_caches_are_told_what_the_fallback_depends_on(
    folder: Path, loop: asyncio.Runner, fields: dict[str, str], status: int
) -> None:
    """RFC 9111 4.1: else they give the page to whoever asks for a script."""
    alone = Site(loop, StaticFiles(mounts=[StaticMount("/", str(folder), fallback="index.html")]))
    answer = alone.get("/missing", **fields)
    assert answer.status == status
    assert {"accept", "sec-fetch-mode"} <= {name.strip() for name in answer.headers["vary"].split(",")}
    assert "sec-fetch-mode" not in alone.get("/a.txt", **fields).headers.get("vary", "")


def test_application_comes_before_the_fallback(pages: Site) -> None:
    assert pages.get("/api", accept="text/html").body == b"app"


# Names that never change


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app.4f3a9c1b.js", True),
        ("app-4f3a9c1b2d.css", True),
        ("bootstrap-datepicker.js", False),
        ("report-20240101.pdf", False),
        ("deadbeef.js", False),
    ],
)
def test_names_with_a_hash_are_known(folder: Path, loop: asyncio.Runner, name: str, found: bool) -> None:
    (folder / name).write_bytes(b"x")
    alone = Site(loop, StaticFiles(mounts=[StaticMount("/", str(folder), immutable=HASHED)]))
    assert ("immutable" in alone.get("/" + name).headers["cache-control"]) is found


# Settings


def test_types_may_be_added(folder: Path, loop: asyncio.Runner) -> None:
    (folder / "x.weird").write_bytes(b"x")
    mount = StaticMount("/", str(folder), extra_mime_types={".WEIRD": "application/x-weird"}, cache_control="")
    answer = Site(loop, StaticFiles(mounts=[mount])).get("/x.weird")
    assert answer.headers["content-type"] == "application/x-weird"
    assert "cache-control" not in answer.headers


@pytest.mark.parametrize(
    "mount",
    [
        {"url_path": "static", "directory": "."},
        {"url_path": "/", "directory": "no/such/folder"},
        {"url_path": "/", "directory": ".", "index_file": "../x"},
        {"url_path": "/", "directory": ".", "immutable": "("},
    ],
)
def test_mount_that_cannot_be_served_is_refused(mount: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        StaticMount(**mount)


def test_two_mounts_at_one_path_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        StaticFiles(mounts=[StaticMount("/a", str(folder)), StaticMount("/a/", str(folder))])


def test_file_that_shrinks_while_it_is_sent_breaks_the_answer(site: Site, folder: Path, monkeypatch: Any) -> None:
    from pounce import AppError

    monkeypatch.setattr("pounce.middleware.static.files.read", lambda fd, offset, count: b"")
    with pytest.raises(AppError, match="shorter"):
        site.get("/static/big.bin")
