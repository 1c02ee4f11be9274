"""The loads: which application, which request, how many connections, and what must come back."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.load import apps, around_apps


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    app: str
    expected: bytes
    connections: int = 64
    method: str = "GET"
    path: str = "/"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    status: int = 200
    tls: bool = False
    streams: int = 0
    """Requests at once on each connection, over HTTP/2; 0 stands for HTTP/1.1."""
    websocket: str = ""
    """`echo` or `broadcast`: the body is a message, and so is what is expected; see `websocket_client`."""
    kind: str = ""
    """`files`, `gzip`, `wsgi`, `upload` or `pathsend`: what servers are started with for it; see `servers.Server`."""
    chunk: int = 0
    """The body is sent in chunks of so many bytes; 0 stands for a body with a length."""
    turns: tuple[Load, ...] = ()
    """Other requests of the same application, with the same answer, that take turns with this one."""

    def request(self, port: int) -> bytes:
        """The request as it goes on the wire; `{id}` stands for a number that differs for every request, `{of20}` for
        it modulo 20."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *self.headers]
        body = self.body
        if self.chunk:
            pieces = [body[at : at + self.chunk] for at in range(0, len(body), self.chunk)]
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        elif body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    @property
    def framework(self) -> str:
        return "FastAPI" if self.app.startswith(FASTAPI) else "raw ASGI"


RAW = "benchmarks.load.apps:"
FASTAPI = "benchmarks.load.fastapi_app:"
WEBSOCKET = "benchmarks.load.websocket_apps:"
AROUND = "benchmarks.load.around_apps:"

BROWSER = (
    "Connection: keep-alive",
    'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-User: ?1",
    "Sec-Fetch-Dest: document",
    "Referer: http://shop.example/search?q=shoes&session={id}",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Cookie: session=5f2d9c{id}a81b; csrftoken=Zk3{id}; theme=dark; _ga=GA1.1.{id}.1760000000",
    "X-Request-ID: 7b1e-{id}",
)
ITEM = json.dumps({"name": "shoe", "price": 49.5, "tags": ["red", "new"]}, separators=(",", ":")).encode()
OCTETS = ("Content-Type: application/octet-stream",)


def echo(name: str, size: int) -> Load:
    body = b"x" * size
    return Load(name, RAW + "echo", expected=body, method="POST", headers=OCTETS, body=body)


def static(name: str, file: str) -> Load:
    content = around_apps.FILES[file.replace("{of20}", "00")]
    return Load(name, RAW + "hello", content, path=f"/static/{file}", kind="files")


def over_h2(load: Load, name: str = "", connections: int = 8, streams: int = 16) -> Load:
    return replace(load, name=name or f"h2-{load.name}", connections=connections, streams=streams, tls=True)


HELLO = Load("hello", RAW + "hello", apps.HELLO)
BROWSER_LIKE = Load(
    "browser-like",
    RAW + "hello",
    apps.HELLO,
    path="/shop/item/{id}?q=red%20shoes&page=2&id={id}",
    headers=BROWSER,
)
TAKES_ALL = Load("takes-all", RAW + "takes_all", apps.HELLO, path="/items/{id}?q={id}", headers=("X-Number: {id}",))
POST = replace(TAKES_ALL, method="POST", headers=(*OCTETS, "X-Number: {id}"), body=b"ab")
CHUNKED = replace(POST, name="chunked", chunk=2)
LAST = replace(HELLO, headers=("Connection: close",))
STREAM = Load("stream", RAW + "stream", apps.PIECE * apps.PIECES)
BODY_1M = Load("body-1m", RAW + "mebibyte", apps.MEBIBYTE)


def websocket(name: str, kind: str, size: int) -> Load:
    return Load(name, WEBSOCKET + kind, expected=b"x" * size, body=b"x" * size, websocket=kind)


LOADS = {
    load.name: load
    for load in (
        HELLO,
        Load("hello-1", RAW + "hello", apps.HELLO, connections=1),
        BROWSER_LIKE,
        Load("hello-tls", RAW + "hello", apps.HELLO, tls=True),
        replace(TAKES_ALL, name="mixed", turns=(POST, CHUNKED)),
        CHUNKED,
        replace(HELLO, name="short-connections", turns=(HELLO,) * 8 + (LAST,)),
        Load("json", RAW + "json_document", json.dumps(apps.DOCUMENT).encode()),
        Load("tls-json", RAW + "json_document", json.dumps(apps.DOCUMENT).encode(), tls=True),
        echo("echo-1k", 2**10),
        echo("echo-64k", 2**16),
        replace(POST, name="upload-20m", connections=4, body=b"x" * 20_000_000, kind="upload"),
        STREAM,
        BODY_1M,
        Load("static-small", RAW + "sends_path", Path(apps.SMALL_FILE).read_bytes(), kind="pathsend"),
        over_h2(HELLO),
        over_h2(HELLO, "h2-hello-1", connections=1, streams=1),
        over_h2(BROWSER_LIKE),
        over_h2(echo("echo-1k", 2**10)),
        over_h2(echo("echo-64k", 2**16)),
        over_h2(STREAM),
        over_h2(BODY_1M, "h2-1m"),
        Load("fastapi-get", FASTAPI + "app", b'{"number":7,"q":"red"}', path="/items/7?q=red"),
        Load(
            "fastapi-post",
            FASTAPI + "app",
            ITEM,
            method="POST",
            path="/items",
            headers=("Content-Type: application/json",),
            body=ITEM,
        ),
        static("static-64k", "64k.bin"),
        static("static-1m", "1m.bin"),
        static("static-20", "small-{of20}.css"),
        Load("gzip-json", AROUND + "table", around_apps.TABLE, headers=("Accept-Encoding: gzip",), kind="gzip"),
        Load("wsgi-hello", AROUND + "wsgi_hello", apps.HELLO, kind="wsgi"),
        replace(echo("wsgi-echo-64k", 2**16), app=AROUND + "wsgi_echo", kind="wsgi"),
        websocket("websocket-64", "echo", 64),
        websocket("websocket-16k", "echo", 2**14),
        websocket("websocket-broadcast", "broadcast", 64),
    )
}
