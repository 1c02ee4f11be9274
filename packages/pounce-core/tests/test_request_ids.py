"""Ids of the server's own."""

import re

from pounce.identity.request_id import BLOCK, request_ids


def test_ids_are_random_and_all_different() -> None:
    makers = [request_ids(None) for _ in range(2)]
    made = [make() for make in makers for _ in range(3 * BLOCK + 1)]
    assert len(set(made)) == len(made)
    assert [name for name in made if re.fullmatch("[0-9a-f]{32}", name) is None] == []
    # No two of them have a beginning or an end in common, as those with a counter would.
    assert len({name[:16] for name in made}) == len({name[16:] for name in made}) == len(made)
