"""The Huffman code of HPACK (RFC 7541 5.2), decoded an octet at a time.

Theory of operation. A decoder that has read whole octets is somewhere inside a code: at an inner node of the tree, 0 to
255. Each node has a row: for every octet the row of the node that comes next, and the symbols that come out. Steps are
worked out when they are first needed: there are 65,536, of which traffic in earnest uses some hundred.
"""

from typing import Any

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

__all__ = ["HuffmanDecoder"]

EOS = 256
KNOWN_MAX = 512
KNOWN_VALUE_MAX = 128
"""Strings that are kept, and octets of them."""


def _tree() -> tuple[tuple[tuple[int, int], ...], frozenset[int]]:
    """Inner nodes, with what follows on 0 and on 1: a node, or ~symbol; and the nodes at which a string may end."""
    nodes = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        at = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not nodes[at][branch]:
                nodes[at][branch] = len(nodes)
                nodes.append([0, 0])
            at = nodes[at][branch]
        nodes[at][code & 1] = ~symbol
    # "A padding strictly longer than 7 bits MUST be treated as a decoding error", and so must one that is not of ones.
    ends = [0]
    for _ in range(7):
        ends.append(nodes[ends[-1]][1])
    return tuple((zero, one) for zero, one in nodes), frozenset(ends)


_NODES, _ENDS = _tree()

type Row = list[Any]
"""By octet a `Step`, or None while it has not been needed; the last item is the node."""
type Step = tuple[Row, bytes]


class HuffmanDecoder:
    """Decodes strings, and keeps short ones with their meaning: a pure function of the octets. Belongs to one worker.

    When what it keeps is full it begins anew.
    """

    __slots__ = ("_known", "_rows")

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._rows: dict[int, Row] = {0: _row(0)}

    def decode(self, data: bytes, secret: bool) -> bytes:
        """The string that `data` encodes; one that is `secret` is not kept. Raises `ValueError`."""
        found = self._known.get(data)
        if found is None:
            found = self._decode(data)
            if not secret and len(data) <= KNOWN_VALUE_MAX:
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[data] = found
        return found

    def _decode(self, data: bytes) -> bytes:
        step: Step = (self._rows[0], b"")
        try:
            # 1.4 us for 44 octets; the same with a loop and one dictionary of all steps takes 2.4 us.
            pieces = [(step := step[0][octet])[1] for octet in data]
        except TypeError:
            step, pieces = self._decode_stepwise(data)
        if step[0][256] not in _ENDS:
            raise ValueError("the padding is wrong")
        return b"".join(pieces)

    def _decode_stepwise(self, data: bytes) -> tuple[Step, list[bytes]]:
        """The same for a string that takes steps not taken before."""
        step: Step = (self._rows[0], b"")
        pieces = []
        for octet in data:
            row = step[0]
            step = row[octet] or self._new_step(row, octet)
            pieces.append(step[1])
        return step, pieces

    def _new_step(self, row: Row, octet: int) -> Step:
        node, symbols = _walk(row[256], octet)
        following = self._rows.get(node)
        if following is None:
            following = self._rows[node] = _row(node)
        step = row[octet] = (following, symbols)
        return step


def _row(node: int) -> Row:
    return [*[None] * 256, node]


def _walk(node: int, octet: int) -> tuple[int, bytes]:
    """Where `octet` leads from a node, and what comes out on the way."""
    symbols = bytearray()
    for bit in range(7, -1, -1):
        node = _NODES[node][octet >> bit & 1]
        if node < 0:
            if ~node == EOS:
                raise ValueError("EOS inside a string")
            symbols.append(~node)
            node = 0
    return node, bytes(symbols)
