"""What an application gives where ASGI says bytes, str or int: subclasses are welcome, and come out as the plain type.

A subclass may have methods of its own, so that nobody knows what it does in a table, a format or on a wire.
"""

__all__ = ["plain_bytes", "plain_int", "plain_str"]


def plain_bytes(value: object) -> bytes | None:
    """These bytes, or a copy of what a subclass, a bytearray or a memoryview holds now; None for anything else."""
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        # By the buffer: a subclass may have a __bytes__ that says something else.
        return memoryview(value).tobytes()
    return None


def plain_str(value: object) -> str | None:
    """This text, also of a subclass; None for anything else."""
    if type(value) is str:
        return value
    return str.__str__(value) if isinstance(value, str) else None


def plain_int(value: object) -> int | None:
    """This number, also of a subclass such as an IntEnum; None for anything else."""
    if type(value) is int:
        return value
    return int.__index__(value) if isinstance(value, int) else None
