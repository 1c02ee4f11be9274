"""Rate limits: buckets, which limit a request is under, and what those are told that are beyond it. Time is held."""

import asyncio
import http.client
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pounce.admission.buckets import Buckets
from pounce.admission.policies import Policies
from pounce.admission.rate_limit import RateLimits
from pounce.config import ServerConfig
from pounce.contract.head import Origin, RequestHead
from pounce.errors import ConfigError
from pounce.server import Server
from pounce.testing import MemoryConnection, RecordingStream, TestServer
from pounce.testing.memory import memory_service

REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def config(**settings: Any) -> ServerConfig:
    return ServerConfig.of({"rate_limit_enabled": True} | settings)


# Buckets


def admitted(buckets: Buckets, times: Iterable[float], *, rate: float, burst: int, key: str = "a") -> int:
    return sum(buckets.take(key, 1 / rate, burst / rate, now) >= 0 for now in times)


@pytest.mark.parametrize("rate", [0.003, 0.7, 1.0, 3.0, 100.0, 7777.0, 1e6])
def test_burst_is_exact_at_any_rate(rate: float) -> None:
    assert admitted(Buckets(10), [86_400.0] * 1000, rate=rate, burst=300) == 300


@pytest.mark.parametrize("rate", [0.7, 3.0, 7777.0])
def test_rate_is_exact_over_a_long_time(rate: float) -> None:
    times = [1000 + number / (4 * rate) for number in range(40_000)]
    assert admitted(Buckets(10), times, rate=rate, burst=5) == pytest.approx(10_000 + 5, abs=1)


def test_refused_requests_cost_nothing() -> None:
    buckets = Buckets(10)
    assert admitted(buckets, [0.0] * 100, rate=1, burst=2) == 2
    assert admitted(buckets, [1.0] * 100, rate=1, burst=2) == 1


def test_wait_is_the_time_until_there_is_a_token() -> None:
    buckets = Buckets(10)
    assert buckets.take("a", 10.0, 10.0, 100.0) == pytest.approx(0.0, abs=0.02)
    assert buckets.take("a", 10.0, 10.0, 103.0) == pytest.approx(-7.0, abs=0.02)


def test_full_bucket_holds_no_more_than_its_burst() -> None:
    buckets = Buckets(10)
    admitted(buckets, [0.0] * 3, rate=1, burst=3)
    assert admitted(buckets, [1e6] * 10, rate=1, burst=3) == 3


@pytest.mark.parametrize("most", [1, 50, 5000])
def test_number_of_buckets_has_a_bound(most: int) -> None:
    buckets = Buckets(most)
    for number in range(4 * most):
        buckets.take(str(number), 1.0, 10.0, 0.0)
        assert len(buckets) <= most + 16


@pytest.mark.parametrize("most", [50, 5000])
def test_many_addresses_do_not_push_out_a_bucket_that_is_used_up(most: int) -> None:
    buckets = Buckets(most)
    admitted(buckets, [0.0] * 10, rate=0.001, burst=10, key="used up")
    for number in range(10 * most):
        buckets.take(str(number), 1000.0, 10_000.0, 0.0)
    assert buckets.take("used up", 1000.0, 10_000.0, 0.0) < 0


def test_full_buckets_are_dropped_first() -> None:
    buckets = Buckets(100)
    for number in range(99):
        buckets.take(f"old {number}", 1.0, 10.0, 0.0)
    buckets.take("used", 1.0, 10.0, 5.0)
    for number in range(20):
        buckets.take(f"new {number}", 1.0, 10.0, 5.0)
    assert buckets.wait("used", 1.0, 1.0, 5.0) > 0
    assert len(buckets) == 21


def test_limit_is_exact_over_threads() -> None:
    buckets, count = Buckets(100_000), 4
    totals: list[int] = []
    start = threading.Barrier(count)

    def work() -> None:
        start.wait()
        totals.append(admitted(buckets, [0.0] * 2000, rate=1, burst=3000))

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals) == 3000


# Policies


def head(method: bytes = b"GET", target: bytes = b"/", fields: Any = (), **more: Any) -> RequestHead:
    return RequestHead(method, target, list(fields), "1.1", **more)


