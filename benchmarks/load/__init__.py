"""Load tests of pounce side by side with other ASGI servers: `python -m benchmarks.load`."""
