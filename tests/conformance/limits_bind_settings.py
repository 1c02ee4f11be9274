"""Settings that a bind has for its connections in place of the server's, over every wire."""

from typing import Any

from tests.conformance.wires import Wire, answer, read_body


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, repr((scope["root_path"], len(await read_body(receive)))).encode())


def test_limits_of_a_request_are_those_of_its_bind(wire: Wire) -> None:
    server = wire.start(app, options="max_request_size=1KiB&max_header_size=2KiB&max_headers=20", max_request_size=10)
    assert server.request("POST", "/", body=b"x" * 1024).body == b"('', 1024)"
    assert server.request("POST", "/", body=b"x" * 1025).status == 413
    assert server.request("GET", "/", [(b"x-long", b"x" * 4000)]).status == 431
    assert server.request("GET", "/", [(b"x-%d" % number, b"") for number in range(25)]).status == 431


def test_application_is_mounted_where_its_bind_says(wire: Wire) -> None:
    server = wire.start(app, options="root_path=/bind", root_path="/server")
    assert server.request("GET", "/").body == b"('/bind', 0)"


def test_root_path_of_a_bind_stands_behind_the_prefix_of_a_proxy(wire: Wire) -> None:
    trusted = "unix" if wire.case.unix else "127.0.0.1"
    server = wire.start(app, options=f"root_path=/bind&trusted_hosts={trusted}", forwarded_prefix=True)
    assert server.request("GET", "/", [(b"x-forwarded-prefix", b"/proxy")]).body == b"('/proxy/bind', 0)"