def name(policies: Policies, *args: Any, **more: Any) -> str | None:
    found = policies.of(head(*args, **more))
    return found.name if found is not None else None


ROUTES = (
    "POST|PUT /login 5/m",
    "GET /api/*/items 10/s 30",
    "/api/* 2.5/s",
    "/free/* off",
    "/exact 1/d",
    "HEAD /big 1/s",
)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"POST", b"/login", "POST|PUT /login"),
        (b"PUT", b"/login?next=/api/x", "POST|PUT /login"),
        (b"GET", b"/login", "default"),
        (b"GET", b"/api/7/items", "GET /api/*/items"),
        (b"HEAD", b"/api/7/items", "GET /api/*/items"),
        (b"DELETE", b"/api/7/items", "/api/*"),
        (b"HEAD", b"/big", "HEAD /big"),
        (b"GET", b"/big", "default"),
        (b"GET", b"/api/7/8/items", "/api/*"),
        (b"GET", b"/api/", "/api/*"),
        (b"GET", b"/api", "default"),
        (b"GET", b"/%61pi/x", "/api/*"),
        (b"GET", b"http://example.org/api/x", "/api/*"),
        (b"GET", b"/free/lunch", None),
        (b"GET", b"/exact", "/exact"),
        (b"GET", b"/exact/", "default"),
        (b"GET", b"/out/of/it", None),
        (b"OPTIONS", b"*", "default"),
    ],
)
def test_first_route_that_fits_has_the_limit(method: bytes, target: bytes, expected: str | None) -> None:
    policies = Policies(config(rate_limit_routes=ROUTES, rate_limit_exempt_paths=("/out/*",)))
    assert [name(policies, method, target) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("method", [b"GET", b"CONNECT"], ids=["HTTP/1.1", "HTTP/2 and later"])
def test_websocket_handshake_is_a_get_on_every_wire(method: bytes) -> None:
    policies = Policies(config(rate_limit_routes=("GET /chat 1/m",)))
    assert name(policies, method, b"/chat", upgrade=b"websocket") == "GET /chat"


def test_upgrade_that_nobody_takes_does_not_make_another_method_a_get() -> None:
    policies = Policies(config(rate_limit_routes=("GET /login 1000/s", "POST /login 2/m")))
    assert name(policies, b"POST", b"/login", upgrade=b"x") == "POST /login"


@pytest.mark.parametrize(
    ("text", "rate", "burst"),
    [("/ 5/m", 5 / 60, 5), ("/ 5/h 20", 5 / 3600, 20), ("/ 0.5/s", 0.5, 1), ("/ 2/d", 2 / 86400, 2)],
)
def test_route_has_rate_and_burst(text: str, rate: float, burst: int) -> None:
    policy = Policies(config(rate_limit_routes=(text,))).of(head())
    assert policy is not None
    assert (policy.rate, policy.burst) == (pytest.approx(rate), burst)


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_limit_routes": ("login 5/m",)},
        {"rate_limit_routes": ("/login",)},
        {"rate_limit_routes": ("/login 0/m",)},
        {"rate_limit_routes": ("/login 5/m 0",)},
        {"rate_limit_routes": ("/login 5/week",)},
        {"rate_limit_exempt_paths": ("static",)},
        {"rate_limit_exempt": ("everybody",)},
        {"rate_limit_key": "header:"},
        {"rate_limit_key": "header:a b"},
        {"rate_limit_key": "address"},
        {"rate_limit_store": "http://localhost"},
        {"rate_limit_store": "redis://:secret@localhost:port"},
    ],
    ids=str,
)
def test_setting_that_cannot_be_understood_is_an_error_that_names_it(settings: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))) as raised:
        RateLimits(config(**settings))
    assert "secret" not in str(raised.value)


def client(policies: Policies, peer: str | None, fields: Any = (), origin: Origin | None = None) -> str | None:
    stream = RecordingStream()
    stream.connection.peer = (peer, 1) if peer is not None else None
    return policies.client_of(head(fields=fields, origin=origin), stream)


