"""Listening sockets."""

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pounce import BindError, ConfigError, PounceError, ServerConfig
from pounce.net.bind import Bind, Listener, open_listeners, parse_bind


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
    path = tempfile.mkdtemp(prefix="pounce-")
    yield Path(path)
    shutil.rmtree(path)


@contextmanager
def listening(**settings: Any) -> Iterator[list[Listener]]:
    listeners = open_listeners(ServerConfig.of(settings))
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def accepts(listener: Listener, family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(address)
        except OSError:
            return False
        listener.sock.settimeout(5)
        accepted, _ = listener.sock.accept()
        accepted.close()
        return True


def port_of(listener: Listener) -> int:
    return int(listener.sock.getsockname()[1])


# Addresses as text


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", Bind("127.0.0.1", 8000)),
        ("localhost:0", Bind("localhost", 0)),
        (":8000", Bind("0.0.0.0", 8000)),
        ("[::]:8000", Bind("::", 8000)),
        ("[::1]:65535", Bind("::1", 65535)),
        ("unix:/run/app.sock", Bind(path="/run/app.sock")),
        ("unix:relative", Bind(path="relative")),
        ("http://h:1", Bind("h", 1)),
        ("https://h:1", Bind("h", 1)),
        ("gopher://h:70", Bind("h", 70, wire="gopher")),
        ("gopher://[::1]:70", Bind("::1", 70, wire="gopher")),
    ],
)
def test_bind_is_read(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    ["", "8000", "host", "host:", "host:port", "host:65536", "host:-1", "::1:80", "[::1]", "unix:", "a:1:2", "h/x:1"],
)
def test_bind_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bind must be"):
        parse_bind(text)


# TCP


def test_port_0_is_a_free_port_and_the_url_tells_it() -> None:
    with listening(port=0) as (listener,):
        assert port_of(listener) > 0
        assert listener.url("http") == f"http://127.0.0.1:{port_of(listener)}"
        assert accepts(listener, socket.AF_INET, ("127.0.0.1", port_of(listener)))


def test_name_with_several_addresses_is_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with listening(host="twofold", port=0) as listeners:
        assert len(listeners) == 2
        assert len({port_of(listener) for listener in listeners}) == 1


def test_address_that_a_name_has_twice_is_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with listening(host="double", port=0) as listeners:
        assert len(listeners) == 1


@pytest.mark.parametrize("failure", ["no-family", "no-address"])
def test_localhost_is_served_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
            if family == socket.AF_INET6 and failure == "no-family":
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args, **kwargs)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            super().bind(address)

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Socket)
    with listening(host="localhost", port=0) as (listener,):
        assert listener.sock.getsockname()[0] == "127.0.0.1"


def test_several_binds_are_all_open() -> None:
    with listening(bind=("127.0.0.1:0", "127.0.0.1:0")) as listeners:
        assert len({port_of(listener) for listener in listeners}) == 2


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@ipv6
def test_wildcard_takes_ipv4_as_well() -> None:
    with listening(host="::", port=0) as (listener,):
        assert accepts(listener, socket.AF_INET6, ("::1", port_of(listener)))
        assert accepts(listener, socket.AF_INET, ("127.0.0.1", port_of(listener)))


@ipv6
def test_wildcard_with_ipv6_only_takes_no_ipv4() -> None:
    with listening(host="::", port=0, ipv6="only") as (listener,):
        assert accepts(listener, socket.AF_INET6, ("::1", port_of(listener)))
        assert not accepts(listener, socket.AF_INET, ("127.0.0.1", port_of(listener)))


def test_ipv6_off_uses_none() -> None:
    with listening(host="localhost", port=0, ipv6="off") as listeners:
        assert {listener.sock.family for listener in listeners} == {socket.AF_INET}


def test_ipv6_address_with_ipv6_off_is_an_error() -> None:
    with pytest.raises(BindError):
        open_listeners(ServerConfig(host="::1", port=0, ipv6="off"))


@ipv6
def test_url_of_ipv6_has_brackets() -> None:
    with listening(host="::1", port=0) as (listener,):
        assert listener.url("https") == f"https://[::1]:{port_of(listener)}"


