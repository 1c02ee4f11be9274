"""Who a request is from behind proxies: whom to believe, and how far."""

from typing import Any

import pytest

from pounce import BadRequest, ConfigError, ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.identity.forwarded import Forwarding
from pounce.identity.identity import Identity

PROXY = ("10.0.0.1", 5000)


class Seen:
    """What an application would be told."""

    def __init__(self, head: RequestHead) -> None:
        origin = head.origin
        self.peer = origin.peer if origin else None
        self.local = origin.local if origin else None
        self.root_path = origin.root_path if origin else None
        self.scheme = head.scheme
        self.names = [name for name, _ in head.headers]
        self.host = dict(head.headers).get(b"host")


def seen(*fields: tuple[str, str], peer: Any = PROXY, local: Any = ("10.0.0.9", 8000), **settings: Any) -> Seen:
    given = {"trusted_hosts": ("10.0.0.0/8",), **settings}
    headers = [(b"host", b"inside"), *((name.encode(), value.encode()) for name, value in fields)]
    forwarding = Forwarding(ServerConfig(**given))
    head = RequestHead(b"GET", b"/", headers, "1.1")
    connection = ConnectionInfo(peer=peer, local=local)
    forwarding.identify(head, connection)
    first = Seen(head)
    # What is remembered says the same.
    again = RequestHead(b"GET", b"/", list(headers), "1.1")
    forwarding.identify(again, connection)
    assert vars(Seen(again)) == vars(first)
    return first


def for_(*values: str, **settings: Any) -> Any:
    return seen(*(("x-forwarded-for", value) for value in values), **settings).peer


def test_client_is_who_a_trusted_proxy_says() -> None:
    told = seen(("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"))
    assert (told.peer, told.scheme, told.local) == (("192.0.2.7", 0), "https", ("10.0.0.9", 8000))


