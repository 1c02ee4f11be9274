"""Redis store: buckets that several processes and machines share, in Redis or Valkey.

    Place        of a process: where the store is, and whether it answers, so that the log says so once
    RedisStore   of a worker: what is asked, in batches, over one connection

                 ┌──────────── asked: wait for an answer, until the deadline ────────────┐
    CONNECTING ──┴─▶ ANSWERS ──failure, or no answer in time──▶ SILENT ──connected──▶ ANSWERS
         └───────────────failure, or not there in time────────────▲

While it is silent nothing waits for it: the process decides by itself. What was asked meanwhile is decided so as well,
when the oldest question has waited as long as the deadline says. A task of the worker connects, asks what has come
together during a turn of the loop or the last batch, and connects anew with growing pauses after a failure.

It is connected when the script has run once: a replica, a store without memory or one that does not let us write loads
scripts and runs none. The script is one round trip and atomic. Time is that of the store, so that the clocks of
machines do not matter; where it goes back, no bucket is emptier than an empty one.
"""

import asyncio
import logging
import random
import threading
from collections import deque
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from pounce.errors import ConfigError

if TYPE_CHECKING:
    from pounce.admission.policies import Policy
    from pounce.config import ServerConfig
    from pounce.contract.head import RequestHead
    from pounce.exchange.host import Host
    from pounce.exchange.waiting import Verdict

__all__ = ["Place", "RedisStore"]

log = logging.getLogger("pounce")

BATCH = 256
"""Questions in one round trip."""
CONNECT_TIMEOUT = 2.0
"""Seconds to connect in, where the deadline of a request is shorter."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to connect."""
TRIAL = 1000
"""Microseconds in which the bucket of the first question to a store fills, and is forgotten."""
END_TIMEOUT = 1.0
"""Seconds that the end of a connection may take."""
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}

# KEYS: the bucket. ARGV: microseconds in which a token comes, and in which an empty bucket fills. Answers with the
# microseconds until the bucket is full, and until there is a token: 0 where one was taken.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local period, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local function keep(full)
    redis.call('SET', KEYS[1], string.format('%.3f', full), 'PX', math.ceil((full - now) / 1000) + 1)
end
-- What is no bucket of ours is replaced by one.
local given = redis.pcall('GET', KEYS[1])
local full = type(given) == 'string' and tonumber(given) or now
if not (full >= now and full < math.huge) then full = now end
local wait = full + period - span - now
if wait > period * 2 + 2 then
    -- Nobody takes more than there is: the clock has gone back, or the limit has been another one.
    full = now + span
    wait = period
    keep(full)
end
if wait > period * 0.001 + 1 then
    return {math.ceil(full - now), math.ceil(wait)}