@ipv6
def test_both_wildcards_can_be_bound_to_one_port() -> None:
    with listening(port=0) as (free,):
        port = port_of(free)
    with listening(bind=(f"0.0.0.0:{port}", f"[::]:{port}")) as listeners:
        assert [port_of(listener) for listener in listeners] == [port, port]


def test_port_that_is_taken_is_an_error_that_names_it() -> None:
    with listening(port=0) as (listener,):
        port = port_of(listener)
        with pytest.raises(BindError, match=f"127.0.0.1:{port}") as caught:
            open_listeners(ServerConfig(port=port))
    assert caught.value.code == "POUNCE_BIND_IN_USE"
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_bind_that_fails_closes_those_before_it() -> None:
    with listening(port=0) as (taken,), listening(port=0) as (free,):
        port = port_of(free)
        free.close()
        with pytest.raises(BindError):
            open_listeners(ServerConfig(bind=(f"127.0.0.1:{port}", f"127.0.0.1:{port_of(taken)}")))
        with listening(port=port):
            pass


def test_port_that_needs_a_privilege_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(BindError, match="Permission denied") as caught:
        open_listeners(ServerConfig(port=80))
    assert caught.value.code == "POUNCE_BIND_DENIED"
    assert "1024" in (caught.value.hint or "")


def test_address_of_another_machine_is_an_error_with_a_hint() -> None:
    with pytest.raises(BindError) as caught:
        open_listeners(ServerConfig(host="192.0.2.1", port=0))
    assert caught.value.code == "POUNCE_BIND_NOT_LOCAL"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".example"])
def test_name_that_cannot_be_resolved_is_an_error(host: str) -> None:
    with pytest.raises(BindError, match="cannot resolve") as caught:
        open_listeners(ServerConfig(host=host, port=0))
    assert caught.value.code == "POUNCE_BIND_UNKNOWN_HOST"


# Unix sockets


def unix_accepts(listener: Listener) -> bool:
    return accepts(listener, socket.AF_UNIX, listener.bind.path)


def test_unix_socket_has_its_mode_and_url(folder: Path) -> None:
    path = folder / "s"
    with listening(uds=str(path), uds_permissions=0o600) as (listener,):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert listener.url("http") == f"unix:{path}"
        assert unix_accepts(listener)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_mode_does_not_depend_on_the_umask(folder: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with listening(uds=str(folder / "s"), uds_permissions=mode):
            assert stat.S_IMODE((folder / "s").stat().st_mode) == mode
    finally:
        assert os.umask(before) == 0o077


def test_unix_socket_is_removed_when_closed(folder: Path) -> None:
    with listening(uds=str(folder / "s")):
        pass
    assert list(folder.iterdir()) == []


def test_file_that_has_taken_the_place_of_the_socket_is_left(folder: Path) -> None:
    path = folder / "s"
    with listening(uds=str(path)):
        path.rename(folder / "moved")
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_live_unix_socket_is_not_stolen(folder: Path) -> None:
    path = str(folder / "s")
    with listening(uds=path) as (listener,):
        with pytest.raises(BindError, match="in use") as caught:
            open_listeners(ServerConfig(uds=path))
        assert unix_accepts(listener)
    assert caught.value.code == "POUNCE_BIND_IN_USE"


def test_live_unix_socket_with_a_full_queue_is_not_stolen(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as owner, socket.socket(socket.AF_UNIX) as first:
        owner.bind(path)
        owner.listen(0)
        first.connect(path)
        with pytest.raises(BindError, match="in use"):
            open_listeners(ServerConfig(uds=path))
        assert os.path.exists(path)


def test_stale_unix_socket_is_replaced(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    with listening(uds=path) as (listener,):
        assert unix_accepts(listener)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_removed(folder: Path, kind: str) -> None:
    path = folder / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        (folder / "precious").write_text("precious")
        path.symlink_to(folder / "precious")
    with pytest.raises(BindError, match="not a socket"):
        open_listeners(ServerConfig(uds=str(path)))
    assert path.exists()


@pytest.mark.parametrize("path", ["missing-folder/s", "x" * 200, "nul\0byte"])
def test_path_that_cannot_be_bound_is_an_error_that_says_why(folder: Path, path: str) -> None:
    with pytest.raises(PounceError) as caught:
        open_listeners(ServerConfig(uds=str(folder / path)))
    assert "None" not in str(caught.value)