def test_store_without_its_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match="not installed") as raised:
        RateLimits(config(rate_limit_store="redis://:secret@localhost"))
    assert raised.value.hint == "Install it: pip install 'pounce-core[redis]'"


def test_store_is_a_secret() -> None:
    assert "secret" not in repr(config(rate_limit_store="redis://:secret@localhost"))


def test_client_is_an_address_or_an_ipv6_64() -> None:
    policies = Policies(config())
    assert client(policies, "192.0.2.1") != client(policies, "192.0.2.2")
    assert client(policies, "2001:db8::1") == client(policies, "2001:db8::ffff:2")
    assert client(policies, "2001:db8::1") != client(policies, "2001:db8:0:1::1")
    assert client(policies, None) == client(policies, None)


def test_client_is_whom_trusted_proxies_name() -> None:
    policies = Policies(config())
    origin = Origin(("198.51.100.7", 0), None)
    assert client(policies, "192.0.2.1", origin=origin) == client(policies, "198.51.100.7")


@pytest.mark.parametrize("peer", ["10.1.2.3", "2001:db8::7", None])
def test_those_who_are_exempt_have_no_limit(peer: str | None) -> None:
    policies = Policies(config(rate_limit_exempt=("10.0.0.0/8", "2001:db8::/32", "unix")))
    assert client(policies, peer) is None
    assert client(policies, "192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("key", "fields"),
    [("header:X-Api-Key", [(b"x-api-key", b"s3cret")]), ("cookie:sid", [(b"cookie", b"a=b; sid=s3cret; c=d")])],
)
def test_key_may_be_a_field_and_is_not_kept_as_it_is(key: str, fields: Any) -> None:
    policies = Policies(config(rate_limit_key=key))
    found = client(policies, "192.0.2.1", fields)
    assert found == client(policies, "192.0.2.2", fields)
    assert found is not None and "s3cret" not in found
    other = [(name, value.replace(b"s3cret", b"other")) for name, value in fields]
    assert client(policies, "192.0.2.1", other) != found
    assert client(policies, "192.0.2.1") == "192.0.2.1"


# Requests


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def connected(clock: Clock, app: Any = hello, **settings: Any) -> MemoryConnection:
    given = {"rate_limit_enabled": True} | settings
    limits: Any = RateLimits(ServerConfig.of(given), clock)
    return MemoryConnection(service=memory_service(app, admission=(limits,), **given))


def ask(connection: MemoryConnection, request: bytes = REQUEST) -> tuple[int, dict[str, str]]:
    """Status and fields of the answer."""
    before = len(connection.received)
    connection.feed(request)
    first, *lines = connection.received[before:].decode().partition("\r\n\r\n")[0].split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines)


def run(test: Callable[[Clock], Any]) -> None:
    asyncio.run(test(Clock()))


def test_client_beyond_its_limit_is_told_when_to_come_back() -> None:
    async def test(clock: Clock) -> None:
        connection = connected(clock, rate_limit_burst=2, rate_limit_requests_per_second=0.1)
        assert [ask(connection)[0] for _ in range(3)] == [200, 200, 429]
        clock.now += 3.5
        status, fields = ask(connection)
        assert (status, fields["retry-after"]) == (429, "7")
        assert fields["x-pounce-error-code"] == "POUNCE_LIMIT_RATE"
        assert fields["ratelimit-policy"] == '"default";q=2;w=20'
        assert fields["ratelimit"] == '"default";r=0;t=7'
        clock.now += float(fields["retry-after"])
        assert ask(connection)[0] == 200
        assert connection.service.counts["POUNCE_LIMIT_RATE"] == 2

    run(test)


def test_admitted_answers_tell_what_is_left_where_that_is_asked_for() -> None:
    async def test(clock: Clock) -> None:
        connection = connected(
            clock, rate_limit_burst=3, rate_limit_requests_per_second=0.1, rate_limit_fields="all", request_id=True
        )
        found = []
        for _ in range(3):
            found.append(ask(connection)[1]["ratelimit"])
            clock.now += 4
        # The seconds are those until there is one more.
        assert found == ['"default";r=2;t=10', '"default";r=1;t=6', '"default";r=0;t=2']
        status, fields = ask(connection)
        assert (status, fields["ratelimit"]) == (200, '"default";r=0;t=8')
        assert "x-request-id" in fields

    run(test)


