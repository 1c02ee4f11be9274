"""Applications that a factory makes: who has which, in every mode, after a reload and with more workers."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.workers.running import APP, FEWEST, Running, ask, eventually

MODES = ("thread", "process", "subinterpreter")

FACTORY = (
    APP
    + """
made = 0

def create_app():
    global made
    made += 1
    number = made

    async def created(scope, receive, send):
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        body = json.dumps({
            "application": number, "made": made, "pid": os.getpid(), "version": VERSION,
            "worker": scope["extensions"]["pounce.worker"]["worker_id"],
        }).encode()
        await send({
            "type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))],
        })
        await send({"type": "http.response.body", "body": body})

    return created
"""
)
FACTORY_LINE = ["-m", "pounce_cli", "serve", "main:create_app()", "--port", "0", "--log-format", "json"]


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that has two workers, which tests replace, and give others beside them for as long as they need these."""
    line = [*FACTORY_LINE, "--workers", "2", "--worker-mode", mode, "--no-access-log"]
    with Running(tmp_path_factory.mktemp("factory"), app=FACTORY, command=line) as running:
        yield running
        assert running.end() == 0


def applications(server: Running, workers: int, version: int = 1) -> dict[int, int]:
    """The number of the application of each worker, by the worker's, when so many serve this version."""
    found: dict[int, int] = {}
    with ExitStack() as clients:

        def all_are_there() -> bool:
            answer = ask(clients.enter_context(server.connect()))
            if answer["version"] == version:
                found[answer["worker"]] = answer["application"]
            return len(found) == workers

        eventually(all_are_there)
    return found


def expected(mode: str, workers: int) -> list[int]:
    """In threads a factory is called for each, elsewhere each imports its own module."""
    return list(range(1, workers + 1)) if mode == "thread" else [1] * workers


def test_each_worker_has_an_application_of_its_own(server: Running, mode: str) -> None:
    assert sorted(applications(server, 2, server.version).values()) == expected(mode, 2)


def test_a_reload_makes_them_anew(server: Running, mode: str) -> None:
    new = server.write_next(FACTORY)
    server.reload()
    assert sorted(applications(server, 2, new).values()) == expected(mode, 2)


def test_a_further_worker_has_its_own(server: Running, mode: str) -> None:
    server.kill(signal.SIGTTIN)
    assert sorted(applications(server, 3, server.version).values()) == expected(mode, 3)
    server.kill(signal.SIGTTOU)
    server.wait_for_message("Serving with 2 workers")


@pytest.mark.parametrize("flags", [("--application-scope", "process"), ("--lifespan-scope", "process")], ids=str)
def test_threads_share_one_where_they_are_to(flags: tuple[str, ...], tmp_path: Path) -> None:
    line = [*FACTORY_LINE, "--workers", "2", "--worker-mode", "thread", *flags]
    with Running(tmp_path, app=FACTORY, command=line) as server:
        assert applications(server, 2) == {0: 1, 1: 1}


def test_factory_that_fails_ends_the_start_with_exit_code_4(mode: str, tmp_path: Path) -> None:
    app = FACTORY.replace("    number = made\n", "    raise ValueError('no luck')\n")
    line = [*FACTORY_LINE, *FEWEST[mode]]
    with Running(tmp_path, app=app, command=line, wait=False) as server:
        server.wait_for_message("no luck")
        assert server.wait() == 4


def test_object_for_each_of_several_threads_is_refused_with_exit_code_2(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", "thread", "--application-scope", "worker")
    with Running(tmp_path, *flags, wait=False) as server:
        server.wait_for_message("application_scope worker needs a factory")
        assert server.wait() == 2
