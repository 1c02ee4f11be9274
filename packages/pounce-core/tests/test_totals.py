"""What workers count, as a plugin adds it up."""

import asyncio
import json
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import pytest

from pounce.contract.totals import Totals
from pounce.exchange.asked_totals import AskedTotals
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin, RequestHead, Responder, Service
from pounce.registry import Registry
from pounce.supervisor.child import Child
from pounce.supervisor.children import Children
from pounce.supervisor.collecting import Collecting
from pounce.testing import TestServer


def counting(service: Service) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        totals = await service.totals()
        body = json.dumps({"counts": totals.counts, "gauges": totals.gauges, "place": service.place}).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    def respond(head: RequestHead) -> Any:
        service.count("asked")
        service.gauges["places"] = 1
        return app

    return respond


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_knows_what_all_of_them_have_counted(workers: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    plugin = Plugin(name="counting", api=API_VERSION, responders=(Responder(name="counting", create=counting),))
    registry = Registry.of(h1, plugin)
    places = set()
    with TestServer(app, workers=workers, worker_mode="thread", registry=registry, lifespan="off") as server:
        for number in range(1, 31):
            with urlopen(server.url) as answer:
                found = json.load(answer)
            assert found["counts"]["asked"] == number
            places.add(found["place"])
            assert found["gauges"]["places"] == len(places)
    assert places <= set(range(workers))


def test_sums_have_the_names_of_all_and_those_who_ended_leave_no_gauges() -> None:
    total = Totals.of((Totals({"a": 1, "b": 2}, {"g": 1}), Totals({"b": 3}, {"g": 2.5, "h": 1})))
    assert total == Totals({"a": 1, "b": 5}, {"g": 3.5, "h": 1})
    assert total.ended() == Totals({"a": 1, "b": 5}, {})


def test_what_several_workers_say_of_their_process_counts_once_and_goes_with_it() -> None:
    before, after = Totals(processes={"cpu{pid=1}": 5}), Totals(processes={"cpu{pid=1}": 7})
    other = Totals({"a": 1}, processes={"cpu{pid=2}": 1})
    assert Totals.of((after, before, other)).processes == {"cpu{pid=1}": 7, "cpu{pid=2}": 1}
    # Else there would be more names with each process that was replaced.
    assert Totals.of((after, other.ended())) == Totals({"a": 1}, {}, {"cpu{pid=1}": 7})


def test_however_many_of_a_worker_want_totals_there_is_one_question_at_a_time() -> None:
    questions: list[Callable[[Totals | None], None]] = []

    async def ask() -> list[Totals]:
        asked = AskedTotals(questions.append, asyncio.get_running_loop())
        first = asyncio.ensure_future(asked.get())
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(asked.get()) for _ in range(100)]
        given_up = asyncio.ensure_future(asked.get())
        await asyncio.sleep(0)
        given_up.cancel()
        assert len(questions) == 1
        questions.pop()(Totals({"a": 1}))
        found = await first
        assert len(questions) == 1
        questions.pop()(Totals({"a": 2}))
        return [found, *await asyncio.gather(*later)]

    found = asyncio.run(ask())
    # Who came later has a sum that was made later.
    assert [totals.counts["a"] for totals in found] == [1] + [2] * 100
    assert not questions


def test_totals_that_nobody_can_tell_are_an_error() -> None:
    async def ask() -> Totals:
        return await AskedTotals(lambda told: told(None), asyncio.get_running_loop()).get()

    with pytest.raises(TimeoutError, match="the supervisor is gone"):
        asyncio.run(ask())


class Process:
    """As much of a `Child` as is asked for what its workers have counted."""

    ready = True

    def __init__(self, number: int) -> None:
        self.asked: list[object] = []
        self.totals = Totals({f"of {number}": 1})
        self.channel = SimpleNamespace(ended=False, send=lambda message: self.asked.append(message) or True)


def collecting(*processes: Process) -> tuple[Collecting, list[Totals]]:
    return Collecting(cast(Children, processes)), []


def test_processes_are_asked_for_totals_once_for_all_who_want_them_at_a_time() -> None:
    process = Process(1)
    supervisor, told = collecting(process)
    for _ in range(1000):
        supervisor.want(told.append)
    assert (len(process.asked), told) == (1, [])
    supervisor.said(cast(Child, process))
    assert (len(process.asked), len(told)) == (2, 1)
    supervisor.said(cast(Child, process))
    assert (len(process.asked), len(told)) == (2, 1000)


def test_a_process_that_does_not_answer_is_not_asked_for_totals_again_until_it_has() -> None:
    stands_still, other = Process(1), Process(2)
    supervisor, told = collecting(stands_still, other)
    for _ in range(5):
        supervisor.want(told.append)
        supervisor.said(cast(Child, other))
        supervisor.look(inf)
    assert told == [Totals({"of 1": 1, "of 2": 1})] * 5
    assert (len(stands_still.asked), len(other.asked)) == (1, 5)
    supervisor.said(cast(Child, stands_still))
    supervisor.want(told.append)
    assert len(stands_still.asked) == 2
