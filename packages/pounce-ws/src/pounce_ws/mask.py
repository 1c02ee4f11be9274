"""Masking (RFC 6455 5.3): every payload of a client comes XORed with four bytes.

The package websockets has a C function for it. Where that one cannot be loaded, which a platform without a compiled
wheel and a subinterpreter are examples of, Python does it: it has no XOR for bytes, so short payloads are XORed as one
integer, and long ones in four strides, each with the translation table of its mask byte. That takes 8 times as long for
64 bytes, and 50 times for 16 KiB.
"""

from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec

__all__ = ["unmask"]

type Unmask = Callable[[bytes, bytes], bytes]

LONG = 4096
"""Bytes from which on tables are faster than an integer."""

_IDENTITY = int.from_bytes(range(256))
_TABLES = tuple((_IDENTITY ^ int.from_bytes(bytes((value,)) * 256)).to_bytes(256) for value in range(256))


def _unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    if size < LONG:
        key = mask * (size + 3 >> 2)
        if size & 3:
            key = key[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
    result = bytearray(size)
    for start in range(4):
        result[start::4] = data[start::4].translate(_TABLES[mask[start]])
    return bytes(result)


def _compiled() -> Unmask:
    """`apply_mask` of websockets.speedups; raises `ImportError`.

    The module is loaded without its package, which is of no use here and would take 15 ms of the first handshake, and
    under a name of our own, so that whoever imports the package finds it untouched.
    """
    package = find_spec("websockets")
    places = package.submodule_search_locations if package is not None else None
    # An application may have a module of that name, which has no places. Without them all of sys.path is one.
    spec = PathFinder.find_spec("pounce_ws.speedups", places) if places else None
    if spec is None or spec.loader is None:
        raise ImportError("websockets.speedups is not there")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    apply_mask: Unmask = module.apply_mask
    return apply_mask


unmask: Unmask
"""`data` XORed with the four bytes of `mask` again and again."""

try:
    unmask = _compiled()
except ImportError, ValueError:
    # The latter of `find_spec`, for a module that somebody has made by hand.
    unmask = _unmask
