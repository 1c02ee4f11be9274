"""The application of the soak test, and what its process says of itself."""

import asyncio
import gc
import json
import os
import sys
from typing import Any

import pounce
from pounce.exchange.http import HttpExchange
from pounce.h1.connection import H1Connection
from pounce_h3.connection import H3Connection


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    path = scope["path"]
    if path == "/census":
        await answer(send, json.dumps(census()).encode())
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/memory":
        await answer(send, json.dumps(memory()).encode())
    elif path == "/leave":
        # Its body, whoever sends one.
        await asyncio.Event().wait()
    elif path == "/wait":
        # Until the client goes, which it does.
        while (await receive())["type"] != "http.disconnect":
            pass
    elif scope["method"] == "POST":
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        await answer(send, bytes(body))
    else:
        await answer(send, b"hello")


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def memory() -> dict[str, int]:
    """Resident memory in KiB: now, and the most that it was."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {"now": int(lines["VmRSS"].split()[0]), "most": int(lines["VmHWM"].split()[0])}


def census() -> dict[str, int]:
    """Memory in KiB, descriptors, tasks, and how many objects of a connection and of a request there are."""
    gc.collect()
    objects = gc.get_objects()
    with open("/proc/self/smaps_rollup") as file:
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
    return {
        "rss": sizes["Rss"],
        "anonymous": sizes["Anonymous"],
        "pss": sizes["Pss"],
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "connections": sum(type(item) in (H1Connection, H3Connection) for item in objects),
        "exchanges": sum(type(item) is HttpExchange for item in objects),
        "objects": len(objects),
    }


if __name__ == "__main__":
    pounce.run(
        app,
        port=0,
        lifespan="off",
        access_log=False,
        log_level="critical",
        signage="off",
        on_ready=lambda info: print(info.urls[0], flush=True),
        **json.loads(sys.argv[1]),
    )
