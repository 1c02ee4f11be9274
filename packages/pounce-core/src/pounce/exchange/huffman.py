"""The Huffman code of field sections (RFC 7541 5.2, RFC 9204 4.1.2), decoded an octet at a time.

The code is canonical: codes of one length follow one another in the order of their symbols, after those that are
shorter. So the symbols of each length say all.

Theory of operation. A decoder that has read whole octets is somewhere inside a code: at an inner node of the tree, 0 to
255. Each node has a row: for every octet the row of the node that comes next, and the symbols that come out on the way.
A row is made when it is first reached: text takes some forty.
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
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b"
         b"\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12"
         b"\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
    (30, b"\x0a\x0d\x16"),
)  # fmt: skip


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
    """By octet the row that comes next and the symbols, None where nothing may come. Empty before it is reached."""

    __slots__ = ("ends", "node")

    def __init__(self, node: int) -> None:
        super().__init__()
        self.node = node
        self.ends = node in _ENDS
        """A string may end here."""


class HuffmanDecoder:
    """Decodes strings, and keeps short ones with their meaning: a pure function of the octets. Belongs to one worker.

    When what it keeps is full it begins anew.
    """

    __slots__ = ("_known", "_rows")

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._rows = [Row(node) for node in range(len(_NODES))]

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
        except IndexError, TypeError:
            return self._decode_and_make(data)
        if not row.ends:
            raise ValueError("the padding of a Huffman code is wrong")
        return b"".join(pieces)

    def _decode_and_make(self, data: bytes) -> bytes:
        """The same for a string that needs rows which were not reached before."""
        row = self._rows[0]
        for octet in data:
            if not row:
                self._make(row)
            step = row[octet]
            if step is None:
                raise ValueError("EOS inside a Huffman code")
            row = step[0]
        return self._decode(data)

    def _make(self, row: Row) -> None:
        # By bit, so that octets which begin alike are walked together.
        reached = [(row.node, b"")]
        for _ in range(8):
            reached = [(to, symbols + symbol) for node, symbols in reached for to, symbol in _NODES[node]]
        rows = self._rows
        row += [None if node == _NOWHERE else (rows[node], symbols) for node, symbols in reached]
