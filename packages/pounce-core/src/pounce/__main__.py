"""`python -m pounce` is `pounce`, the command of the package pounce-cli."""

import sys

from pounce.errors import ConfigError


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    try:
        from pounce_cli.__main__ import run
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "pounce_cli":
            raise
    else:
        return run()
    from pounce.config import ServerConfig
    from pounce.observe.logs import start_failed, wants_json

    error = ConfigError(
        "the command line is a package of its own, which is not installed",
        code="POUNCE_CLI_NOT_INSTALLED",
        hint="pip install pounce-cli, or call pounce.run() from Python.",
    )
    as_text = f"Error: {error.message}\n  Code: {error.code}\n  Hint: {error.hint}"
    sys.stderr.write((start_failed(error) if wants_json(ServerConfig()) else as_text) + "\n")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
