"""A chat over WebTransport: what one page sends on a stream reaches all of them, and where the pointer is in datagrams.

    pounce serve webtransport_app:app --http3 --http3-webtransport-enabled --ssl-self-signed

Chromium takes a certificate that signs itself only by its hash, or when it is told to:
`--ignore-certificate-errors-spki-list`.
"""

import asyncio
from typing import Any

from pounce.webtransport import Session, Stream

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<form><input autofocus aria-label="message"></form>
<ul></ul>
<script type="module">
const session = new WebTransport(`https://${location.host}/chat`);
await session.ready;
const say = async text => {
    const writer = (await session.createUnidirectionalStream()).getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
};
document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    say(event.target[0].value);
    event.target.reset();
};
const datagrams = session.datagrams.writable.getWriter();
document.onpointermove = event => datagrams.write(new Uint8Array([event.clientX >> 3, event.clientY >> 3]));
const list = document.querySelector("ul"), reader = session.incomingUnidirectionalStreams.getReader();
for (let next; !(next = await reader.read()).done;) {
    const item = document.createElement("li");
    item.textContent = await new Response(next.value).text();
    list.append(item);
}
</script>"""

here: set[Session] = set()
"""Those that are open, of this worker."""


async def tell_all(stream: Stream) -> None:
    """What one says is one stream, and so is what each hears of it."""
    text = await stream.read_all()
    for session in tuple(here):
        try:
            other = await session.open_stream(bidirectional=False)
            await other.send(text, end=True)
        except OSError:
            # It has left meanwhile.
            pass


async def point(session: Session) -> None:
    async for data in session.datagrams():
        for other in here - {session}:
            await other.send_datagram(data)


async def chat(session: Session) -> None:
    here.add(session)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(point(session))
            async for stream in session.streams():
                tasks.create_task(tell_all(stream))
    finally:
        here.discard(session)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "webtransport":
        async with Session(scope, receive, send) as session:
            await chat(session)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
    else:
        raise NotImplementedError(scope["type"])
