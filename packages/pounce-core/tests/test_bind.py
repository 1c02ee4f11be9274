"""Listening sockets."""

import errno
import os
import pickle
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pounce import BindError, ConfigError, PounceError, ServerConfig
from pounce.net.bind import Bind, Listener, binds_of, open_listeners, parse_bind
from pounce.net.holder import holder_of
from pounce.net.unix_socket import _alone_at


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
        client.settimeout(60)
        try:
            client.connect(address)
        except OSError:
            return False
        listener.sock.settimeout(60)
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
        ("http://h:1", Bind("h", 1, tls=False)),
        ("https://h:1", Bind("h", 1, tls=True)),
        ("h:1?tls=off", Bind("h", 1, tls=False)),
        ("h:1?wire=gopher&tls=on", Bind("h", 1, wires=("gopher",), tls=True)),
        ("https://h:1?wire=h1&wire=h2&wire=h1", Bind("h", 1, wires=("h1", "h2"), tls=True)),
        ("fd://3", Bind(fd=3)),
        ("fd://3?wire=gopher", Bind(fd=3, wires=("gopher",))),
        ("systemd:web", Bind(systemd="web")),
        ("systemd:", Bind(systemd="")),
        ("unix:/run/app.sock?mode=660", Bind(path="/run/app.sock", mode=0o660)),
        ("unix:/s?mode=0600&user=www&group=33", Bind(path="/s", mode=0o600, user="www", group="33")),
        ("gopher://h:70", Bind("h", 70, wires=("gopher",))),
        ("gopher://[::1]:70", Bind("::1", 70, wires=("gopher",))),
    ],
)
def test_bind_is_read(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        "host",
        "host:",
        "host:port",
        "host:65536",
        "host:-1",
        "::1:80",
        "[::1]",
        "unix:",
        "a:1:2",
        "h/x:1",
        "fd://",
        "fd://x",
        "fd://-1",
        "unix:?mode=660",
    ],
)
def test_bind_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bind must be"):
        parse_bind(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h:1?", "'' is not an option"),
        ("h:1?mode=660", "'mode' is not an option"),
        ("fd://3?user=www", "user is a setting of the whole server"),
        ("unix:/s?colour=red", "'colour' is not an option"),
        ("unix:/s?mode=999", "mode has a wrong value"),
        ("unix:/s?mode=", "mode has a wrong value"),
        ("unix:/s?mode=07777", "mode has a wrong value"),
        ("h:1?tls=perhaps", "tls has a wrong value"),
        ("h:1?tls=on&tls=on", "tls is given twice"),
        ("http://h:1?tls=on", "tls is given twice"),
        ("gopher://h:1?wire=gopher", "wire is given twice"),
        ("gopher://h:1?wire=h1", "wire is given twice"),
        ("h:1?wire=", "wire has a wrong value"),
        ("h:1?wire=H1", "wire has a wrong value"),
        ("h:1?wire=h1|h2", "wire has a wrong value"),
    ],
)
def test_option_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_bind(text)


def test_bind_that_asks_for_tls_without_a_certificate_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no certificate"):
        open_listeners(ServerConfig(bind=("https://127.0.0.1:0",)))


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