@pytest.mark.parametrize("hosts", [(), ("192.0.2.0/24",), ("unix",)])
@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-anything",
        "forwarded",
        "x-real-ip",
        "x_forwarded_for",
        "x-forwarded_proto",
        "x_real_ip",
        "x-request_id",
    ],
)
def test_what_others_say_is_taken_away(name: str, hosts: Any) -> None:
    told = seen((name, "192.0.2.7"), ("x-request-id", "forged"), trusted_hosts=hosts)
    assert (told.peer, told.scheme, told.names, told.host) == (None, "http", [b"host"], b"inside")


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
        (["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
        (["1.1.1.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (["192.0.2.7, 10.0.0.3, 10.0.0.2"], "192.0.2.7"),
        (["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
        (["garbage, 192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7,, "], "192.0.2.7"),
        (["unknown, 10.0.0.2"], "10.0.0.2"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_last_one_that_is_no_proxy_of_ours_is_the_client(chain: list[str], client: str) -> None:
    assert for_(*chain)[0] == client


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "1.2.3",
        "1.2.3.4:x",
        "1.2.3.4:99999",
        "[::1",
        "a\u00e9",
        "1.2.3.4 evil",
        "_hidden",
        "-",
        "fe80::1%eth0",
        '[fe80::1%x" 200]',
    ],
)
def test_chain_whose_end_is_no_address_says_nothing(text: str) -> None:
    assert for_(text) == PROXY


@pytest.mark.parametrize(
    ("text", "node"),
    [("192.0.2.7:443", ("192.0.2.7", 443)), ("[2001:db8::1]:443", ("2001:db8::1", 443)), ("[::1]", ("::1", 0))],
)
def test_port_may_stand_with_the_address(text: str, node: Any) -> None:
    assert for_(text) == node


@pytest.mark.parametrize(
    ("chain", "hops", "client"),
    [
        ("1.1.1.1, 192.0.2.7", 1, "192.0.2.7"),
        ("1.1.1.1, 192.0.2.7, 203.0.113.1", 2, "192.0.2.7"),
        ("192.0.2.7, 203.0.113.2, 203.0.113.1", 3, "192.0.2.7"),
        ("192.0.2.7, 203.0.113.1", 3, "203.0.113.1"),
        ("203.0.113.1", 2, "203.0.113.1"),
        ("192.0.2.7, 10.0.0.5, 203.0.113.1", 2, "192.0.2.7"),
    ],
)
def test_proxies_whose_addresses_nobody_knows_are_counted(chain: str, hops: int, client: str) -> None:
    assert for_(chain, forwarded_for_trusted_hops=hops)[0] == client


def test_where_everybody_is_trusted_the_last_address_is_the_client() -> None:
    assert for_("1.1.1.1, 192.0.2.7", trusted_hosts=("*",))[0] == "192.0.2.7"


@pytest.mark.parametrize(("hosts", "believed"), [(("unix",), True), (("*",), True), (("10.0.0.0/8",), False)])
def test_peer_of_a_unix_socket_is_trusted_by_that_name(hosts: Any, believed: bool) -> None:
    told = seen(("x-forwarded-for", "192.0.2.7"), peer=None, local=("/run/s", None), trusted_hosts=hosts)
    assert (told.peer == ("192.0.2.7", 0)) is believed


@pytest.mark.parametrize("peer", [("::ffff:10.0.0.1", 1), ("10.0.0.1", 1)])
def test_address_of_ipv4_is_known_in_both_forms(peer: Any) -> None:
    assert for_("192.0.2.7", peer=peer) == ("192.0.2.7", 0)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("wss", "https"),
        ("ws", "http"),
        ("ftp", "http"),
        ("http, https", "https"),
    ],
)
def test_scheme_is_that_of_the_proxy(value: str, scheme: str) -> None:
    assert seen(("x-forwarded-proto", value)).scheme == scheme


def test_scheme_is_that_of_the_proxy_which_named_the_client() -> None:
    told = seen(("x-forwarded-for", "192.0.2.7, 10.0.0.2"), ("x-forwarded-proto", "https, http"))
    assert told.scheme == "https"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("example.org", ("example.org", 80)),
        ("example.org:8443", ("example.org", 8443)),
        ("[2001:db8::1]:8443", ("2001:db8::1", 8443)),
    ],
)
def test_host_is_the_one_that_the_client_asked(host: str, local: Any) -> None:
    told = seen(("x-forwarded-host", host))
    assert (told.host, told.local) == (host.encode(), local)
    assert told.names.count(b"host") == 1


def test_port_of_the_host_follows_the_scheme_and_may_be_given() -> None:
    https = ("x-forwarded-proto", "https")
    assert seen(("x-forwarded-host", "a.example"), https).local == ("a.example", 443)
    assert seen(("x-forwarded-host", "a.example"), https, ("x-forwarded-port", "8443")).local == ("a.example", 8443)
    assert seen(("x-forwarded-port", "bad")).local == ("10.0.0.9", 8000)


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a:99999", "<x>"])
def test_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(BadRequest):
        seen(("x-forwarded-host", host))


@pytest.mark.parametrize(
    ("value", "root"), [("/app", "/app/own"), ("/app/", "/app/own"), ("app", "/own"), ("/a b", "/own"), ("//x", "/own")]
)
def test_prefix_is_put_in_front_where_that_is_wanted(value: str, root: str) -> None:
    assert seen(("x-forwarded-prefix", value), root_path="/own", forwarded_prefix=True).root_path == root
    assert seen(("x-forwarded-prefix", value), root_path="/own").root_path == "/own"


def test_real_ip_is_taken_where_that_is_wanted() -> None:
    field = ("x-real-ip", "192.0.2.7")
    assert seen(field, forwarded_real_ip=True).peer == ("192.0.2.7", 0)
    assert seen(field).peer == PROXY
    assert seen(field, ("x-forwarded-for", "192.0.2.8"), forwarded_real_ip=True).peer == ("192.0.2.8", 0)


def test_twin_with_an_underscore_is_taken_away() -> None:
    told = seen(("x_forwarded_for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.7"), ("some_thing", "x"))
    assert told.names == [b"host", b"x-forwarded-for"]


# Forwarded (RFC 7239)


def forwarded(*values: str, **settings: Any) -> Seen:
    return seen(*(("forwarded", value) for value in values), forwarded_family="forwarded", **settings)


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=192.0.2.7"], ("192.0.2.7", 0)),
        (['For="[2001:db8::1]:4711"'], ("2001:db8::1", 4711)),
        (["for=1.1.1.1, for=192.0.2.7"], ("192.0.2.7", 0)),
        (["for=1.1.1.1", "for=192.0.2.7;proto=https"], ("192.0.2.7", 0)),
        (["for=192.0.2.7, for=10.0.0.2"], ("192.0.2.7", 0)),
        (["for=unknown"], PROXY),
        (["for=_hidden, for=10.0.0.2"], ("10.0.0.2", 0)),
        (["proto=https"], PROXY),
        (['for="192.0.2.7";by=x;ext="a,b;c\\"d"'], ("192.0.2.7", 0)),
        ([""], PROXY),
    ],
)
def test_client_of_forwarded(values: list[str], client: Any) -> None:
    assert forwarded(*values).peer == client


