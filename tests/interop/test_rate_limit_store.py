"""Rate limits in a real Redis: over several servers behind HAProxy, and while it fails under load."""

import asyncio
import gc
import http.client
import logging
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
from tests.redis_server import RedisServer, needs_redis
from tests.workers.running import PATIENCE, Running, eventually

from pounce.admission.redis_store import Place, RedisStore
from pounce.testing import TestServer, serve

pytestmark = needs_redis
haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs HAProxy (apt install haproxy)")

APP = """
import os

BODY = b"%d" % os.getpid()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})
"""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


class HAProxy:
    """HAProxy in HTTP mode, each request to the next server."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        # HAProxy takes the listening socket over: nobody has to guess when it is there, and under which port.
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        fd = self._listening.fileno()
        servers = "".join(f" server s{number} 127.0.0.1:{port}\n" for number, port in enumerate(ports))
        path = folder / "haproxy.cfg"
        path.write_text(
            "defaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
            f"listen site\n bind fd@{fd}\n balance roundrobin\n option forwardfor\n{servers}"
        )
        self._process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(path)], pass_fds=[fd], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.close()


class Client:
    """Asks one request after the other on a connection; what it was answered."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE, (source, 0))
        self.admitted: list[bytes] = []
        self.refused = 0

    def ask(self) -> bool:
        """Whether it was admitted."""
        self._connection.request("GET", "/")
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status in (200, 429), (answer.status, body)
        if answer.status == 200:
            self.admitted.append(body)
        else:
            self.refused += 1
        return answer.status == 200

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()


