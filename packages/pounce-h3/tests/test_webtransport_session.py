"""`pounce.webtransport.Session`, on the scope as this server gives it, and as one without its extensions would."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pounce.webtransport import Closed, Session, SessionClosed, StreamReset
from pounce_h3.capsules import CLOSE_SESSION, DRAIN_SESSION, capsule
from pounce_h3.codes import code_of_application
from pounce_h3.frames import varint

from .wt_peer import Peer

pytestmark = pytest.mark.anyio

UNI, BIDI = 14, 4

type Handler = Callable[[Session], Awaitable[None]]


class Application:
    """Runs a coroutine function with the session of each request; without `extensions` as another server would."""

    def __init__(self, handle: Handler, *, plain: bool = False, accepts: bool = True, **options: Any) -> None:
        self._handle = handle
        self._plain = plain
        self._accepts = accepts
        self._options = options
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.session: Session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._plain:
            scope["extensions"] = {}
        self.session = Session(scope, receive, send, **self._options)
        try:
            if self._accepts:
                async with self.session:
                    await self._handle(self.session)
            else:
                await self._handle(self.session)
        except BaseException as exc:
            self.ended.set_result(exc)
            raise
        self.ended.set_result(None)

    async def wait(self) -> None:
        failure = await asyncio.wait_for(self.ended, 60)
        if failure is not None:
            raise failure


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def echo(session: Session) -> None:
    async for stream in session.streams():
        await stream.send(await stream.read_all(), end=True)


@pytest.mark.parametrize("plain", [False, True], ids=["windows", "plain"])
async def test_stream_is_read_to_its_end_whatever_its_size(plain: bool) -> None:
    app = Application(echo, plain=plain, stream_window=1000)
    peer = Peer(app)
    peer.open()
    peer.stream(BIDI, 0)
    for _ in range(10):
        peer.more(BIDI, b"0123456789" * 100)
        await turns()
    peer.more(BIDI, b"", end=True)
    await turns()
    assert peer.sent(BIDI) == b"0123456789" * 1000
    peer.close(0, 0)
    await app.wait()


@pytest.mark.parametrize("plain", [False, True], ids=["windows", "plain"])
async def test_no_more_is_taken_of_a_stream_that_nobody_reads(plain: bool) -> None:
    async def ignore(session: Session) -> None:
        await session.wait_closed()

    app = Application(ignore, plain=plain, stream_window=1000)
    peer = Peer(app)
    peer.open()
    peer.stream(UNI, 0)
    for _ in range(20):
        peer.more(UNI, bytes(1000))
        await turns()
    assert 17_000 <= peer.held - 1024 <= 19_000


async def test_others_go_on_beside_a_stream_that_nobody_reads() -> None:
    async def second(session: Session) -> None:
        streams = session.streams()
        await anext(streams)
        stream = await anext(streams)
        await stream.send(await stream.read_all(), end=True)
        await session.wait_closed()

    app = Application(second, stream_window=1000)
    peer = Peer(app)
    peer.open()
    peer.stream(UNI, 0, bytes(10_000))
    peer.stream(BIDI, 0, b"urgent", end=True)
    await turns()
    assert peer.sent(BIDI) == b"urgent"


async def test_streams_of_the_server_are_opened_in_their_order() -> None:
    async def push(session: Session) -> None:
        for number in range(3):
            stream = await session.open_stream(bidirectional=False)
            await stream.send(b"%d" % number, end=True)
        both = await session.open_stream(urgency=0)
        await both.send(b"?")
        assert await both.read() == b"!"
        await session.close(4, "enough")

    app = Application(push)
    peer = Peer(app)
    peer.open()
    await turns()
    assert [peer.sent(15 + 4 * number)[-1:] for number in range(3)] == [b"0", b"1", b"2"]
    peer.more(1, b"!")
    await app.wait()
    assert peer.capsules(0) == [(CLOSE_SESSION, (4).to_bytes(4) + b"enough")]
    assert app.session.closed == Closed(4, "enough")


async def test_reading_a_stream_that_was_given_up_raises_with_the_code() -> None:
    async def read(session: Session) -> None:
        stream = await anext(session.streams())
        assert await stream.read(2) == b"ab"
        with pytest.raises(StreamReset) as caught:
            await stream.read_all()
        assert caught.value.code == 12

    app = Application(read)
    peer = Peer(app)
    peer.open()
    peer.stream(UNI, 0, b"ab")
    await turns()
    peer.reset(UNI, code_of_application(12))
    await app.wait()


async def test_writing_what_the_client_has_stopped_raises() -> None:
    async def write(session: Session) -> None:
        stream = await session.open_stream(bidirectional=False)
        with pytest.raises(OSError):
            while True:
                await stream.send(b"x")
                await asyncio.sleep(0)

    app = Application(write)
    peer = Peer(app)
    peer.open()
    await turns()
    peer.stop(15, code_of_application(1))
    await app.wait()


async def test_giving_up_and_stopping() -> None:
    async def give_up(session: Session) -> None:
        stream = await anext(session.streams())
        await stream.stop(5)
        await stream.reset(6)
        assert await stream.read() == b""

    app = Application(give_up)
    peer = Peer(app)
    peer.open()
    peer.stream(BIDI, 0, b"x")
    await app.wait()
    assert peer.quic.stopped[BIDI] == code_of_application(5)
    assert peer.quic.resets[BIDI] == code_of_application(6)


async def test_datagrams_beyond_the_bound_are_dropped() -> None:
    async def late(session: Session) -> None:
        await session.wait_draining()
        await session.send_datagram(b"".join([await anext(session.datagrams()) for _ in range(2)]))
        await session.wait_closed()

    app = Application(late, datagrams_max=2)
    peer = Peer(app)
    peer.open()
    for number in range(5):
        peer.datagram(0, b"%d" % number)
        await turns()
    peer.say(0, capsule(DRAIN_SESSION))
    await turns()
    assert peer.quic.datagrams == [varint(0) + b"01"]
    assert app.session.dropped == 3


async def test_everybody_who_waits_hears_of_the_end() -> None:
    async def wait_for_all(session: Session) -> None:
        async def streams() -> int:
            return len([stream async for stream in session.streams()])

        async def datagrams() -> int:
            return len([data async for data in session.datagrams()])

        stream = await session.open_stream()
        async with asyncio.TaskGroup() as tasks:
            found = [
                tasks.create_task(streams()),
                tasks.create_task(datagrams()),
                tasks.create_task(session.wait_draining()),
            ]
            with pytest.raises(SessionClosed):
                await stream.read()
        assert [task.result() for task in found] == [0, 0, None]
        with pytest.raises(SessionClosed):
            await session.open_stream()

    app = Application(wait_for_all)
    peer = Peer(app)
    peer.open()
    await turns()
    peer.close(0, 3, b"why")
    await app.wait()
    assert app.session.closed == Closed(3, "why")


async def test_application_that_fails_does_not_close_in_good_order() -> None:
    async def fail(session: Session) -> None:
        raise ZeroDivisionError

    app = Application(fail)
    peer = Peer(app)
    peer.open()
    with pytest.raises(ZeroDivisionError):
        await app.wait()
    await turns()
    assert peer.capsules(0) == []
    assert 0 in peer.quic.resets


async def test_session_may_be_refused() -> None:
    app = Application(Session.refuse, accepts=False)
    peer = Peer(app)
    peer.open()
    await app.wait()
    assert app.session.closed == Closed(None, "")
    assert peer.answer(0)[0]


async def test_subprotocol_is_chosen() -> None:
    async def choose(session: Session) -> None:
        await session.accept(session.subprotocols[-1])
        await session.close()

    app = Application(choose, accepts=False)
    peer = Peer(app)
    peer.open((b"wt-available-protocols", b'"a", "b"'))
    await app.wait()
    assert b'"b"' in peer.sent(0)


def test_other_scopes_are_none_of_its_business() -> None:
    with pytest.raises(ValueError, match="http"):
        Session({"type": "http"}, None, None)  # type: ignore[arg-type]