def test_scheme_and_host_of_forwarded_are_those_of_the_same_element() -> None:
    told = forwarded("for=192.0.2.7;proto=https;host=a.example, for=10.0.0.2;proto=http;host=inner")
    assert (told.peer, told.scheme, told.host) == (("192.0.2.7", 0), "https", b"a.example")


@pytest.mark.parametrize("value", ['for="1.1.1.1', "for=1.1.1.1;for=2.2.2.2", "for==", "for=a b", '"x"', "for=[::1]"])
def test_forwarded_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        forwarded(value)


def test_families_are_never_mixed() -> None:
    both = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=192.0.2.7"), ("x-forwarded-proto", "https")]
    told = seen(*both, forwarded_family="forwarded")
    assert (told.peer, told.scheme, told.names) == (("192.0.2.7", 0), "http", [b"host", b"forwarded"])
    told = seen(*both)
    assert (told.peer, told.names) == (("1.1.1.1", 0), [b"host", b"x-forwarded-for", b"x-forwarded-proto"])


# Connections


@pytest.mark.parametrize(
    ("settings", "behind", "others"),
    [
        ({}, 75.0, 5.0),
        ({"keep_alive_timeout": 9.0}, 9.0, 9.0),
        ({"trusted_keep_alive_timeout": 30.0}, 30.0, 5.0),
        ({"proxy_headers": False}, 5.0, 5.0),
        ({"trusted_hosts": ()}, 5.0, 5.0),
    ],
    ids=str,
)
def test_connections_of_trusted_proxies_may_be_idle_for_longer(settings: Any, behind: float, others: float) -> None:
    identity = Identity(ServerConfig(**{"trusted_hosts": ("10.0.0.0/8", "unix"), **settings}))
    for peer in (PROXY, None):
        assert identity.keep_alive_timeout(ConnectionInfo(peer=peer)) == behind
    assert identity.keep_alive_timeout(ConnectionInfo(peer=("192.0.2.1", 1))) == others


# Settings


@pytest.mark.parametrize("item", ["10.0.0.1/8", "proxy.example", "10.0.0", ""])
def test_network_that_is_none_is_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="trusted_hosts"):
        Forwarding(ServerConfig(trusted_hosts=(item,)))


def test_nothing_changes_for_a_request_without_such_fields() -> None:
    forwarding = Forwarding(ServerConfig(trusted_hosts=("10.0.0.0/8",)))
    head = RequestHead(b"GET", b"/", [(b"host", b"x"), (b"accept", b"*/*")], "1.1")
    before = head.headers
    forwarding.identify(head, ConnectionInfo(peer=PROXY))
    assert (head.headers, head.origin, head.scheme) == (before, None, "http")


def test_what_is_remembered_is_of_one_connection_and_bounded() -> None:
    forwarding = Forwarding(ServerConfig(trusted_hosts=("10.0.0.0/8",)))
    for number in range(2000):
        fields = [(b"x-forwarded-for", b"192.0.2.%d" % (number % 250)), (b"x-forwarded-port", b"%d" % number)]
        head = RequestHead(b"GET", b"/", [*fields, (b"x-%d" % number, b"")], "1.1")
        forwarding.identify(head, ConnectionInfo(number % 2, peer=PROXY, local=("10.0.0.9", 8000)))
        assert head.origin is not None
        assert (head.origin.peer, head.origin.local) == ((f"192.0.2.{number % 250}", 0), ("10.0.0.9", number))
    assert len(forwarding._known) <= 256
