"""Peers: the count of connections by address."""

import pytest

from pounce import ConfigError
from pounce.admission.peers import Peers, key_of
from pounce.config import ServerConfig
from pounce.contract.turns import Share, Turns


def peers(limit: int = 2, *exempt: str) -> Peers:
    return Peers(ServerConfig(max_connections_per_peer=limit, max_connections_per_peer_exempt=exempt))


def test_address_has_no_more_than_the_limit_until_one_is_closed() -> None:
    counted = peers()
    share = Share(Turns())
    key = counted.enter("192.0.2.1")
    assert key
    counted.keep(key, share)
    assert counted.enter("192.0.2.1") is not None
    assert counted.enter("192.0.2.1") is None
    assert counted.enter("192.0.2.2") is not None
    counted.closed(share)
    # Whoever is told twice counts it once.
    counted.closed(share)
    assert counted.enter("192.0.2.1") is not None
    assert counted.enter("192.0.2.1") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("no address", "no address", True),
    ],
)
def test_networks_of_one_customer_count_as_one(one: str, other: str, same: bool) -> None:
    assert (key_of(one) == key_of(other)) is same


@pytest.mark.parametrize("address", [None, "10.1.2.3", "127.0.0.1"], ids=["a Unix socket", "a network", "localhost"])
def test_exempt_peers_have_as_many_as_they_like(address: str | None) -> None:
    counted = peers(1, "10.0.0.0/8", "localhost")
    assert [counted.enter(address) for _ in range(3)] == [""] * 3
    counted.leave("")


def test_exempt_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match="max_connections_per_peer_exempt"):
        peers(1, "*")
