"""PINGs to a client that says nothing: where they are asked for, and what comes of no answer."""

import asyncio

import pytest
from h2_peer import Peer, hang, in_loop, request

from pounce_h2.connection import H2Connection
from pounce_h2.frames import ACK, Kind
from pounce_h2.pings import PING, PingedConnection

ASKED = {"keep_alive_interval": 10.0, "keep_alive_timeout": 5.0}


def pings(peer: Peer) -> list[bytes]:
    return [found.payload for found in peer.of(Kind.PING) if not found.flags & ACK]


@in_loop
async def test_silent_client_is_asked_once_and_broken_off() -> None:
    peer = Peer(hang, h2=ASKED)
    peer.headers(1)
    now = peer.service.loop.time()
    # It has just spoken.
    peer.service.tick(now)
    peer.service.tick(now + 9)
    assert pings(peer) == []
    peer.service.tick(now + 10)
    peer.service.tick(now + 14)
    assert pings(peer) == [PING[9:]]
    assert not peer.transport.aborted
    peer.service.tick(now + 15)
    assert peer.transport.aborted
    assert peer.service.counts["h2_keep_alive"] == 1


@pytest.mark.parametrize("how", ["pong", "data"])
@in_loop
async def test_client_that_sends_anything_is_there(how: str) -> None:
    peer = Peer(hang, h2=ASKED)
    peer.headers(1, request(b"POST"), flags=4)
    now = peer.service.loop.time()
    peer.service.tick(now)
    for round in range(1, 4):
        at = now + 20 * round
        peer.service.tick(at)
        assert len(pings(peer)) == round
        if how == "pong":
            peer.send(Kind.PING, ACK, 0, pings(peer)[-1])
        else:
            peer.data(1, b"x")
        peer.service.tick(at + 5)
        assert not peer.transport.aborted
        peer.service.tick(at + 14)
        assert len(pings(peer)) == round


@in_loop
async def test_connection_that_has_ended_is_not_asked() -> None:
    peer = Peer(hang, h2=ASKED)
    peer.headers(1)
    peer.transport.close()
    await asyncio.sleep(0)
    peer.service.tick(peer.service.loop.time() + 100)
    assert peer.service.shared["h2.pinged"] == set()


@in_loop
async def test_nobody_is_asked_unless_somebody_wants_it() -> None:
    peer = Peer(hang)
    assert type(peer.protocol) is H2Connection
    assert "h2.pinged" not in peer.service.shared
    assert isinstance(Peer(hang, h2=ASKED).protocol, PingedConnection)
