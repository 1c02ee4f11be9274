"""How the tests run a proxy."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0


@contextmanager
def running(command: list[str], listening: socket.socket, **environment: str) -> Iterator[int]:
    """A proxy that takes a listening socket over: nobody has to guess when it is there. Its port."""
    process = subprocess.Popen(
        command,
        pass_fds=[listening.fileno()],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield listening.getsockname()[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def running_nginx(folder: Path, listening: socket.socket, site: str) -> Iterator[int]:
    """nginx with the `site` of its block `http`, which listens where `listening` does. Its port."""
    user = "user root;" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(f"""
        daemon off; worker_processes 1; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            {site}
        }}
    """)
    # As at an upgrade of nginx itself: it finds the sockets that it is to listen on in its environment.
    command = ["nginx", "-p", str(folder), "-c", str(path)]
    with running(command, listening, NGINX=f"{listening.fileno()};"):
        yield listening.getsockname()[1]


@contextmanager
def running_caddy(folder: Path, address: tuple[str, int], sites: str, options: str = "") -> Iterator[int]:
    """Caddy with these `sites`, one of which listens at `address`, and further global `options`. Its port."""
    path, log = folder / "Caddyfile", folder / "caddy.log"
    path.write_text(f"{{\nadmin off\nauto_https off\nstorage file_system {folder}\n{options}\n}}\n{sites}")
    with log.open("wb") as written:
        process = subprocess.Popen(
            ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"],
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdout=written,
            stderr=written,
        )
    try:
        # It takes over no sockets, so that somebody has to look when it is there.
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(address, PATIENCE).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and process.poll() is None, log.read_text()
                time.sleep(0.02)
        yield address[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)
