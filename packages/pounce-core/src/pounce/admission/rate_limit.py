"""Rate limits: how often a client may ask.

    RateLimits     of a process: the buckets, and whether the store answers
    RateLimit      of a worker: the step of admission, which finds policy and bucket, and refuses
    redis_store    where the buckets of several processes and machines are, if they are to share them

With a store a request waits for its answer (`exchange.waiting`), unless it is known here already that the bucket is
empty: it cannot fill faster than its rate, whoever else takes from it. What the store says of a bucket is kept here, so
that the limit of this process goes on from there when the store does not answer.
"""

import time
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

from pounce.admission.buckets import FORGOTTEN, SLACK, Bucket, Buckets
from pounce.admission.policies import Policies, Policy
from pounce.errors import BadRequest
from pounce.exchange.rated import RATE_LIMIT
from pounce.exchange.waiting import Verdict, WaitingExchange

if TYPE_CHECKING:
    from pounce.admission.redis_store import RedisStore
    from pounce.config import ServerConfig
    from pounce.contract.head import Headers, RequestHead
    from pounce.contract.stream import Exchange, Stream
    from pounce.exchange.host import Host
    from pounce.exchange.service import Admit

__all__ = ["RateLimit", "RateLimits"]

CODE = "POUNCE_LIMIT_RATE"
TINY = 1e-6
"""Seconds by which times may be inexact."""
PLACES_MAX = 1024
"""Peers of which a worker remembers where their bucket is."""


