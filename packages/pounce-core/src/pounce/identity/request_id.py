"""Request ids: one name for a request in logs, answers and traces."""

import itertools
import logging
import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pounce.errors import AppImportError, ConfigError

__all__ = ["is_request_id", "request_ids"]

ID_MAX = 128
BLOCK = 128
"""Ids that are made at once."""
_sane = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,%d}" % ID_MAX).fullmatch


def is_request_id(value: bytes) -> bool:
    """Whether an id that a proxy gives can be taken on: a token of a sane length, which no log can misread."""
    return _sane(value) is not None


def _block() -> list[str]:
    """Ids of 16 random bytes each: with a system call for each a request would take twice as long to have one."""
    return os.urandom(16 * BLOCK).hex(" ", 16).split(" ")


def request_ids(generator: str | Callable[[], str] | None) -> Callable[[], str]:
    """What makes ids: `generator` itself or what `module:attribute` names, else 32 hexadecimal digits of our own.

    Those are 128 random bits. They also take the place of what a generator is to make when it fails later, which is
    logged. Raises `AppImportError`, `ConfigError`.
    """
    # All of it runs in C but `_block()`, which is first called when the first id is asked for: in the process, and the
    # interpreter, that serves.
    own = itertools.chain.from_iterable(iter(_block, None)).__next__
    if generator is None:
        return own
    if isinstance(generator, str):
        module, _, attribute = generator.partition(":")
        try:
            found: Any = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as exc:
            raise AppImportError(
                f"request_id_generator {generator!r} cannot be imported: {exc}", code="POUNCE_APP_IMPORT_FAILED"
            ) from exc
        generator = found
    if not callable(generator):
        raise ConfigError(f"request_id_generator must be a function (got {generator!r})")
    make = generator

    def checked() -> str:
        made = str(make())
        if not is_request_id(made.encode("utf-8", "surrogatepass")):
            raise ConfigError(f"request_id_generator made {made!r}, which is no token of up to {ID_MAX} characters")
        return made

    def made_or_own() -> str:
        try:
            return checked()
        except Exception:
            # A name is no reason to turn a request away, nor the others of its connection.
            logging.getLogger("pounce").exception("request_id_generator failed, an id of the server's own is used")
            return own()

    checked()
    return made_or_own
