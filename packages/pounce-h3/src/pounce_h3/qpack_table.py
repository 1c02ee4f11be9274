"""The tables of QPACK (RFC 9204 3): the static one, and the dynamic one that a peer's encoder fills."""

from pounce_h3.codes import QPACK_ENCODER_STREAM_ERROR
from pounce_h3.engine import QuicError

__all__ = ["ENTRY_OVERHEAD", "STATIC", "DynamicTable"]

ENTRY_OVERHEAD = 32
"""RFC 9204 3.2.1: what an entry counts beside its octets."""

# RFC 9204 A.
STATIC: tuple[tuple[bytes, bytes], ...] = (
    (b":authority", b""),
    (b":path", b"/"),
    (b"age", b"0"),
    (b"content-disposition", b""),
    (b"content-length", b"0"),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"referer", b""),
    (b"set-cookie", b""),
    (b":method", b"CONNECT"),
    (b":method", b"DELETE"),
    (b":method", b"GET"),
    (b":method", b"HEAD"),
    (b":method", b"OPTIONS"),
    (b":method", b"POST"),
    (b":method", b"PUT"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"103"),
    (b":status", b"200"),
    (b":status", b"304"),
    (b":status", b"404"),
    (b":status", b"503"),
    (b"accept", b"*/*"),
    (b"accept", b"application/dns-message"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-ranges", b"bytes"),
    (b"access-control-allow-headers", b"cache-control"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0"),
    (b"cache-control", b"max-age=2592000"),
    (b"cache-control", b"max-age=604800"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"no-store"),
    (b"cache-control", b"public, max-age=31536000"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/dns-message"),
    (b"content-type", b"application/javascript"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"image/gif"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"text/plain;charset=utf-8"),
    (b"range", b"bytes=0-"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains; preload"),
    (b"vary", b"accept-encoding"),
    (b"vary", b"origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-xss-protection", b"1; mode=block"),
    (b":status", b"100"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"302"),
    (b":status", b"400"),
    (b":status", b"403"),
    (b":status", b"421"),
    (b":status", b"425"),
    (b":status", b"500"),
    (b"accept-language", b""),
    (b"access-control-allow-credentials", b"FALSE"),
    (b"access-control-allow-credentials", b"TRUE"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"get"),
    (b"access-control-allow-methods", b"get, post, options"),
    (b"access-control-allow-methods", b"options"),
    (b"access-control-expose-headers", b"content-length"),
    (b"access-control-request-headers", b"content-type"),
    (b"access-control-request-method", b"get"),
    (b"access-control-request-method", b"post"),
    (b"alt-svc", b"clear"),
    (b"authorization", b""),
    (b"content-security-policy", b"script-src 'none'; object-src 'none'; base-uri 'none'"),
    (b"early-data", b"1"),
    (b"expect-ct", b""),
    (b"forwarded", b""),
    (b"if-range", b""),
    (b"origin", b""),
    (b"purpose", b"prefetch"),
    (b"server", b""),
    (b"timing-allow-origin", b"*"),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b""),
    (b"x-forwarded-for", b""),
    (b"x-frame-options", b"deny"),
    (b"x-frame-options", b"sameorigin"),
)
LONGEST = max(len(_name) + len(_value) for _name, _value in STATIC)


class DynamicTable:
    """RFC 9204 3.2. Entries have absolute indices: that of the first that was ever inserted is 0."""

    __slots__ = ("_capacity", "_maximum", "_size", "entries", "generation", "inserted", "longest", "oldest")

    entries: list[tuple[bytes, bytes]]
    """Those that are there, from the oldest on."""
    generation: int
    """Changes with the entries."""
    inserted: int
    """How many entries there ever were."""
    longest: int
    """No field of this table or the static one is longer than that."""
    oldest: int
    """The absolute index of the first that is there."""

    def __init__(self, maximum: int) -> None:
        """`maximum` is what SETTINGS_QPACK_MAX_TABLE_CAPACITY promised; the capacity is 0 at first."""
        self._maximum = maximum
        self._capacity = self._size = 0
        self.entries = []
        self.inserted = self.oldest = self.generation = 0
        self.longest = LONGEST

    def newest(self, index: int) -> tuple[bytes, bytes]:
        """The entry with this relative index: 0 is the one that was inserted last (RFC 9204 3.2.5).

        Raises `QuicError` where there is none, or no longer one.
        """
        if index >= len(self.entries):
            raise QuicError(QPACK_ENCODER_STREAM_ERROR, "an entry is not in the table")
        return self.entries[-1 - index]

    def insert(self, name: bytes, value: bytes) -> None:
        """Raises `QuicError` for an entry that does not fit."""
        size = len(name) + len(value) + ENTRY_OVERHEAD
        if size > self._capacity:
            raise QuicError(QPACK_ENCODER_STREAM_ERROR, "an entry is larger than the table")
        self._evict(self._capacity - size)
        self.entries.append((name, value))
        self.longest = max(self.longest, size - ENTRY_OVERHEAD)
        self._size += size
        self.inserted += 1
        self.generation += 1

    def resize(self, capacity: int) -> None:
        """RFC 9204 3.2.3. Raises `QuicError` where that is more than was promised."""
        if capacity > self._maximum:
            raise QuicError(QPACK_ENCODER_STREAM_ERROR, "the table is made larger than it may be")
        self._capacity = capacity
        self._evict(capacity)
        self.generation += 1

    def _evict(self, room: int) -> None:
        """RFC 9204 3.2.2: from the oldest on, until what is left is no larger than that."""
        if self._size <= room:
            return
        gone = 0
        for name, value in self.entries:
            if self._size <= room:
                break
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        del self.entries[:gone]
        self.oldest += gone
