"""Work that goes on after the answer, and ends in good order when the server does.

    pip install starlette
    pounce serve background_app:app
    curl -X POST http://127.0.0.1:8000/     # starts a job
    curl http://127.0.0.1:8000/             # tells what has become of them

`pounce.worker.draining` is set when the worker is to end:
jobs bring what they have done to where the next process finds it, instead of being cancelled in the middle.
"""

import asyncio
import json
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

STEPS = 1000


@asynccontextmanager
async def lifespan(app: Starlette):
    """State of one worker: what is yielded is in `request.state` of each request, and tasks belong to this loop."""
    jobs: dict[int, int] = {}
    tasks: set[asyncio.Task[None]] = set()
    yield {"jobs": jobs, "tasks": tasks}
    await asyncio.gather(*tasks)
    with open("jobs.json", "w") as file:
        json.dump(jobs, file)


async def work(number: int, jobs: dict[int, int], draining) -> None:
    for step in range(STEPS):
        if draining.is_set():
            return  # jobs[number] tells how far it came
        await asyncio.sleep(0.01)
        jobs[number] = step + 1


async def start(request: Request) -> JSONResponse:
    jobs, tasks = request.state.jobs, request.state.tasks
    number = len(jobs)
    jobs[number] = 0
    task = asyncio.ensure_future(work(number, jobs, request.scope["extensions"]["pounce.worker.draining"]))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return JSONResponse({"job": number}, status_code=202)


async def show(request: Request) -> JSONResponse:
    return JSONResponse(request.state.jobs)


app = Starlette(routes=[Route("/", start, methods=["POST"]), Route("/", show)], lifespan=lifespan)
