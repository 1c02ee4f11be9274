"""The parts of the supervisor that need no process: CPUs, the restart budget, what travels between
processes, the PID file."""

import os
import pickle
import socket
import stat
from pathlib import Path

import pytest

from pounce import AppImportError, ConfigError, ServerConfig
from pounce.cpus import usable_cpus
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import Failed, Stop
from pounce.supervisor.pid_file import PidFile
from pounce.supervisor.restart_budget import RestartBudget

# The PID file


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "99999999999999999999", " 0\n\n", f"{os.getpid()}\n"],
    ids=["zero", "negative", "huge", "spaces", "own"],
)
def test_pid_file_that_names_no_process_is_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    with PidFile(str(path)):
        assert int(path.read_text()) == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"SECRET=1\n", b"", b"1 2", b"1_0", b"0x10", b"\xff1", b"1" * 65, b"7\nSECRET=1"])
def test_pid_file_replaces_nothing_but_a_file_that_holds_a_number(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ".env"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="does not hold a number"), PidFile(str(path)):
        pass
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_pid_file_does_not_take_the_place_of_a_link(tmp_path: Path) -> None:
    path, precious = tmp_path / "pid", tmp_path / "precious"
    path.symlink_to(precious)
    for _ in range(2):
        with pytest.raises(ConfigError, match="symbolic link"), PidFile(str(path)):
            pass
        assert path.is_symlink()
        # Where it leads to a number it still is none of ours.
        precious.write_text("0")
    assert precious.read_text() == "0"


def test_pid_file_does_not_take_the_place_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match="is no regular file"), PidFile(str(tmp_path / name)):
            pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_pid_file_can_be_read_by_all_and_written_by_its_owner_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    path, before = tmp_path / "pid", os.umask(mask)
    try:
        with PidFile(str(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_pid_file_is_written_through_no_link_that_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / f"pid.{os.getpid()}").symlink_to(precious)
    # Even under the very name that it takes.
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".pid-{bytes(8).hex()}").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot be written"), PidFile(str(tmp_path / "pid")):
        pass
    monkeypatch.undo()
    with PidFile(str(tmp_path / "pid")):
        assert precious.read_text() == "precious"


def test_pid_file_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written") as caught, PidFile(str(tmp_path / "missing" / "pid")):
        pass
    assert f"There is no folder {tmp_path / 'missing'}" in (caught.value.hint or "")


def test_pid_file_that_is_another_thing_by_the_end_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with PidFile(str(path)):
        path.write_text("something else")
    assert path.read_text() == "something else"


# CPUs


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 CPUs without control groups."""
    monkeypatch.setattr("os.process_cpu_count", lambda: 16)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_without_a_quota_all_cpus_of_the_affinity_mask_are_usable(machine: Path) -> None:
    assert usable_cpus(machine) == 16


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/../outer\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/a\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "nonsense\n"}, 16),
    ],
    ids=["v2", "rounded-up", "at-least-1", "max", "group-above", "container", "v1", "v1-none", "nonsense"],
)
def test_quota_of_the_control_group_bounds_the_cpus(machine: Path, files: dict[str, str], cpus: int) -> None:
    put(machine, files)
    assert usable_cpus(machine) == cpus


# Restarts


def test_pauses_double() -> None:
    budget = RestartBudget()
    assert [budget.next_pause(now) for now in range(5)] == [0.5, 1, 2, 4, 8]


def test_sixth_restart_within_a_minute_is_one_too_many() -> None:
    budget = RestartBudget()
    for now in range(5):
        budget.next_pause(now)
    assert budget.next_pause(59) is None


def test_restarts_are_forgotten_after_a_minute() -> None:
    budget = RestartBudget()
    for now in range(5):
        budget.next_pause(now)
    assert budget.next_pause(100) == 0.5


# What travels


def test_configuration_travels() -> None:
    config = ServerConfig(port=1234, bind=("unix:/a",), plugin_settings={"h2": {"max_streams": 7}}, access_log=False)
    assert pickle.loads(pickle.dumps(config)) == config


def test_messages_arrive_whole_and_in_order_however_they_are_split() -> None:
    ours, theirs = socket.socketpair()
    relay, end = socket.socketpair()
    sender, receiver = Channel(ours), Channel(end)
    error = AppImportError("no module", code="POUNCE_APP_PATH", hint="name it")
    assert sender.send(Failed(error, "x" * 10_000))
    assert sender.send(Stop(empty=True))
    sender.close()
    found = []
    while data := theirs.recv(777):
        relay.sendall(data)
        found += receiver.receive()
    relay.close()
    found += receiver.receive()
    failed, stop = found
    assert (failed.error.message, failed.error.code, failed.error.hint) == ("no module", "POUNCE_APP_PATH", "name it")
    assert (len(failed.traceback), stop, receiver.ended) == (10_000, Stop(empty=True), True)
    for each in (theirs, receiver):
        each.close()


def test_channel_whose_other_side_is_gone_says_so() -> None:
    channel, theirs = Channel.pair()
    theirs.close()
    assert not channel.send(Stop(empty=True))
    assert channel.receive() == []
    assert channel.ended
    channel.close()


def test_channel_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pounce.supervisor.channel.SEND_TIMEOUT", 0.01)
    channel, theirs = Channel.pair()
    while channel.send(Failed(AppImportError("x"), "x" * 100_000)):
        pass
    theirs.close()
    channel.close()
