"""Starts fastpysgi, whose module does nothing under `python -m`: `APP PORT WORKERS [CERTIFICATE KEY]`."""

import importlib
import sys
from typing import Any


def main() -> None:
    app, port, workers, *tls = sys.argv[1:]
    fastpysgi: Any = importlib.import_module("fastpysgi")
    module, _, name = app.partition(":")
    if tls:
        fastpysgi.server.tls_list = [(tls[0], tls[1], None)]
    fastpysgi.run(getattr(importlib.import_module(module), name), "127.0.0.1", int(port), workers=int(workers))


if __name__ == "__main__":
    main()
