"""The event loops a worker can run on."""

import asyncio
import selectors
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from pounce.errors import ConfigError
from pounce.worker.loop import HAS_OWN, loop_factory, run_on_new_loop

if HAS_OWN:
    from pounce.net.epoll_loop import BATCH, FairSelector


def test_asyncio_names_a_loop_of_the_standard_library() -> None:
    made = loop_factory("asyncio")()
    made.close()
    assert isinstance(made, asyncio.SelectorEventLoop)


def test_a_loop_of_ones_own_is_named_by_module_and_factory() -> None:
    assert loop_factory("asyncio:new_event_loop") is asyncio.new_event_loop


@pytest.mark.parametrize("name", ["nonsense", "no_such_module:make", "asyncio:no_such_name", "math:pi"])
def test_a_loop_that_cannot_be_had_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loop_factory(name)
    assert name.partition(":")[0] in str(raised.value)


@pytest.mark.skipif(not HAS_OWN, reason="this system has no epoll")
def test_no_more_than_a_batch_of_events_is_handled_before_new_ones_are_looked_for() -> None:
    with ExitStack() as stack:
        selector = stack.enter_context(FairSelector())
        for _ in range(BATCH + 5):
            reader, writer = (stack.enter_context(end) for end in socket.socketpair())
            selector.register(reader, selectors.EVENT_READ)
            writer.send(b"x")
        assert len(selector.select(0)) == BATCH


@pytest.mark.skipif(not HAS_OWN, reason="this system has no epoll")
def test_those_that_were_not_in_a_batch_come_first_in_the_next() -> None:
    with ExitStack() as stack:
        selector = stack.enter_context(FairSelector())
        for _ in range(BATCH + 5):
            reader, writer = (stack.enter_context(end) for end in socket.socketpair())
            selector.register(reader, selectors.EVENT_READ)
            writer.send(b"x")
        first = {key.fd for key, _ in selector.select(0)}
        second = [key.fd for key, _ in selector.select(0)]
        assert not first & set(second[:5])


def test_loop_that_cannot_be_made_leaves_no_coroutine_behind() -> None:
    begun: list[None] = []

    async def main() -> None: ...

    def begin() -> Coroutine[Any, Any, None]:
        begun.append(None)
        return main()

    def factory() -> asyncio.AbstractEventLoop:
        raise OSError(24, "too many open files")

    with pytest.raises(OSError, match="too many"):
        run_on_new_loop(begin, factory)
    assert not begun


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trio", "asyncio or uvloop; those that use anyio do so"),
        ("rloop", "for example rloop:new_event_loop"),
        ("winloop", "for example winloop:new_event_loop"),
        ("uvlop", "Did you mean uvloop?"),
        ("Asyncio", "Did you mean asyncio?"),
        ("none", "Write asyncio"),
    ],
)
def test_loop_that_is_not_there_has_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="loop must be auto, asyncio, uvloop or module:factory") as caught:
        loop_factory(name)
    assert hint in (caught.value.hint or "")
