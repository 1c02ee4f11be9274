"""What workers count, as a plugin adds it up."""

import json
from typing import Any
from urllib.request import urlopen

import pytest

from pounce.contract.totals import Totals
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin, RequestHead, Responder, Service
from pounce.registry import Registry
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