@pytest.mark.parametrize(
    ("ipv6", "host", "said", "hint"),
    [
        ("off", "::1", "ipv6 is off, and ::1 is an address of IPv6", "such as 0.0.0.0, or set ipv6 to dual or only"),
        ("off", "::", "ipv6 is off, and :: is an address of IPv6", "such as 0.0.0.0, or set ipv6 to dual or only"),
        ("only", "127.0.0.1", "ipv6 is only, and 127.0.0.1 is", "such as :: or ::1, or set ipv6 to dual or off"),
    ],
)
def test_address_of_a_family_that_is_not_to_be_used_is_refused_by_the_setting(
    ipv6: Any, host: str, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        binds_of(ServerConfig(host=host, port=0, ipv6=ipv6))
    assert hint in (caught.value.hint or "")


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


def test_name_that_has_no_address_of_the_family_is_told_why() -> None:
    with pytest.raises(BindError, match=r"as a name of IPv6 \(ipv6 is only\)"):
        open_listeners(ServerConfig(host="no-such-host.invalid", port=0, ipv6="only"))


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


def test_mode_is_not_given_to_what_a_link_in_the_place_of_the_socket_leads_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, precious = folder / "s", folder / "precious"
    precious.touch(0o600)
    umask = os.umask

    def swap(mask: int) -> int:
        if path.exists():
            path.unlink()
            path.symlink_to(precious)
        return umask(mask)

    monkeypatch.setattr(os, "umask", swap)
    with pytest.raises(BindError, match="symbolic links"):
        open_listeners(ServerConfig(uds=str(path), uds_permissions=0o777))
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "hint"), [("missing/s", "There is no folder"), ("x" * 200, "at most 10[37] bytes, and this one 2")]
)
def test_unix_socket_that_cannot_be_opened_says_what_helps(folder: Path, name: str, hint: str) -> None:
    for settings in ({"uds": f"{folder}/{name}"}, {"bind": (f"unix:{folder}/{name}",)}):
        with pytest.raises(BindError) as caught:
            open_listeners(ServerConfig.of(settings))
        assert re.search(hint, caught.value.hint or "")


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


def test_mode_of_a_bind_goes_before_the_setting(folder: Path) -> None:
    with listening(bind=(f"unix:{folder}/a?mode=600", f"unix:{folder}/b"), uds_permissions=0o666):
        assert [stat.S_IMODE((folder / name).stat().st_mode) for name in "ab"] == [0o600, 0o666]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_unix_socket_is_given_to_user_and_group(folder: Path) -> None:
    with listening(bind=(f"unix:{folder}/a?user=nobody&group=65534&mode=600",)):
        status = (folder / "a").stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65534, 0o600)


@pytest.mark.parametrize("kind", ["user", "group"])
def test_owner_that_does_not_exist_is_an_error(folder: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"no {kind} 'nobody-has-this-name'"):
        open_listeners(ServerConfig(bind=(f"unix:{folder}/s?{kind}=nobody-has-this-name",)))
    assert list(folder.iterdir()) == []


