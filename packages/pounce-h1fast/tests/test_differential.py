"""Every judge reads the same streams: what is accepted must mean the same to all of them.

The short run belongs to `make test`; `make fuzz` runs the same properties for minutes, from a new seed each time.
"""

import functools
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import judges
import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judges import (
    CASES,
    FUZZ_SECONDS,
    LIMITS,
    TIGHT,
    Verdict,
    compare_with_h11,
    compare_with_httptools,
    fast_says,
    guarded_h11_says,
)

from pounce.plugin import ParserLimits

PROPERTIES = 8
"""Among which a long run divides two thirds of its time."""

_settings = settings(
    max_examples=500 if FUZZ_SECONDS else 100,
    deadline=None,
    database=None,
    derandomize=not FUZZ_SECONDS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def holds_for(*drawn: st.SearchStrategy) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a test of a property; a long run repeats it until its share of the time is over."""

    def make(check: Callable[..., None]) -> Callable[[], None]:
        @functools.wraps(check)
        def counted(*args: object, **named: object) -> None:
            CASES[check.__name__.removeprefix("test_")] += 1
            check(*args, **named)

        checked = _settings(given(*drawn)(counted))

        def test() -> None:
            until = time.monotonic() + FUZZ_SECONDS * 2 / 3 / PROPERTIES
            checked()
            while time.monotonic() < until:
                checked()

        test.__doc__ = check.__doc__
        return test

    return make


limits = st.sampled_from([LIMITS, LIMITS, LIMITS, TIGHT])
any_stream = st.one_of(strategies.streams, strategies.repeats, strategies.mutants)


def _check_same(data: bytes, bounds: ParserLimits, where: Iterable[int]) -> Verdict:
    """Both parsers read the same, and refuse with the same status and code, also in pieces."""
    fast = fast_says(data, limits=bounds)
    guarded = guarded_h11_says(data, limits=bounds)
    assert fast.meaning == guarded.meaning, f"{data!r}: h1fast {fast}, h11 {guarded}"
    for says in (fast_says, guarded_h11_says):
        cut = says(data, where, bounds)
        assert cut.meaning == fast.meaning, f"{data!r} cut at {where}: {cut}, in one piece: {fast}"
    return fast


@holds_for(strategies.streams, limits, strategies.cuts())
def test_both_parsers_read_built_requests_alike_however_they_are_cut(
    data: bytes, bounds: ParserLimits, where: Iterable[int]
) -> None:
    _check_same(data, bounds, where)


@holds_for(strategies.mutants, limits, strategies.cuts())
def test_both_parsers_read_damaged_requests_alike_however_they_are_cut(
    data: bytes, bounds: ParserLimits, where: Iterable[int]
) -> None:
    _check_same(data, bounds, where)


@holds_for(strategies.repeats, limits, strategies.cuts())
def test_both_parsers_read_requests_that_repeat_each_other_alike(
    data: bytes, bounds: ParserLimits, where: Iterable[int]
) -> None:
    _check_same(data, bounds, where)


@holds_for(strategies.single_mistakes, strategies.cuts())
def test_both_parsers_read_requests_with_a_single_mistake_alike(data: bytes, where: Iterable[int]) -> None:
    _check_same(data, LIMITS, where)


@holds_for(strategies.streams, st.data())
def test_every_beginning_of_a_stream_is_read_alike(data: bytes, more: st.DataObject) -> None:
    _check_same(data[: more.draw(st.integers(0, len(data)))], LIMITS, [])


@holds_for(any_stream, any_stream)
def test_what_was_read_before_changes_no_verdict(data: bytes, before: bytes) -> None:
    """The table of lines outlives connections: a new thread, whose table is empty, must read the same."""
    with judges.empty_table():
        cold = fast_says(data)
    with judges.empty_table():
        fast_says(before)
        warm = fast_says(data)
    assert warm == warm._replace(requests=cold.requests, unread=cold.unread)
    assert str(warm.error) == str(cold.error)


@holds_for(any_stream)
def test_what_we_accept_means_the_same_to_h11(data: bytes) -> None:
    compare_with_h11(data, fast_says(data))


@holds_for(any_stream)
def test_what_we_accept_means_the_same_to_httptools(data: bytes) -> None:
    compare_with_httptools(data, fast_says(data))


MAKERS = [strategies.mutate, strategies.stream, strategies.repeat, strategies.one_mistake]


def test_thousands_of_streams_are_read_alike_by_all_judges() -> None:
    """All rules at once, without the machinery that makes failures small: it holds ten times as many streams."""
    seed = time.time_ns() if FUZZ_SECONDS else 0
    rng = random.Random(seed)
    until = time.monotonic() + FUZZ_SECONDS / 3
    count = 0
    while count < 2000 or time.monotonic() < until:
        count += 1
        CASES["thousands_of_streams_are_read_alike_by_all_judges"] += 1
        data = rng.choice(MAKERS)(rng)
        bounds = rng.choice([LIMITS, LIMITS, LIMITS, TIGHT])
        where = [rng.randrange(len(data) + 1) for _ in range(3)] if rng.randrange(3) else range(len(data))
        verdict = _check_same(data, bounds, where)
        if bounds is LIMITS:
            compare_with_h11(data, verdict)
            compare_with_httptools(data, verdict)


def _corpus(folder: str) -> list[pytest.param]:
    return [pytest.param(path, id=path.stem) for path in strategies.corpus(folder)]


@pytest.mark.parametrize("path", _corpus("accepted"))
def test_judges_agree_on_what_clients_send(path: Path) -> None:
    data = path.read_bytes()
    verdict = _check_same(data, LIMITS, range(len(data)))
    assert verdict.error is None and not verdict.unread
    compare_with_h11(data, verdict)
    compare_with_httptools(data, verdict)


@pytest.mark.parametrize("path", _corpus("refused"))
def test_attacks_are_refused_with_the_status_in_their_name(path: Path) -> None:
    data = path.read_bytes()
    verdict = _check_same(data, LIMITS, range(len(data)))
    assert verdict.error is not None, verdict
    assert verdict.error.status == int(path.stem.partition("-")[0])
    compare_with_h11(data, verdict)
    compare_with_httptools(data, verdict)


@pytest.mark.parametrize(
    ("judge", "says", "listed"),
    [
        ("h11", judges.h11_says, judges.STRICTER_THAN_H11),
        ("httptools", judges.httptools_says, judges.STRICTER_THAN_HTTPTOOLS),
    ],
)
def test_corpus_shows_every_refusal_that_another_judge_does_not_share(
    judge: str, says: Callable[[bytes], judges.Reading], listed: dict[str, str]
) -> None:
    """When this fails, one of us has changed how strict it is; the list in `judges` must say so, and why."""
    shown = set()
    for path in strategies.corpus("refused"):
        data = path.read_bytes()
        verdict = fast_says(data)
        said, error = says(data[verdict.next_start :])
        assert verdict.error is not None
        if error is None and said is not None and said.end is not None:
            shown.add(verdict.error.code.removeprefix("POUNCE_PARSE_"))
    assert shown == set(listed)


@pytest.mark.parametrize("path", _corpus("unfinished"))
def test_unfinished_requests_are_waited_for(path: Path) -> None:
    data = path.read_bytes()
    verdict = _check_same(data, LIMITS, range(len(data)))
    assert verdict.error is None and verdict.unread
    compare_with_h11(data, verdict)
    compare_with_httptools(data, verdict)
