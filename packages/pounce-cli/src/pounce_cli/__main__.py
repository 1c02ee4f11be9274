"""`python -m pounce_cli` is `pounce`."""

import os
import sys

from pounce_cli.main import main

__all__ = ["run"]


def run() -> int:
    """Run the command line of a process that was started with `-m`; returns its exit code."""
    try:
        # Python has put the current folder first, where a file of it would take the place of what is installed. The
        # application finds it there all the same, when it is its folder.
        if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
            del sys.path[0]
    except OSError:
        # The current folder is gone.
        pass
    return main()


if __name__ == "__main__":
    sys.exit(run())
