"""Immortal objects: what the threads of several workers use at once, and nobody counts.

Theory of operation. Without the GIL, a reference that a thread takes to an object of another thread is an atomic write
to that object, and giving it back is another one. Two workers that do no more than read the same constant, or the
same setting, pass the memory it lies in back and forth between their cores. A request of 6 µs takes twice as long on
each of two threads when it touches fifty such objects: then the second core has brought nothing.

Python does not count functions, classes and modules in this way, nor small numbers, and interned strings not at all. It
makes the constants of code immortal too, but not those of modules that are imported (CPython 3.14). So the request path
touches, beside what its own worker has made, only such things:

- constants of functions and modules, made immortal here before the first worker serves;
- states as small numbers: members of an Enum are counted;
- no dictionaries, sets or other objects of a module: each worker has its own, and so it has classes of its own for
  what it makes for each request.

`python -m benchmarks.micro.sharing` shows what is left.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from types import CodeType, FunctionType, ModuleType
from typing import cast

from pounce.config import ServerConfig

__all__ = ["Immortals", "immortal", "own_class", "own_copy"]

CONSTANTS = (int, float, str, bytes, tuple, frozenset)

_code = (lambda: None).__code__


def immortal[T](value: T) -> T:
    """`value`, a constant, or another one that equals it, whose references are not counted from now on.

    A constant is a number, a string, bytes, or a tuple or frozenset of constants; anything else comes back as it is. It
    stays in memory until the process ends, so nothing that a peer has sent may come here.
    """
    return cast(T, _code.replace(co_consts=(value,)).co_consts[0])


def own_copy(config: ServerConfig) -> ServerConfig:
    """The same settings for the calling thread alone, their values immortal."""
    return replace(config, **{item.name: immortal(getattr(config, item.name)) for item in fields(config)})


def own_class[T](base: type[T], *methods: str) -> type[T]:
    """A class like `base` for the calling thread alone, with copies of these methods.

    For what is made for every request: each object counts its class, and a bound method its function.
    """
    copies = {name: _copy(getattr(base, name)) for name in methods}
    return type(base.__name__, (base,), {"__slots__": (), "__module__": base.__module__, **copies})


def _copy(function: FunctionType) -> FunctionType:
    copied = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copied.__qualname__, copied.__kwdefaults__ = function.__qualname__, function.__kwdefaults__
    return copied


class Immortals:
    """Makes the constants of some packages immortal, also those of modules that are imported later on.

    One for all workers of a process; `look()` may be called from any thread.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = frozenset(packages)
        self._lock = threading.Lock()
        """Protects the other fields."""
        self._modules = 0
        self._seen: set[str] = set()

    def look(self) -> None:
        """See to the modules that have been imported since the last time."""
        if len(sys.modules) == self._modules:
            return
        with self._lock:
            self._modules = len(sys.modules)
            # Copies, here and below: a copy is made at once, while an iteration over what other threads change is not.
            for name, module in sys.modules.copy().items():
                if name in self._seen or name.partition(".")[0] not in self._packages or type(module) is not ModuleType:
                    continue
                if getattr(module.__spec__, "_initializing", False):
                    # Another thread imports it: the next time.
                    self._modules = 0
                else:
                    self._seen.add(name)
                    _immortalize(module)


def _immortalize(module: ModuleType) -> None:
    names = vars(module)
    for name, value in names.copy().items():
        if type(value) in CONSTANTS:
            names[name] = immortal(value)
    for function in _functions(module):
        # Safe while others call it: the code that they run stays until they are done.
        function.__code__ = _immortal_code(function.__code__)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions that the module defines, and those of its classes."""
    for value in vars(module).copy().values():
        # By their types: other objects may do anything when they are asked for an attribute.
        own = issubclass(type(value), type) and value.__module__ == module.__name__
        for item in vars(value).copy().values() if own else (value,):
            if type(item) is staticmethod or type(item) is classmethod:
                item = item.__func__
            elif type(item) is property:
                item = item.fget
            if type(item) is FunctionType and item.__module__ == module.__name__:
                yield item


def _immortal_code(code: CodeType) -> CodeType:
    constants = tuple(_immortal_code(item) if isinstance(item, CodeType) else item for item in code.co_consts)
    return code.replace(co_consts=constants)