end
full = full + period
keep(full)
return {math.ceil(full - now), 0}
"""


class Limit(Protocol):
    """What decides by what the store says, or without it; see `pounce.admission.rate_limit.RateLimit`."""

    def now(self) -> float: ...

    def decide(self, head: RequestHead, key: str, policy: Policy) -> Verdict: ...

    def learn(
        self, head: RequestHead, key: str, policy: Policy, missing: float, wait: float, asked: float
    ) -> Verdict: ...


class Place:
    """Where the store is. May be used from any thread."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `ConfigError`; no message has the URL, which may have a password."""
        url = config.secret("rate_limit_store") or ""
        try:
            parts = urlsplit(url)
            port, scheme = parts.port, SCHEMES.get(parts.scheme)
        except ValueError:
            scheme = port = None
        if scheme is None:
            raise ConfigError(
                "rate_limit_store must be a URL that begins with redis://, rediss:// or unix://",
                hint="For example redis://localhost:6379/0.",
            )
        try:
            import_module("redis.asyncio")
        except ImportError as exc:
            raise ConfigError(
                "rate_limit_store needs the package redis, which is not installed",
                hint="Install it: pip install 'pounce-core[redis]'",
            ) from exc
        password = parts.password or ""
        self._secrets = [text for text in (password, unquote(password), parts.query) if text]
        host = parts.hostname or "localhost"
        where = parts.path if scheme == "unix" else f"{f'[{host}]' if ':' in host else host}:{port or 6379}"
        self.name = f"{scheme}://{where}"
        """Without what is secret."""
        self._url = scheme + url[len(parts.scheme) :]
        self._lock = threading.Lock()
        """Protects `_is_silent`."""
        self._is_silent = False
        try:
            self.client()
        except (ValueError, TypeError) as exc:
            raise ConfigError(
                f"rate_limit_store cannot be used: {self.told(exc)}", hint="For example redis://localhost:6379/0."
            ) from None

    def client(self) -> Any:
        """A connection that is made when it is used."""
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Deadlines and new attempts are ours.
        client: Any = redis.asyncio.Redis.from_url(
            self._url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            health_check_interval=0,
            protocol=2,
            single_connection_client=True,
        )
        pool = client.connection_pool
        pool.connection_class = _aborting(pool.connection_class)
        return client

    def told(self, error: BaseException) -> str:
        """A failure in words, without what is secret."""
        text = str(error) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text.splitlines()[0][:200].rstrip(".")

    def silent(self, why: str) -> None:
        """A worker has no answer: the log says so, unless another one has said it since there was one."""
        with self._lock:
            if not self._is_silent:
                self._is_silent = True
                # Behind the lock, so that lines come in the order of what they tell.
                log.warning(
                    "The rate limit store %s does not answer: %s. Each process limits by itself until it does",
                    self.name,
                    why,
                )

    def answers(self) -> None:
        """A worker has an answer."""
        with self._lock:
            if self._is_silent:
                self._is_silent = False
                log.info("The rate limit store %s answers again", self.name)


class _Question:
    __slots__ = ("asked", "due", "head", "key", "policy", "promise")

    def __init__(
        self, promise: asyncio.Future[Verdict], head: RequestHead, key: str, policy: Policy, asked: float, due: float
    ) -> None:
        self.promise = promise
        self.head = head
        self.key = key
        self.policy = policy
        self.asked = asked
        self.due = due


