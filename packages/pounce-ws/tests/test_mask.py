"""Unmasking (RFC 6455 5.3), compiled and in Python."""

import concurrent.interpreters
import os
import subprocess
import sys
from itertools import cycle

import pytest

from pounce_ws import mask

MASK = b"\x00\x37\xfa\xff"
IMPORTED = """
import sys
from pounce_ws import mask
assert mask.unmask is not mask._unmask, "the compiled function was not found"
assert "websockets" not in sys.modules
assert not sys._is_gil_enabled(), "the GIL is on"
import websockets.speedups
assert websockets.speedups.apply_mask(b"abcd", b"abcd") == bytes(4)
assert not sys._is_gil_enabled(), "the GIL is on"
"""


@pytest.mark.parametrize("unmask", [mask.unmask, mask._unmask], ids=["chosen", "python"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, mask.LONG - 1, mask.LONG, mask.LONG + 1, 65537])
def test_every_byte_is_xored_with_its_byte_of_the_mask(unmask: mask.Unmask, size: int) -> None:
    data = os.urandom(size)
    result = unmask(data, MASK)
    assert result == bytes(byte ^ key for byte, key in zip(data, cycle(MASK), strict=False))
    assert type(result) is bytes


def test_compiled_function_is_loaded_without_its_package_and_without_the_gil() -> None:
    subprocess.run([sys.executable, "-c", IMPORTED], check=True)


def test_where_the_compiled_module_cannot_be_loaded_python_unmasks() -> None:
    interpreter = concurrent.interpreters.create()
    try:
        interpreter.exec("from pounce_ws import mask; assert mask.unmask is mask._unmask")
    finally:
        interpreter.close()
