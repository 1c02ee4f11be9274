"""What somebody may have meant who wrote a name wrong."""

from collections import Counter
from collections.abc import Iterable

__all__ = ["did_you_mean", "meant"]

LONG = 10
"""Letters from which on two of them may be wrong, and not one."""


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """The hint for a word that is none of these names, if it is one of them but for a slip; else None."""
    name = meant(word, names)
    return None if name is None else f"Did you mean {name}?"


def meant(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` is but for a slip or two of letters; None where it may be anything.

    Names that look alike by half (`env_file`, `pid_file`) have nothing to do with each other, and who follows a wrong
    hint has another server than the one that was asked for.
    """
    written = _plain(word)
    letters = len(written.lstrip("_").removeprefix("pounce_").rpartition(".")[2])
    bound = 2 if letters >= LONG else min(1, letters - 1)
    close = []
    for name in names:
        known = _plain(name)
        if abs(len(known) - len(written)) <= bound and (slips := _slips(written, known)) <= bound:
            close.append((slips, -sum((Counter(written) & Counter(known)).values()), name))
    return min(close)[2] if close else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _slips(one: str, other: str) -> int:
    """How many letters are missing, too many, wrong, or in the place of their neighbour."""
    before: list[int] = []
    row: list[int] = [*range(len(other) + 1)]
    for at, letter in enumerate(one, 1):
        earlier, before, row = before, row, [at]
        for to, wanted in enumerate(other, 1):
            cost: int = min(before[to] + 1, row[-1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, earlier[to - 2] + 1)
            row.append(cost)
    return row[-1]
