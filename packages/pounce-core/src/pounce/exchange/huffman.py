"""The Huffman code of field sections (RFC 7541 5.2, RFC 9204 4.1.2), decoded an octet at a time.

The code is canonical: codes of one length follow one another in the order of their symbols, after those that are
shorter. So the symbols of each length say all.

Theory of operation. A decoder that has read whole octets is somewhere inside a code: at an inner node of the tree, 0 to
255. Each node has a row: for every octet the row of the node that comes next, and the symbols that come out on the way.
Such a row and such a step are made when they are first taken: text takes a few hundred of the 65,536 that there are.
"""

__all__ = ["HUFFMAN_MAX", "SECRETS", "HuffmanDecoder"]

HUFFMAN_MAX = 30
"""Bits of the longest code."""
SECRETS = frozenset((b"cookie", b"authorization", b"proxy-authorization"))
"""Fields whose values are never remembered."""

EOS = 256
_NOWHERE = -1
"""The node behind EOS, which no string may have."""
KNOWN_MAX = 512
KNOWN_VALUE_MAX = 128
"""Strings that are kept, and octets of them."""

# RFC 7541 B: the symbols whose codes have so many bits.
_SYMBOLS = (
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, bytes.fromhex("5cc3d0")),
    (20, bytes.fromhex("808283a2b8c2e0e2")),
    (21, bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6")),
    (22, bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9")),
    (23, bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef")),
    (24, bytes.fromhex("098e9091949fabced7e1eced")),
    (25, bytes.fromhex("c7cfeaeb")),
    (26, bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff")),
    (27, bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe")),
    (28, bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9")),
    (30, bytes.fromhex("0a0d16")),
)


def _codes() -> list[tuple[int, int, int]]:
    """Symbol, code and its length in bits, in the order of the codes; EOS is the last."""
    codes = []
    code = bits = 0
    for length, symbols in _SYMBOLS:
        code <<= length - bits
        bits = length
        for symbol in symbols:
            codes.append((symbol, code, length))
            code += 1
    return [*codes, (EOS, code, bits)]


type Branch = tuple[int, bytes]
"""A node, and the symbol that comes out on the way there, if one does."""


def _tree() -> tuple[tuple[tuple[Branch, Branch], ...], frozenset[int]]:
    """What follows a node on 0 and on 1, and the nodes at which a string may end. The last is `_NOWHERE`."""
    nodes: list[list[Branch]] = [[(0, b""), (0, b"")]]
    for symbol, code, length in _codes():
        at = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not nodes[at][branch][0]:
                nodes[at][branch] = (len(nodes), b"")
                nodes.append([(0, b""), (0, b"")])
            at = nodes[at][branch][0]
        nodes[at][code & 1] = (_NOWHERE, b"") if symbol == EOS else (0, bytes((symbol,)))
    # "A padding strictly longer than 7 bits MUST be treated as a decoding error", and so must one that is not of ones.
    ends = [0]
    for _ in range(7):
        ends.append(nodes[ends[-1]][1][0])
    nodes.append([(_NOWHERE, b"")] * 2)
    return tuple((zero, one) for zero, one in nodes), frozenset(ends)


_NODES, _ENDS = _tree()


class Row(list["tuple[Row, bytes] | None"]):
    """By octet the row that comes next and the symbols; None before that was asked, or where nothing may come."""

    __slots__ = ("ends", "node")

    def __init__(self, node: int) -> None:
        super().__init__((None,) * 256)
        self.node = node
        self.ends = node in _ENDS
        """A string may end here."""

    def __repr__(self) -> str:
        # A list would show the rows in it, and those in them: whoever prints the variables of a traceback never ends.
        return f"<Row {self.node}>"


class HuffmanDecoder:
    """Decodes strings, and keeps short ones with their meaning: a pure function of the octets. Belongs to one worker.

    When what it keeps is full it begins anew.
    """

    __slots__ = ("_known", "_rows")

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._rows = {0: Row(0)}
        """By node, those that were reached."""

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
        row = self._rows[0]
        pieces = []
        try:
            # 600 instructions for an octet; C functions that call one another take twice as many.
            for octet in data:
                row, symbols = row[octet]  # type: ignore[misc]
                pieces.append(symbols)
        except TypeError:
            return self._decode_and_make(data)
        if not row.ends:
            raise ValueError("the padding of a Huffman code is wrong")
        return b"".join(pieces)

    def _decode_and_make(self, data: bytes) -> bytes:
        """The same for a string that needs steps which were not made before."""
        row = self._rows[0]
        for octet in data:
            step = row[octet]
            if step is None:
                step = row[octet] = self._step(row.node, octet)
            row = step[0]
        return self._decode(data)

    def _step(self, node: int, octet: int) -> tuple[Row, bytes]:
        symbols = b""
        for bit in range(7, -1, -1):
            node, symbol = _NODES[node][octet >> bit & 1]
            symbols += symbol
        if node == _NOWHERE:
            raise ValueError("EOS inside a Huffman code")
        return self._rows.get(node) or self._rows.setdefault(node, Row(node)), symbols