class RedisStore:
    """What one worker asks of the store; belongs to its loop."""

    def __init__(self, service: Host, place: Place, limit: Limit) -> None:
        config = service.config
        self._service = service
        self._loop = service.loop
        self._place = place
        self._limit = limit
        self._deadline = config.rate_limit_store_timeout
        self._prefix = config.rate_limit_store_prefix
        self.is_asked = True
        """False while the store is silent."""
        self._is_connected = False
        self._pause = FIRST_PAUSE
        """Before the next attempt to connect."""
        self._questions: deque[_Question] = deque()
        """Not yet sent."""
        self._sent: list[_Question] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        # From when the worker serves on, so that it need not be the first request that waits for a connection.
        service.on_tick.add(self._begin)
        service.on_end.add(self.end)

    @property
    def counts(self) -> dict[str, float]:
        """Of its worker."""
        return self._service.counts

    def ask(self, head: RequestHead, key: str, policy: Policy) -> asyncio.Future[Verdict]:
        """Ask for a token; the verdict comes before the deadline, from the store or from this process."""
        promise: asyncio.Future[Verdict] = self._loop.create_future()
        now = self._loop.time()
        self._questions.append(_Question(promise, head, key, policy, self._limit.now(), now + self._deadline))
        self._wake.set()
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._deadline, self._look)
        if self._task is None:
            self._begin(now)
        return promise

    def _begin(self, now: float) -> None:
        self._service.on_tick.discard(self._begin)
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def end(self) -> None:
        """Ask no more, and close the connection; what is asked nevertheless is decided by this process."""
        self.is_asked = False
        self._decide_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _look(self) -> None:
        """Whether the oldest question has waited too long."""
        self._timer = None
        oldest = self._sent[0] if self._sent else self._questions[0] if self._questions else None
        if oldest is None:
            return
        if oldest.due > self._loop.time():
            self._timer = self._loop.call_at(oldest.due, self._look)
            return
        self._fail(f"no answer within {self._deadline:g} s")
        if self._scope is not None and self._is_connected:
            self._scope.reschedule(self._loop.time())

    def _fail(self, why: str) -> None:
        self.is_asked = False
        self._service.count("rate_limit_store_failed")
        self._place.silent(why)
        self._decide_all()

    def _decide_all(self) -> None:
        questions = [*self._sent, *self._questions]
        self._sent = []
        self._questions.clear()
        for question in questions:
            if not question.promise.done():
                question.promise.set_result(self._limit.decide(question.head, question.key, question.policy))

    # The task

    async def _run(self) -> None:
        while True:
            client = self._place.client()
            try:
                async with asyncio.timeout(max(CONNECT_TIMEOUT, self._deadline)) as self._scope:
                    script = await client.script_load(SCRIPT)
                    _times(await client.evalsha(script, 1, self._prefix, TRIAL, TRIAL))
                    self._scope.reschedule(None)
                    self._is_connected = self.is_asked = True
                    self._place.answers()
                    await self._serve(client, script)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the log says so
                if self.is_asked:
                    self._fail(self._place.told(exc))
            finally:
                self._scope = None
                self._is_connected = False
                await self._end(client)
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    async def _serve(self, client: Any, script: str) -> None:
        """Ask what there is to ask, until something fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._questions:
                await self._ask_batch(client, script)

    async def _ask_batch(self, client: Any, script: str) -> None:
        sent = self._sent = []
        while self._questions and len(sent) < BATCH:
            question = self._questions.popleft()
            # Who has left takes no token.
            if not question.promise.done():
                sent.append(question)
        if not sent:
            return
        asked = self._limit.now()
        batch = client.pipeline(transaction=False)
        for question in sent:
            policy = question.policy
            batch.evalsha(script, 1, self._prefix + question.key, policy.period * 1e6, policy.span * 1e6)
        answers = await batch.execute(raise_on_error=False)
        failure = None
        forgotten = False
        for question, answer in zip(sent, answers, strict=True):
            if question.promise.done():
                continue
            if isinstance(answer, Exception):
                failure = answer
                if type(answer).__name__ == "NoScriptError":
                    forgotten = True
                continue
            missing, wait = _times(answer)
            question.promise.set_result(
                self._limit.learn(question.head, question.key, question.policy, missing, wait, asked)
            )
        if forgotten:
            # Somebody has emptied its memory of scripts. What was asked stays where it is decided without an answer.
            await client.script_load(SCRIPT)
            self._questions.extendleft(reversed([question for question in sent if not question.promise.done()]))
        elif failure is not None:
            raise failure
        else:
            self._pause = FIRST_PAUSE
        self._sent = []

    async def _end(self, client: Any) -> None:
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await client.aclose()
        except Exception:  # noqa: BLE001, S110 - it is given up anyway
            pass


def _times(answer: Any) -> tuple[float, float]:
    """What the script answers, in seconds. Raises `ValueError` for what it cannot have answered,
    `OverflowError` for a number that is beyond all times."""
    if not isinstance(answer, list) or len(answer) != 2 or not all(isinstance(each, int) for each in answer):
        raise ValueError("what it answers is no answer of the script")
    missing, wait = answer
    return missing / 1e6, wait / 1e6


@cache
def _aborting(base: Any) -> Any:
    """The same class of connections, that does not wait for the peer at their end, as TLS does."""

    class Aborting(base):  # type: ignore[misc]
        async def disconnect(self, *args: Any, **kwargs: Any) -> None:
            if self._writer is not None:
                self._writer.transport.abort()
            await super().disconnect(*args, **kwargs)

    return Aborting
