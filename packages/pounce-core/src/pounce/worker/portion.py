"""How a limit that holds for the whole server is divided among those who keep to it."""

__all__ = ["portion_of"]


def portion_of(total: int, parts: int, number: int) -> int:
    """What part `number` of `parts` may have, 1 at the least; 0, no limit, is no limit for each."""
    share, rest = divmod(total, parts)
    return max(1, share + (number < rest)) if total else 0