def on_threads(clients: list[Client], work: Callable[[Client], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    return threads


@haproxy
def test_three_servers_admit_together_what_the_limit_allows(tmp_path: Path, redis: RedisServer) -> None:
    burst, rate = 300, 1
    flags = ["--rate-limit-enabled", "--rate-limit-burst", str(burst), "--rate-limit-requests-per-second", str(rate)]
    flags += ["--rate-limit-store-timeout", "60", "--trusted-hosts", "127.0.0.1"]
    with ExitStack() as stack:

        def start(number: int) -> int:
            folder = tmp_path / str(number)
            folder.mkdir()
            environ = {"POUNCE_RATE_LIMIT_STORE": redis.url}
            workers = ("--workers", str(1 + number % 2))
            return stack.enter_context(Running(folder, *flags, *workers, app=APP, environ=environ)).address[1]

        with ThreadPoolExecutor() as executor:
            ports = list(executor.map(start, range(3)))
        proxy = stack.enter_context(HAProxy(tmp_path, ports))
        clients = [stack.enter_context(Client(proxy.port, "127.0.0.2")) for _ in range(4)]
        other = stack.enter_context(Client(proxy.port, "127.0.0.3"))

        before = redis.time()
        assert clients[0].ask()
        begun = redis.time()

        def ask_until_refused(client: Client) -> None:
            while client.refused < 60:
                client.ask()

        for thread in on_threads(clients, ask_until_refused):
            thread.join()
        done = redis.time()
        while clients[0].ask():
            pass
        after = redis.time()
        assert other.ask()

    admitted = [body for client in clients for body in client.admitted]
    # By the clock of the store, so that it does not matter how long all this took.
    least, most = burst + rate * (done - begun), burst + rate * (after - before)
    assert least * 0.99 <= len(admitted) <= most * 1.01
    assert len(set(admitted)) == 3


class Load:
    """Clients that ask without end, until the end of the `with`."""

    def __init__(self, port: int, count: int) -> None:
        self._clients = [Client(port) for _ in range(count)]
        self._stop = threading.Event()
        self._failures: list[BaseException] = []

    def _work(self, client: Client) -> None:
        try:
            while not self._stop.is_set():
                client.ask()
        except BaseException as exc:
            self._failures.append(exc)

    @property
    def admitted(self) -> int:
        return sum(len(client.admitted) for client in self._clients)

    def goes_on(self) -> None:
        """Wait until each client was answered some more."""
        before = [len(client.admitted) + client.refused for client in self._clients]

        def has_gone_on() -> bool:
            assert not self._failures
            now = [len(client.admitted) + client.refused for client in self._clients]
            return all(later >= earlier + 10 for earlier, later in zip(before, now, strict=True))

        eventually(has_gone_on)

    def __enter__(self) -> Self:
        self._threads = on_threads(self._clients, self._work)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)
        for client in self._clients:
            client.__exit__()
        assert not self._failures


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[RedisStore]:
    """Those of the workers that are started."""
    made: list[RedisStore] = []
    make = RedisStore.__init__

    def init(self: RedisStore, *args: Any) -> None:
        make(self, *args)
        made.append(self)

    monkeypatch.setattr(RedisStore, "__init__", init)
    return made


class Counting:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        with self._lock:
            self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def test_nothing_hangs_and_nothing_is_lost_while_the_store_fails_under_load(
    redis: RedisServer, stores: list[RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    app = Counting()
    caplog.set_level(logging.INFO, "pounce")

    def silent() -> None:
        eventually(lambda: not any(store.is_asked for store in stores))

    def answers() -> None:
        eventually(lambda: all(store.is_asked for store in stores))

    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": 0.5}
    with TestServer(app, workers=2, rate_limit_enabled=True, **settings) as server, Load(server.port, 4) as load:
        load.goes_on()
        redis.kill()
        silent()
        load.goes_on()
        redis.start()
        answers()
        load.goes_on()
        redis.pause()
        silent()
        load.goes_on()
        redis.resume()
        answers()
        load.goes_on()
        counts = [store.counts for store in stores]
    assert len(counts) == 2
    assert sum(each.get("rate_limited_locally", 0) for each in counts) > 0
    assert sum(each.get("rate_limit_store_failed", 0) for each in counts) >= 2
    assert app.calls == load.admitted
    said = [record.getMessage() for record in caplog.records if "rate limit store" in record.getMessage()]
    # One line for each change, whichever worker was the first to see it.
    assert ["answers again" in line for line in said] == [number % 2 == 1 for number in range(len(said))]


@pytest.mark.parametrize("command", [("RPUSH", "x"), ("SET", "garbage"), ("SET", "nan"), ("SET", "inf")], ids=" ".join)
def test_key_that_holds_no_bucket_is_replaced_by_one(
    redis: RedisServer, command: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
    limit: dict[str, Any] = {"rate_limit_enabled": True, "rate_limit_requests_per_second": 0.001, "rate_limit_burst": 3}
    with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
        assert client.ask()
        redis.call("DEL", "pounce:rate:127.0.0.1")
        redis.call(command[0], "pounce:rate:127.0.0.1", command[1])
        assert [client.ask() for _ in range(4)] == [True, True, True, False]
    assert "does not answer" not in caplog.text


def test_store_that_has_lost_its_memory_begins_anew(redis: RedisServer) -> None:
    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
    limit = {"rate_limit_enabled": True, "rate_limit_burst": 3, "rate_limit_requests_per_second": 0.001}
    with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
        assert [client.ask() for _ in range(2)] == [True, True]
        redis.call("FLUSHALL")
        redis.call("SCRIPT", "FLUSH")
        assert [client.ask() for _ in range(4)] == [True, True, True, False]


def test_bucket_outlives_a_restart_of_the_server_and_not_its_own_filling(redis: RedisServer) -> None:
    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
    limit = {"rate_limit_enabled": True, "rate_limit_burst": 2, "rate_limit_requests_per_second": 0.001}
    found = []
    for _ in range(2):
        with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
            found += [client.ask() for _ in range(2)]
    assert found == [True, True, False, False]
    left = int(redis.call("PTTL", "pounce:rate:127.0.0.1")[0].removeprefix(b":"))
    assert 0 < left <= 2_000_001


def test_store_that_cannot_do_it_is_said_and_the_process_limits_by_itself(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.call("CONFIG", "SET", "min-replicas-to-write", "1")
    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
    limit = {"rate_limit_enabled": True, "rate_limit_burst": 2, "rate_limit_requests_per_second": 0.001}
    with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
        assert [client.ask() for _ in range(3)] == [True, True, False]
    assert "NOREPLICAS" in caplog.text


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Connections that workers have begun."""
    made: list[object] = []
    make = Place.client

    def client(self: Place) -> Any:
        made.append(self)
        return make(self)

    monkeypatch.setattr(Place, "client", client)
    return made


@pytest.mark.parametrize(
    "flags",
    [
        ("--replicaof", "127.0.0.1", "1"),
        ("--maxmemory", "1000", "--maxmemory-policy", "noeviction"),
        ("--user", "default", "on", "nopass", "+@all", "-set", "~*"),
    ],
    ids=["replica", "full", "forbidden"],
)
def test_store_that_loads_the_script_and_does_not_run_it_is_silent_and_said_once(
    flags: tuple[str, ...], attempts: list[object], stores: list[RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pounce")
    settings: dict[str, Any] = {"rate_limit_store_timeout": PATIENCE, "rate_limit_burst": 100_000}
    with (
        RedisServer(*flags) as redis,
        TestServer(Counting(), rate_limit_enabled=True, rate_limit_store=redis.url, **settings) as server,
        Client(server.port) as client,
    ):
        eventually(lambda: client.ask() and len(attempts) >= 5)
    said = [record.getMessage() for record in caplog.records if "rate limit store" in record.getMessage()]
    assert len(said) == 1 and "does not answer" in said[0]
    # The first request may have waited for the first connection; no other did.
    assert stores[0].counts["rate_limit_store_failed"] == 1


def test_bucket_of_a_store_whose_clock_went_back_is_no_emptier_than_empty(redis: RedisServer) -> None:
    redis.call("SET", "pounce:rate:127.0.0.1", str(int((redis.time() + 86400) * 1e6)))
    settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
    limit = {"rate_limit_enabled": True, "rate_limit_burst": 1, "rate_limit_requests_per_second": 2}
    with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
        assert not client.ask()
        eventually(client.ask)


class Liar:
    """Takes connections on a Unix socket, and answers commands with what it was told to, in order.

    Of the last it says the same again; None ends the connection.
    """

    def __init__(self, folder: Path, *answers: bytes | None) -> None:
        self.url = f"unix://{folder}/s"
        self._answers = list(answers)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/s")
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                # Its commands are written whole.
                while command := client.recv(65536):
                    for _ in range(command.count(b"\r\nCLIENT\r\n") or 1):
                        answer = b"+OK\r\n"
                        if b"EVALSHA" in command or b"LOAD" in command:
                            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                        if answer is None:
                            return
                        client.sendall(answer)
            except OSError:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


LOADED = b"$40\r\n" + b"a" * 40 + b"\r\n"
ADMITS = b"*2\r\n:1000\r\n:0\r\n"
NO_SCRIPT = b"-NOSCRIPT No matching script.\r\n"


@pytest.mark.parametrize(
    "lies",
    [
        (LOADED, ADMITS, NO_SCRIPT, None),
        (LOADED, ADMITS, NO_SCRIPT, b"-LOADING Redis is loading the dataset in memory\r\n"),
        (LOADED, ADMITS, NO_SCRIPT, LOADED, b"-READONLY no\r\n"),
        (LOADED, ADMITS, b"*2\r\n$1\r\n5\r\n$1\r\n0\r\n"),
        (LOADED, ADMITS, b"*1\r\n:0\r\n"),
        (LOADED, ADMITS, b":0\r\n"),
        (LOADED, ADMITS, b"+OK\r\n"),
        (LOADED, ADMITS, b"*-1\r\n"),
        (LOADED, ADMITS, b"*2\r\n:1" + b"0" * 400 + b"\r\n:0\r\n"),
        (LOADED, ADMITS, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (LOADED, ADMITS, None),
        (LOADED, b":1\r\n"),
        (b":7\r\n",),
        (b"*-1\r\n",),
        (b"-LOADING Redis is loading the dataset in memory\r\n",),
        (None,),
    ],
    ids=repr,
)
def test_whatever_a_store_says_in_place_of_an_answer_requests_are_decided(lies: tuple[bytes | None, ...]) -> None:
    settings: dict[str, Any] = {"rate_limit_store_timeout": PATIENCE, "rate_limit_requests_per_second": 0.001}
    with tempfile.TemporaryDirectory(prefix="liar-") as folder, Liar(Path(folder), *lies) as liar:
        limit = {"rate_limit_enabled": True, "rate_limit_burst": 2, "rate_limit_store": liar.url}
        with TestServer(Counting(), **settings, **limit) as server, Client(server.port) as client:
            assert [client.ask() for _ in range(3)] == [True, True, False]


def test_nothing_of_the_store_is_left_on_a_loop_that_goes_on(redis: RedisServer) -> None:
    async def run() -> None:
        settings: dict[str, Any] = {"rate_limit_store": redis.url, "rate_limit_store_timeout": PATIENCE}
        async with serve(Counting(), rate_limit_enabled=True, **settings) as info:
            assert info.address is not None
            with Client(info.address[1]) as client:
                assert await asyncio.to_thread(client.ask)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, pending = await asyncio.wait(others, timeout=PATIENCE)
            assert not pending

    asyncio.run(run())


# TLS and passwords

SECRET = "s3cret/word"


class TLSEnd:
    """Ends TLS in front of a Unix socket, one connection after the other.

    Where it does not `answer_the_end` it leaves that to whoever is connected, and `ended` says that it has come.
    """

    def __init__(self, certificate: str, key: str, path: str, answer_the_end: bool = True) -> None:
        self._answer_the_end = answer_the_end
        self.ended = threading.Event()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._path = path
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
                client = self._context.wrap_socket(plain, server_side=True)
            except OSError:
                return
            backend = socket.socket(socket.AF_UNIX)
            backend.connect(self._path)
            threading.Thread(target=self._relay, args=(client, backend), daemon=True).start()

    def _relay(self, client: ssl.SSLSocket, backend: socket.socket) -> None:
        # Redis answers each write whole, before the next one comes.
        with client, backend:
            try:
                while request := client.recv(65536):
                    backend.sendall(request)
                    client.sendall(backend.recv(65536))
                if not self._answer_the_end:
                    with socket.socket(fileno=client.detach()) as plain:
                        plain.recv(1)
            except OSError:
                pass
            self.ended.set()

    def close(self) -> None:
        self._listening.close()


def test_nothing_of_a_store_that_does_not_end_tls_outlives_the_worker(tls_files: tuple[str, str]) -> None:
    with RedisServer("--requirepass", SECRET) as redis:
        end = TLSEnd(*tls_files, redis.url.removeprefix("unix://"), answer_the_end=False)
        url = f"rediss://:wrong@localhost:{end.port}/0?ssl_ca_certs={tls_files[0]}"
        settings: dict[str, Any] = {"rate_limit_store": url, "rate_limit_store_timeout": 0.5}
        # Nothing that is left is to be found by chance.
        gc.disable()
        try:
            with TestServer(Counting(), rate_limit_enabled=True, **settings) as server, Client(server.port) as client:
                assert client.ask()
            assert end.ended.wait(PATIENCE)
        finally:
            gc.enable()
            end.close()


@pytest.mark.parametrize("password", [SECRET, "wr0ng/word"])
def test_password_is_used_over_tls_and_never_logged(
    password: str, tls_files: tuple[str, str], caplog: pytest.LogCaptureFixture, stores: list[RedisStore]
) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer("--requirepass", SECRET) as redis:
        end = TLSEnd(*tls_files, redis.url.removeprefix("unix://"))
        url = f"rediss://:{quote(password, safe='')}@localhost:{end.port}/0?ssl_ca_certs={tls_files[0]}"
        settings: dict[str, Any] = {"rate_limit_store": url, "rate_limit_store_timeout": PATIENCE}
        with TestServer(Counting(), rate_limit_enabled=True, **settings) as server, Client(server.port) as client:
            assert client.ask()
            is_asked = stores[0].is_asked
        end.close()
    assert is_asked is (password == SECRET)
    assert ("does not answer" in caplog.text) is not is_asked
    assert not any(text in caplog.text for text in (password, quote(password, safe="")))
