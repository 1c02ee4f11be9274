"""The Huffman code of HPACK (RFC 7541 5.2), decoded an octet at a time.

Theory of operation. A decoder that has read whole octets is somewhere inside a code: at an inner node of the tree, 0 to
255. Node and octet together decide which symbols come out, and at which node the decoder is next, so both are looked up
as one step, `node << 8 | octet`. Steps are worked out when they are first needed: there are 65,536, of which traffic in
earnest uses some hundred.
"""

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


_NODES, _ends = _tree()
_ENDS = frozenset(node << 8 for node in _ends)


class HuffmanDecoder:
    """Decodes strings, and keeps short ones with their meaning: a pure function of the octets. Belongs to one worker.

    When what it keeps is full it begins anew.
    """

    __slots__ = ("_known", "_steps")

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._steps: dict[int, tuple[int, bytes]] = {}
        """The next node << 8, and the symbols that come out."""

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
        steps = self._steps
        at = 0
        pieces = []
        for octet in data:
            key = at | octet
            try:
                at, symbols = steps[key]
            except KeyError:
                at, symbols = steps[key] = _step(key)
            pieces.append(symbols)
        if at not in _ENDS:
            raise ValueError("the padding is wrong")
        return b"".join(pieces)


def _step(key: int) -> tuple[int, bytes]:
    at = key >> 8
    symbols = bytearray()
    for bit in range(7, -1, -1):
        at = _NODES[at][key >> bit & 1]
        if at < 0:
            if ~at == EOS:
                raise ValueError("EOS inside a string")
            symbols.append(~at)
            at = 0
    return at << 8, bytes(symbols)
