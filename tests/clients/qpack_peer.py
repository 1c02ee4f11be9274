"""pylsqpack at the other end of a pipe. Each line from standard input is a call, JSON, and each line of standard output
what came of it: a name, the number of the coder, and arguments; octets are hexadecimal.

What fails answers with the name of its exception.
"""

import json
import sys

from pylsqpack import Decoder, DecompressionFailed, Encoder, EncoderStreamError, StreamBlocked


def encoder(coders, number, capacity, blocked):
    coders[number] = made = Encoder()
    return made.apply_settings(capacity, blocked).hex()


def decoder(coders, number, capacity, blocked):
    coders[number] = Decoder(capacity, blocked)


def encode(coders, number, stream_id, fields):
    found = coders[number].encode(stream_id, [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in fields])
    return [part.hex() for part in found]


def feed_decoder(coders, number, data):
    coders[number].feed_decoder(bytes.fromhex(data))


def feed_encoder(coders, number, data):
    return coders[number].feed_encoder(bytes.fromhex(data))


def decode(coders, number, stream_id, section):
    return as_lists(coders[number].feed_header(stream_id, bytes.fromhex(section)))


def resume(coders, number, stream_id):
    return as_lists(coders[number].resume_header(stream_id))


def cancel(coders, number, stream_id):
    return coders[number].cancel_stream(stream_id).hex()


def as_lists(found):
    instructions, fields = found
    return [instructions.hex(), [[name.hex(), value.hex()] for name, value in fields]]


CALLS = {call.__name__: call for call in (encoder, decoder, encode, feed_decoder, feed_encoder, decode, resume, cancel)}


def main():
    coders = {}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            found = {"is": CALLS[name](coders, *arguments)}
        except (DecompressionFailed, EncoderStreamError, StreamBlocked, ValueError) as exc:
            found = {"raised": type(exc).__name__}
        print(json.dumps(found), flush=True)


main()
