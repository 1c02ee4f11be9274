"""What a second worker thread costs the first one: `python -m benchmarks.micro.scaling [threads]`.

Each thread serves requests in memory as a worker does. Processor time is measured, not the time of day: what threads
cost each other shows in it, and what else runs on the machine does not. Threads that touch no common memory cost each
other nothing: a scaling of 2.00 for two. Needs as many idle cores as threads.
"""

import asyncio
import statistics
import sys
import threading
import time

from benchmarks.micro.__main__ import CHROME, CURL, hello, one_request
from pounce.config import ServerConfig
from pounce.exchange.service import Service
from pounce.immortal import Immortals, own_copy
from pounce.plugin import ParserLimits
from pounce.registry import Registry
from pounce.testing import MemoryConnection

ROUNDS = 5
WARM_UP = 2_000
REQUESTS = 10_000

config = ServerConfig(access_log=False)
registry = Registry.discover(config)
immortals = Immortals({"pounce", "asyncio"} | registry.packages)


def service() -> Service:
    """Made as a worker thread makes it."""
    choice = registry.parser("auto")
    return Service(
        own_copy(config),
        hello,
        asyncio.get_running_loop(),
        responders=registry.responders,
        observers=registry.observers,
        create_parser=lambda: choice.create(ParserLimits()),
    )


def microseconds(threads: int, data: bytes) -> float:
    """Of one request, on each of so many threads at once."""
    barrier = threading.Barrier(threads)
    times: list[float] = []

    async def serve() -> None:
        connection = MemoryConnection(service=service())
        for _ in range(WARM_UP):
            one_request(connection, data)
        immortals.look()
        for _ in range(WARM_UP):
            one_request(connection, data)
        barrier.wait()
        started = time.thread_time()
        for _ in range(REQUESTS):
            one_request(connection, data)
        times.append((time.thread_time() - started) / REQUESTS * 1e6)

    workers = [threading.Thread(target=lambda: asyncio.run(serve())) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return statistics.mean(times)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for name, data in (("curl", CURL), ("Chrome", CHROME)):
        rounds = [(microseconds(1, data), microseconds(threads, data)) for _ in range(ROUNDS)]
        alone, each = (statistics.median(column) for column in zip(*rounds, strict=True))
        scaling = threads * alone / each
        print(f"{name}: alone {alone:.2f} µs, {threads} threads {each:.2f} µs each, scaling {scaling:.2f}")


if __name__ == "__main__":
    main()
