"""Files in the folder of an application that have the names of installed modules: they are for the application alone,
whatever the workers run in and however the server is started."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from tests.workers.running import APP, PATIENCE, Running
from websockets.asyncio.client import connect

NAMES = (
    # Event loops, parsers, protocols, TLS, watchers, the command line.
    "uvloop", "h11", "hpack", "websockets", "speedups", "qh3", "watchfiles", "cryptography", "rich", "cyclopts",
    # Of the standard library, those that are imported late.
    "hashlib", "_hashlib", "hmac", "stringprep", "colorsys", "getpass", "fractions", "html", "tomllib", "tempfile",
    "shutil", "secrets", "base64", "zlib", "ssl", "ipaddress", "concurrent", "asyncio",
)  # fmt: skip
IMPOSTOR = """
import os
os.close(os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "imported-" + __name__), os.O_CREAT))
raise ImportError("this is an impostor")
"""
WEBSOCKETS = APP.replace(
    '    path, query = scope["path"]',
    """    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({**await receive(), "type": "websocket.send"})
        await receive()
        return
    if scope["path"] == "/fails":
        raise ValueError("told")
    path, query = scope["path"]""",
)
MODES = {
    "caller": (),
    "threads": ("--workers", "2"),
    "processes": ("--workers", "1", "--worker-mode", "process"),
    "interpreters": ("--workers", "1", "--worker-mode", "subinterpreter", "--loop", "asyncio"),
    "reload": ("--reload",),
    "parser h11": ("--http-parser", "h11"),
    "http3": ("--workers", "2", "--http3"),
}
WORDS = ("serve", "main:app", "--port", "0", "--no-access-log")
STARTS = {
    "module": ["-m", "pounce_cli"],
    "module of the core": ["-m", "pounce"],
    # As the script of the command does it.
    "command": ["-P", "-c", "import sys; from pounce_cli.main import main; sys.exit(main())"],
}


OWN_LOOP = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    pass
"""


def put_impostors(folder: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.py").write_text(IMPOSTOR)


def imported(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("imported-*"))


def use(server: Running, certificate: str) -> None:
    """HTTP/1.1, HTTP/2, a failure of the application, and a WebSocket."""
    host, port = server.address
    context = ssl.create_default_context(cafile=certificate)
    for http2 in (False, True):
        with httpx.Client(verify=context, http2=http2, base_url=f"https://{host}:{port}", timeout=PATIENCE) as client:
            answer = client.get("/")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
            assert client.get("/fails").status_code == 500
    # A context of its own: httpx has put h2 into the other one.
    context = ssl.create_default_context(cafile=certificate)
    asyncio.run(echo(f"wss://{host}:{port}/", context))


async def echo(url: str, context: ssl.SSLContext) -> None:
    # On a loop: where one thread waits to read from an SSLSocket, no other can write to it without the GIL.
    async with asyncio.timeout(PATIENCE), connect(url, ssl=context, open_timeout=PATIENCE) as websocket:
        await websocket.send("x" * 1000)
        assert await websocket.recv() == "x" * 1000


def run(folder: Path, tls_files: tuple[str, str], start: list[str], *flags: str) -> None:
    tls = ("--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    with Running(folder, app=WEBSOCKETS, command=[*start, *WORDS, *tls, *flags]) as server:
        use(server, tls_files[0])
        assert server.end() == 0


@pytest.mark.parametrize("mode", MODES)
def test_server_imports_nothing_from_the_folder_of_the_application(
    tmp_path: Path, tls_files: tuple[str, str], mode: str
) -> None:
    put_impostors(tmp_path)
    run(tmp_path, tls_files, STARTS["command"], *MODES[mode])
    assert imported(tmp_path) == []


@pytest.mark.parametrize("start", ["module", "module of the core"])
def test_nor_does_it_when_python_puts_the_current_folder_first(
    tmp_path: Path, tls_files: tuple[str, str], start: str
) -> None:
    put_impostors(tmp_path)
    run(tmp_path, tls_files, STARTS[start], "--reload")
    assert imported(tmp_path) == []


@pytest.mark.parametrize("mode", ["threads", "processes", "reload", "parser h11"])
def test_module_that_the_application_imports_takes_no_place_of_the_loop_or_the_parser(
    tmp_path: Path, mode: str
) -> None:
    """What the server needs for certain is there before the application asks for it."""
    put_impostors(tmp_path)
    app = f"import asyncio, ssl, uvloop\n{'import h11' if mode == 'parser h11' else ''}\n{APP}"
    with Running(tmp_path, app=app, command=[*STARTS["command"], *WORDS, *MODES[mode]]) as server:
        assert server.get()["version"] == 1
    assert imported(tmp_path) == []


def test_application_finds_its_own_modules_first(tmp_path: Path) -> None:
    """Of names that the server has no use for by then."""
    (tmp_path / "hpack.py").write_text("VERSION = 7")
    (tmp_path / "calendar.py").write_text("NAME = 8")
    app = APP.replace("VERSION = 1", "import calendar, hpack\nVERSION = [hpack.VERSION, calendar.NAME]")
    with Running(tmp_path, "--workers", "2", app=app) as server:
        assert server.get()["version"] == [7, 8]


def test_application_is_looked_for_in_its_own_folder_first(tmp_path: Path) -> None:
    """Although the server is what imports it: a distribution may bring a module of the same name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "main.py").write_text("raise ImportError('of somebody else')")
    with Running(tmp_path, environ={"PYTHONPATH": str(tmp_path / "elsewhere")}) as server:
        assert server.get()["version"] == 1


def test_errors_of_the_application_are_told_by_what_is_installed(tmp_path: Path) -> None:
    put_impostors(tmp_path)
    line = [*STARTS["command"], *WORDS, "--log-format", "text"]
    with Running(tmp_path, app="raise ValueError('at import')", command=line, wait=False) as server:
        assert server.wait() == 4
        assert "POUNCE_APP_IMPORT_FAILED" in server.text()
    assert imported(tmp_path) == []


@pytest.mark.parametrize("mode", ["caller", "threads", "processes", "interpreters", "reload"])
def test_a_loop_of_ones_own_may_be_in_the_folder_of_the_application(tmp_path: Path, mode: str) -> None:
    (tmp_path / "loops.py").write_text(OWN_LOOP)
    flags = [flag for flag in MODES[mode] if flag not in ("--loop", "asyncio")]
    app = APP.replace('"parent": os.getppid()', '"parent": type(asyncio.get_running_loop()).__name__')
    with Running(tmp_path, *flags, "--loop", "loops:Loop", app=app) as server:
        assert server.get()["parent"] == "Loop"