class RateLimits:
    """What the workers of one process have in common. `clock` never goes back, and is the same for all."""

    def __init__(self, config: ServerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `ConfigError`, also where the store needs a package that is not installed."""
        self.buckets = Buckets(config.rate_limit_max_tracked_ips)
        self.clock = clock
        Policies(config)
        self._store = None
        if config.rate_limit_store is not None or config.rate_limit_store_file is not None:
            from pounce.admission.redis_store import Place

            self._store = Place(config)

    def __call__(self, service: Host) -> Admit:
        """The step of one worker."""
        step = RateLimit(service, self.buckets, self.clock)
        if self._store is None:
            return step.short_cut() or step.admit
        from pounce.admission.redis_store import RedisStore

        step.store = RedisStore(service, self._store, step)
        return step.admit_by_store


class RateLimit:
    """The step of one worker."""

    def __init__(self, service: Host, buckets: Buckets, clock: Callable[[], float]) -> None:
        config = service.config
        self._service = service
        self._policies = policies = Policies(config)
        self._policy_of = policies.of
        self._client_of = policies.client_of
        self._take = buckets.take
        self._buckets = buckets
        self._clock = clock
        self._tells_admitted = config.rate_limit_fields == "all"
        self._tells_refused = config.rate_limit_fields != "off"
        self.store: RedisStore | None = None

    def admit(self, head: RequestHead, stream: Stream) -> Exchange | None:
        """Take a token, or refuse the request."""
        policy = self._policy_of(head)
        if policy is None:
            return None
        client = self._client_of(head, stream)
        if client is None:
            return None
        left = self._take(policy.prefix + client, policy.period, policy.span, self._clock())
        if left < 0.0:
            return self._service.refuse(head, stream, self._refusal(policy, -left))
        if self._tells_admitted:
            self._tell(head, policy, left)
        return None

    def short_cut(self) -> Admit | None:
        """The same in one function, where there is one policy and every client is known by its address: half the cost.
        None where it takes more to know."""
        policies, buckets, clock = self._policies, self._buckets, self._clock
        if not policies.are_simple:
            return None
        policy, tells = policies.default, self._tells_admitted
        period, limit = policy.period, policy.span + SLACK * policy.period - policy.period
        places: dict[tuple[str, int] | None, tuple[Bucket, Callable[[], object], Callable[[], object]]] = {}
        """Buckets with their locks, by the peers of connections."""

        def find(peer: tuple[str, int] | None) -> tuple[Bucket, Callable[[], object], Callable[[], object]]:
            if len(places) >= PLACES_MAX:
                places.clear()
            lock, bucket = buckets.find(policies.key_of(peer), clock())
            found = places[peer] = bucket, lock.acquire, lock.release
            return found

        def admit(head: RequestHead, stream: Stream) -> Exchange | None:
            peer = stream.connection.peer if head.origin is None else head.origin.peer
            try:
                bucket, acquire, release = places[peer]
            except KeyError:
                bucket, acquire, release = find(peer)
            now = clock()
            # A `with` costs twice as much.
            acquire()
            try:
                full = bucket[0]
                left = limit
                if full > now:
                    left += now - full
                else:
                    full = now
                if left >= 0.0:
                    bucket[0] = full + period
            finally:
                release()
            if left < 0.0:
                if full == FORGOTTEN:
                    del places[peer]
                    return admit(head, stream)
                return self._service.refuse(head, stream, self._refusal(policy, -left))
            if tells:
                self._tell(head, policy, left)
            return None

        return admit

    def admit_by_store(self, head: RequestHead, stream: Stream) -> Exchange | None:
        """The same where the buckets are in a store, as long as it answers."""
        policy = self._policy_of(head)
        if policy is None:
            return None
        client = self._client_of(head, stream)
        if client is None:
            return None
        key = policy.prefix + client
        store = self.store
        if store is None or not store.is_asked:
            self._service.count("rate_limited_locally")
            return self.admit(head, stream)
        wait = self._buckets.wait(key, policy.period, policy.span, self._clock())
        if wait > 0.0:
            return self._service.refuse(head, stream, self._refusal(policy, wait))
        return WaitingExchange(self._service, head, stream, store.ask(head, key, policy))

    # For the store

    def decide(self, head: RequestHead, key: str, policy: Policy) -> Verdict:
        """By the buckets of this process alone."""
        self._service.count("rate_limited_locally")
        return self._verdict(head, policy, self._take(key, policy.period, policy.span, self._clock()))

    def learn(self, head: RequestHead, key: str, policy: Policy, missing: float, wait: float, asked: float) -> Verdict:
        """What the store has said: the time that the bucket takes to fill, and that until there is a token, 0 where one
        was taken. `asked` is when it was asked, by the clock of this process: it was true then or a little later.

        A bucket is not emptier than empty, and the next token no further off than its period, whatever the store says.
        """
        missing, wait = min(missing, policy.span), min(wait, policy.period)
        self._buckets.set(key, asked + missing, asked)
        left = -wait if wait else max(policy.span - missing, 0.0)
        return self._verdict(head, policy, left + SLACK * policy.period)

    def now(self) -> float:
        """By the clock of the buckets."""
        return self._clock()

    def _verdict(self, head: RequestHead, policy: Policy, left: float) -> Verdict:
        if left < 0.0:
            return self._refusal(policy, -left)
        if self._tells_admitted:
            self._tell(head, policy, left)
        return None

    # What clients are told, in whole seconds and not too early: `left` and `wait` have the slack of the buckets

    def _refusal(self, policy: Policy, wait: float) -> BadRequest:
        error = BadRequest(
            "This client has sent more requests than it may",
            status=429,
            code=CODE,
            hint="Retry-After says when the next one is welcome; see the settings rate_limit_*.",
        )
        seconds = max(ceil(wait + SLACK * policy.period - TINY), 1)
        fields: Headers = [(b"retry-after", b"%d" % seconds)]
        if self._tells_refused:
            # "the Retry-After field value SHOULD NOT reference a point in time earlier than the end of the effective
            # window", which is that until there is another token.
            fields.append((b"ratelimit-policy", policy.told))
            fields.append((b"ratelimit", b"%b;r=0;t=%d" % (policy.quoted, seconds)))
        error.fields = tuple(fields)
        return error

    def _tell(self, head: RequestHead, policy: Policy, left: float) -> None:
        """Leave what the answer is to say with the request."""
        remaining = int(left / policy.period)
        window = max(ceil((remaining + 1 + SLACK) * policy.period - left - TINY), 1)
        told = (
            (b"ratelimit-policy", policy.told),
            (b"ratelimit", b"%b;r=%d;t=%d" % (policy.quoted, remaining, window)),
        )
        extensions = head.extensions
        head.extensions = {RATE_LIMIT: told} if extensions is None else {**extensions, RATE_LIMIT: told}
