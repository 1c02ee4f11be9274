"""The requests whose work is counted: the values of each differ from those of the one before."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.load.loads import WEBSOCKET
from benchmarks.load.websocket_client import masked

__all__ = ["LOADS", "MORE", "Counted"]

BROWSER = (
    "GET /shop/item/{n}?q=red%20shoes&page=2&id={n} HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive\r\n"
    'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    "Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/140.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
    "Referer: http://shop.example/search?q=shoes&session={n}\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Cookie: session=5f2d9c{n}a81b; csrftoken=Zk3{n}; theme=dark; _ga=GA1.1.{n}.1760000000\r\n"
    "X-Request-ID: 7b1e-{n}\r\n\r\n"
)
POST = b"POST /items/%d HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/octet-stream\r\n"


def hello(number: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"


def browser(number: int) -> bytes:
    return BROWSER.format(n=number).encode()


def echo(number: int) -> bytes:
    return POST % number + b"Content-Length: 1024\r\n\r\n" + b"%d" % (number % 10) * 1024


def posted(number: int) -> bytes:
    body = b"id=%d" % number
    return POST % number + b"X-Request-ID: %d\r\nContent-Length: %d\r\n\r\n%b" % (number, len(body), body)


def chunked(number: int) -> bytes:
    return POST % number + b"Transfer-Encoding: chunked\r\n\r\n2\r\n%02d\r\n0\r\n\r\n" % (number % 100)


def get(number: int) -> bytes:
    return (
        b"GET /items/%d?q=%d HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\nX-Request-ID: %d\r\n\r\n"
        % (number, number, number)
    )


def mixed(number: int) -> bytes:
    """GET, POST with a length and POST in chunks in turn."""
    return (get, posted, chunked)[number % 3](number)


def fastapi(number: int) -> bytes:
    return b"GET /items/%d?q=red%d HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\n\r\n" % (number, number)


def uploaded(number: int) -> bytes:
    return POST % number + b"Content-Length: %d\r\n\r\n" % len(UPLOAD) + UPLOAD


def message(size: int) -> Callable[[int], bytes]:
    """A message of a WebSocket, all letters of which differ from those before."""
    return lambda number: masked(b"%c" % (97 + number % 26) * size)


def accepts_encodings(number: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\r\n"


def proxied(number: int) -> bytes:
    return (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n"
    )


class Counted(NamedTuple):
    """An application, what makes its requests out of numbers, and what a server is started with for it."""

    app: str
    request: Callable[[int], bytes]
    kind: str = ""
    """As of a load of `benchmarks.load`."""
    tls: bool = False
    count: int = 300
    """Requests that are counted by callgrind."""
    websocket: bool = False
    """What is sent, and comes back, are messages on one WebSocket."""


UPLOAD = b"x" * 20_000_000
RAW = "benchmarks.load.apps:"
LOADS: dict[str, Counted] = {
    "hello": Counted(RAW + "hello", hello),
    "browser-like": Counted(RAW + "hello", browser),
    "echo": Counted(RAW + "echo", echo),
    "mixed": Counted(RAW + "echo", mixed),
    "chunked": Counted(RAW + "echo", chunked),
    "fastapi": Counted("benchmarks.load.fastapi_app:dependent", fastapi),
}
"""By name. `fastapi` has a synchronous dependency, which runs in a thread."""
MORE: dict[str, Counted] = {
    "accepts-encodings": Counted(RAW + "hello", accepts_encodings),
    "proxied": Counted(RAW + "hello", proxied),
    "tls-hello": Counted(RAW + "hello", hello, tls=True),
    "file": Counted(RAW + "sends_path", get, kind="pathsend"),
    "file-read": Counted(RAW + "reads_path", get),
    "tls-file": Counted(RAW + "sends_path", get, kind="pathsend", tls=True),
    "websocket-64": Counted(WEBSOCKET + "echo", message(64), websocket=True),
    "websocket-16k": Counted(WEBSOCKET + "echo", message(2**14), websocket=True),
    "upload-20m": Counted(RAW + "takes_all", uploaded, kind="upload", count=6),
}
"""Those of which bytecodes tell little: the work is OpenSSL's, the kernel's or that of threads; and those of
`benchmarks.micro.around`."""