def test_owner_that_may_not_be_given_is_an_error_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(BindError) as caught:
        open_listeners(ServerConfig(bind=(f"unix:{folder}/s?user=0",)))
    assert caught.value.code == "POUNCE_BIND_DENIED"
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_socket_that_another_server_is_about_to_open_is_not_stolen(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    with _alone_at(path), pytest.raises(BindError, match="in use"):
        open_listeners(ServerConfig(uds=path))
    with listening(uds=path) as (listener,):
        assert unix_accepts(listener)


def test_many_that_start_at_once_leave_one_that_answers(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    barrier = threading.Barrier(8)

    def start(_: int) -> Listener | None:
        barrier.wait()
        try:
            return open_listeners(ServerConfig(uds=path))[0]
        except BindError:
            return None

    with ThreadPoolExecutor(8) as threads:
        (winner,) = [listener for listener in threads.map(start, range(8)) if listener is not None]
    assert unix_accepts(winner)
    winner.close()


def test_forked_process_does_not_remove_the_socket(folder: Path) -> None:
    with listening(uds=str(folder / "s")) as (listener,):
        replace(listener, sock=listener.sock.dup(), owner=os.getpid() + 1).close()
        assert unix_accepts(listener)


# Sockets that are there already


def handed_over(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, address: Any = ("127.0.0.1", 0)) -> int:
    """A bound socket that nobody in this process owns."""
    sock = socket.socket(family, kind)
    sock.bind(address)
    return sock.detach()


def test_bound_descriptor_is_listened_on_and_not_passed_on() -> None:
    with listening(bind=(f"fd://{handed_over()}",)) as (listener,):
        assert accepts(listener, socket.AF_INET, ("127.0.0.1", port_of(listener)))
        assert listener.url("http") == f"http://127.0.0.1:{port_of(listener)}"
        assert not listener.sock.get_inheritable()


def test_descriptor_of_a_unix_socket_is_listened_on_and_its_file_left(folder: Path) -> None:
    fd = handed_over(socket.AF_UNIX, address=str(folder / "s"))
    with listening(bind=(f"fd://{fd}",)) as (listener,):
        assert listener.is_unix
        assert listener.url("http") == f"unix:{folder}/s"
        assert accepts(listener, socket.AF_UNIX, str(folder / "s"))
    assert (folder / "s").exists()


def test_descriptor_that_is_no_stream_socket_is_an_error_and_left_open(folder: Path) -> None:
    fds = [handed_over(kind=socket.SOCK_DGRAM), os.open(folder, os.O_RDONLY)]
    for fd in fds:
        with pytest.raises(BindError, match=f"descriptor {fd}") as caught:
            open_listeners(ServerConfig(bind=(f"fd://{fd}",)))
        assert caught.value.code == "POUNCE_BIND_NOT_A_SOCKET"
        os.close(fd)


def test_descriptor_that_is_closed_is_an_error() -> None:
    with pytest.raises(BindError, match="descriptor 999999"):
        open_listeners(ServerConfig(bind=("fd://999999",)))


@pytest.mark.parametrize("bind", ["fd://9", "systemd:http"])
def test_inherited_socket_is_in_one_bind_only(bind: str) -> None:
    with pytest.raises(ConfigError, match="inherited socket twice"):
        open_listeners(ServerConfig(bind=(bind, bind)))


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_listener_is_rebuilt_in_another_process(folder: Path, unix: bool) -> None:
    child = """
import pickle, sys
from pounce.net.bind import Listener
bind, fd = pickle.loads(bytes.fromhex(sys.argv[1]))
listener = Listener.from_fd(bind, fd)
listener.sock.setblocking(True)
print(listener.url("http"), flush=True)
connection, _ = listener.sock.accept()
connection.sendall(b"from the child")
connection.close()
listener.close()
"""
    where = f"unix:{folder}/s" if unix else "127.0.0.1:0"
    with listening(bind=(where,)) as (listener,):
        fd = listener.sock.fileno()
        given = pickle.dumps((listener.bind, fd)).hex()
        process = subprocess.Popen(
            [sys.executable, "-c", child, given], pass_fds=[fd], stdout=subprocess.PIPE, text=True
        )
        with process, socket.socket(listener.sock.family) as client:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == listener.url("http")
            client.settimeout(60)
            client.connect(listener.sock.getsockname())
            assert client.recv(100) == b"from the child"
        assert not unix or (folder / "s").exists()


def test_twin_shares_the_port() -> None:
    with listening(port=0, reuseport=True) as (listener,):
        twin = listener.twin(10)
        assert port_of(twin) == port_of(listener)
        twin.close()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_socket_that_is_not_shared_has_no_twin(folder: Path, unix: bool) -> None:
    where = f"unix:{folder}/s" if unix else "127.0.0.1:0"
    with listening(bind=(where,)) as (listener,), pytest.raises(BindError):
        listener.twin(10)


# systemd


@pytest.fixture
def socket_unit() -> Iterator[dict[str, Any]]:
    """A process that has what systemd gives; descriptors begin with 3 there, so the server is one of its own."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    yield {"sockets": sockets, "ports": [sock.getsockname()[1] for sock in sockets]}
    for sock in sockets:
        sock.close()


def activated(unit: dict[str, Any], bind: str, **environment: str) -> str:
    """What a process says that is started with the sockets as descriptors 3, 4 and 5, and listens on `bind`."""
    server = f"""
import os
from pounce import PounceError, ServerConfig
from pounce.net.bind import open_listeners
try:
    print(*[listener.sock.getsockname()[1] for listener in open_listeners(ServerConfig(bind=({bind!r},)))])
except PounceError as exc:
    print(exc.code, exc.hint)
"""
    starter = f"""
import os, sys
for number, fd in enumerate(map(int, sys.argv[1:]), 103):
    os.dup2(fd, number)
for number in (3, 4, 5):
    os.dup2(number + 100, number, inheritable=True)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", {server!r}])
"""
    fds = [sock.fileno() for sock in unit["sockets"]]
    done = subprocess.run(
        [sys.executable, "-c", starter, *map(str, fds)],
        pass_fds=fds,
        env=os.environ | {"LISTEN_FDS": "3"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_systemd_sockets_are_found_by_name(socket_unit: dict[str, Any]) -> None:
    a, b, c = socket_unit["ports"]
    assert activated(socket_unit, "systemd:web", LISTEN_FDNAMES="web:admin:web") == f"{a} {c}"
    assert activated(socket_unit, "systemd:admin", LISTEN_FDNAMES="web:admin:web") == str(b)


def test_systemd_without_a_name_is_every_socket(socket_unit: dict[str, Any]) -> None:
    assert activated(socket_unit, "systemd:") == " ".join(map(str, socket_unit["ports"]))


@pytest.mark.parametrize(
    "environment", [{"LISTEN_FDS": "0"}, {"LISTEN_FDS": "x"}, {"LISTEN_PID": "1"}], ids=["none", "garbage", "other"]
)
def test_sockets_that_are_not_for_this_process_are_not_taken(
    socket_unit: dict[str, Any], environment: dict[str, str]
) -> None:
    assert activated(socket_unit, "systemd:", **environment).startswith("POUNCE_BIND_NO_SYSTEMD_SOCKET")


def test_systemd_socket_with_another_name_is_an_error_that_says_which_there_are(socket_unit: dict[str, Any]) -> None:
    said = activated(socket_unit, "systemd:nope", LISTEN_FDNAMES="web:admin:web")
    assert said == "POUNCE_BIND_NO_SYSTEMD_SOCKET This process was given admin, web."


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system does not show sockets")
def test_port_in_use_names_the_process_that_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BindError) as caught:
            open_listeners(ServerConfig(port=taken.getsockname()[1]))
    assert f"It is process {os.getpid()} (" in (caught.value.hint or "")


def test_process_that_has_a_port_is_shown_without_its_arguments(tmp_path: Path) -> None:
    python = b"/usr/bin/python\0-m\0app\0--password\0x\0"
    for pid, command, link in (("1", b"a\0", "socket:[6]"), ("12", python, "socket:[7]")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "cmdline").write_bytes(command)
        (tmp_path / pid / "fd" / "3").symlink_to(link)
    (tmp_path / "net").mkdir()
    line = "0: 0100007F:1F90 00000000:0000 {} 00000000:00000000 00:00000000 00000000 0 0 {} 1\n"
    (tmp_path / "net" / "tcp").write_text("head\n" + line.format("01", 6) + line.format("0A", 7))
    assert holder_of(8080, tmp_path) == "process 12 (python -m app)"
    assert holder_of(8081, tmp_path) is None


ASKED = {"tcp_keep_alive": 61.0, "tcp_keep_alive_interval": 7.0, "tcp_keep_alive_probes": 3, "tcp_fast_open": 5}


@pytest.mark.skipif(sys.platform != "linux", reason="names of the options differ")
@pytest.mark.parametrize("how", ["own", "inherited", "twin"])
def test_connections_have_the_keep_alive_that_was_asked_for(how: str) -> None:
    with socket.socket() as inherited:
        settings: dict[str, Any] = {"port": 0, "reuseport": True}
        if how == "inherited":
            inherited.bind(("127.0.0.1", 0))
            settings = {"bind": (f"fd://{os.dup(inherited.fileno())}",)}
        with listening(**ASKED, **settings) as [listener]:
            if how == "twin":
                twin = listener.twin(10)
                listener.sock.close()
                listener = twin
            with socket.create_connection(listener.sock.getsockname(), 60):
                listener.sock.settimeout(60)
                with listener.sock.accept()[0] as sock:
                    options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
                    found = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options]
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert found == [61, 7, 3]
            assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 5
            listener.close()


def test_connections_are_not_asked_by_themselves() -> None:
    with listening(port=0) as [listener]:
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