@pytest.mark.parametrize(("fields", "admitted", "refused"), [("refused", 0, 2), ("off", 0, 0), ("all", 2, 2)])
def test_fields_are_sent_as_the_setting_says(fields: str, admitted: int, refused: int) -> None:
    async def test(clock: Clock) -> None:
        connection = connected(clock, rate_limit_burst=1, rate_limit_fields=fields)
        answers = [ask(connection) for _ in range(2)]
        assert [status for status, _ in answers] == [200, 429]
        found = [sum(name.startswith("ratelimit") for name in each) for _, each in answers]
        assert found == [admitted, refused]
        assert "retry-after" in answers[1][1]

    run(test)


def test_each_route_has_a_bucket_of_its_own() -> None:
    async def test(clock: Clock) -> None:
        connection = connected(clock, rate_limit_burst=1, rate_limit_routes=("/a 1/m", "/b 1/m", "/c off"))
        paths = ["/", "/a", "/b", "/other", "/a", "/b", "/c", "/c"]
        statuses = [ask(connection, REQUEST.replace(b" / ", b" %b " % path.encode()))[0] for path in paths]
        assert statuses == [200, 200, 200, 429, 429, 429, 200, 200]

    run(test)


def test_workers_of_a_process_count_together() -> None:
    async def test(clock: Clock) -> None:
        given = {"rate_limit_enabled": True, "rate_limit_burst": 3}
        limits: Any = RateLimits(ServerConfig.of(given), clock)
        workers = [MemoryConnection(service=memory_service(hello, admission=(limits,), **given)) for _ in range(2)]
        assert [ask(workers[number % 2])[0] for number in range(4)] == [200, 200, 200, 429]

    run(test)


def test_bucket_that_was_forgotten_is_found_anew() -> None:
    async def test(clock: Clock) -> None:
        given = {"rate_limit_enabled": True, "rate_limit_burst": 2, "rate_limit_max_tracked_ips": 1}
        limits: Any = RateLimits(ServerConfig.of(given), clock)
        service = memory_service(hello, admission=(limits,), **given)
        one, other = (MemoryConnection(service=service, extra={"peername": (f"192.0.2.{n}", 1)}) for n in (1, 2))
        statuses = [ask(connection)[0] for connection in (one, one, other, one, one, one)]
        assert statuses == [200, 200, 200, 200, 200, 429]
        assert len(limits.buckets) == 1

    run(test)


def test_limit_is_exact_over_the_threads_of_a_server() -> None:
    statuses: list[int] = []

    def work(port: int) -> None:
        for _ in range(40):
            client = http.client.HTTPConnection("127.0.0.1", port, 60)
            client.request("GET", "/")
            answer = client.getresponse()
            answer.read()
            statuses.append(answer.status)
            client.close()

    settings: dict[str, Any] = {"rate_limit_burst": 70, "rate_limit_requests_per_second": 1e-6}
    with TestServer(hello, workers=3, lifespan="off", rate_limit_enabled=True, **settings) as server:
        threads = [threading.Thread(target=work, args=(server.port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counter(statuses) == {200: 70, 429: 50}


def test_name_of_a_route_is_a_string_of_structured_fields() -> None:
    policy = Policies(config(rate_limit_routes=('/"\\é 1/s',))).of(head(target=b'/"\\%C3%A9'))
    assert policy is not None
    assert policy.told == b'"/\\"\\\\?";q=1;w=1'


# Workers that have nothing in common


@pytest.mark.parametrize("mode", ["process", "subinterpreter"])
def test_several_processes_need_a_store(mode: str) -> None:
    with pytest.raises(ConfigError, match="rate_limit_store"):
        Server(config(workers=2, worker_mode=mode), hello)
    Server(config(workers=2, worker_mode=mode, rate_limit_store="redis://localhost"), hello)
    Server(config(workers=1, worker_mode=mode), hello)
    Server(config(workers=2, worker_mode="thread"), hello)
