"""Error codes (RFC 9114 8.1, RFC 9204 6, RFC 9000 20.1, RFC 9297 5.2, draft-ietf-webtrans-http3 4.4)."""

H3_NO_ERROR = 0x100
H3_GENERAL_PROTOCOL_ERROR = 0x101
H3_INTERNAL_ERROR = 0x102
H3_STREAM_CREATION_ERROR = 0x103
H3_CLOSED_CRITICAL_STREAM = 0x104
H3_FRAME_UNEXPECTED = 0x105
H3_FRAME_ERROR = 0x106
H3_EXCESSIVE_LOAD = 0x107
H3_ID_ERROR = 0x108
H3_SETTINGS_ERROR = 0x109
H3_MISSING_SETTINGS = 0x10A
H3_REQUEST_REJECTED = 0x10B
H3_REQUEST_CANCELLED = 0x10C
H3_REQUEST_INCOMPLETE = 0x10D
H3_MESSAGE_ERROR = 0x10E
H3_CONNECT_ERROR = 0x10F
QPACK_DECOMPRESSION_FAILED = 0x200
QPACK_ENCODER_STREAM_ERROR = 0x201
QPACK_DECODER_STREAM_ERROR = 0x202

H3_DATAGRAM_ERROR = 0x33
"""RFC 9297 5.2."""
WT_BUFFERED_STREAM_REJECTED = 0x3994BD84
WT_SESSION_GONE = 0x170D7B68

_FIRST_OF_APPLICATIONS = 0x52E4A40FA8DB
_LAST_OF_APPLICATIONS = 0x52E5AC983162


def code_of_application(code: int) -> int:
    """What stands on the wire for a 32-bit code with which an application resets or stops a stream of a WebTransport
    session (draft-ietf-webtrans-http3 4.4): codes of the form 0x1f * n + 0x21 are left out, for they are reserved."""
    return _FIRST_OF_APPLICATIONS + code + code // 0x1E


def application_code(code: int) -> int | None:
    """The code of an application that this stands for; None where it is no application's."""
    if not _FIRST_OF_APPLICATIONS <= code <= _LAST_OF_APPLICATIONS or not (code - 0x21) % 0x1F:
        return None
    shifted = code - _FIRST_OF_APPLICATIONS
    return shifted - shifted // 0x1F
