r"""A gRPC service without a library for it: HTTP/2, messages with their length in front, the status in the trailers.

    pounce serve grpc_app:app        # clients speak HTTP/2 in clear text: pounce-h2 has to be installed
    printf '\0\0\0\0\5world' | curl --http2-prior-knowledge -i --output - --data-binary @- \
        -H 'Content-Type: application/grpc' -H 'TE: trailers' http://127.0.0.1:8000/demo.Greeter/Greet

`/demo.Greeter/Greet` answers one message, `/demo.Greeter/Count` a stream of them. Messages are plain UTF-8 here; with
protobuf, decode and encode them where `str()` and `encode()` are.
"""

import struct

OK, INVALID_ARGUMENT, UNIMPLEMENTED = 0, 3, 12


def framed(message: bytes) -> bytes:
    return struct.pack("!BI", 0, len(message)) + message


async def messages(receive):
    """Those of the request. A length that lies is the end of it: `ValueError`."""
    data, more = b"", True
    while True:
        if len(data) >= 5:
            compressed, size = struct.unpack("!BI", data[:5])
            if compressed or size > 4 * 1024 * 1024:
                raise ValueError("compressed, or too large")
            if len(data) >= 5 + size:
                yield data[5 : 5 + size]
                data = data[5 + size :]
                continue
        if not more:
            if data:
                raise ValueError("a message ends too early")
            return
        event = await receive()
        if event["type"] == "http.disconnect":
            raise OSError("the client is gone")
        data, more = data + event["body"], event["more_body"]


async def greet(asked, send_message):
    async for name in asked:
        await send_message(f"Hello, {name.decode()}!".encode())


async def count(asked, send_message):
    async for number in asked:
        for n in range(int(number)):
            await send_message(str(n).encode())


METHODS = {"/demo.Greeter/Greet": greet, "/demo.Greeter/Count": count}


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    # application/grpc, or with the name of what the messages are, as application/grpc+proto.
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"application/grpc")
    fields = [(b"content-type", kind), (b"trailer", b"grpc-status, grpc-message")]
    await send({"type": "http.response.start", "status": 200, "headers": fields, "trailers": True})

    async def send_message(message: bytes) -> None:
        await send({"type": "http.response.body", "body": framed(message), "more_body": True})

    method = METHODS.get(scope["path"])
    status, said = OK, b""
    if method is None:
        status, said = UNIMPLEMENTED, b"no such method"
    else:
        try:
            await method(messages(receive), send_message)
        except ValueError as error:
            status, said = INVALID_ARGUMENT, str(error).encode()
    await send({"type": "http.response.body", "body": b""})
    trailers = [(b"grpc-status", str(status).encode()), (b"grpc-message", said)]
    await send({"type": "http.response.trailers", "headers": trailers})
