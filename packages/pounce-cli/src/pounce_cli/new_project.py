"""`pounce init NAME`: the folder of an application that works, with a test, to begin with."""

import re
from pathlib import Path

from pounce.errors import ConfigError

__all__ = ["init_project"]

MAIN = '''\
"""An application: what pounce calls for every request. FastAPI, Django and other frameworks make one too."""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    found = scope["path"] == "/"
    body = b"Hello, World!\\n" if found else b"There is nothing here.\\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''
TEST = '''\
"""The application behind a real server: the fixture pounce_server comes with pounce."""

from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from main import app


def test_it_greets(pounce_server: Any) -> None:
    with urlopen(pounce_server(app).url) as answer:
        assert answer.read() == b"Hello, World!\\n"


def test_it_says_what_it_does_not_have(pounce_server: Any) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(pounce_server(app).url + "/nothing")
    assert refused.value.code == 404
    refused.value.close()
'''
SETTINGS = """\
# What pounce serve does here. All settings, and where each comes from: pounce config show
app = "main:app"

# Event loops, each on a core of its own; 0 takes as many as there are CPUs to use.
workers = 1

# Answer /livez and /readyz, as orchestrators and load balancers ask.
probes = true

# Bodies of requests.
max_request_size = 1_048_576

# Proxies in front that are believed when they say who the client is.
# trusted_hosts = ["10.0.0.0/8"]

# ssl_certfile = "cert.pem"
# ssl_keyfile = "key.pem"
"""
IGNORED = """\
__pycache__/
*.pyc
.venv/
.pytest_cache/
"""
DOCKERFILE = """\
# An image of one application: main.py (or a package), pounce.toml and requirements.txt beside this file, which names
# pounce-cli[all] and what the application needs. `pounce init --docker` writes such a folder.
#
#   docker build -t shop . && docker run --rm -p 8000:8000 shop
FROM python:3.14-slim AS build
# Everything is compiled here, Python's own library too, since the user that runs it can write nothing.
ENV UV_LINK_MODE=copy UV_PYTHON_INSTALL_DIR=/opt/python UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir 'uv>=0.9,<1' && uv python install 3.14t
WORKDIR /srv/app
COPY requirements.txt ./
RUN uv venv --python 3.14t && uv pip install --no-cache -r requirements.txt
COPY . ./
RUN .venv/bin/python -m compileall -q . -x '\\.venv' && rm -f Dockerfile && chmod -R a+rX,go-w /opt/python .

FROM debian:13-slim
# The same folders as above: an environment names its interpreter by path.
COPY --from=build /opt/python /opt/python
COPY --from=build /srv/app /srv/app
# What the application asks over TLS is checked by these.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app
USER 10001
WORKDIR /srv/app
ENV PATH=/srv/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_RUNTIME_DIR=/tmp POUNCE_HOST=0.0.0.0 \\
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8000/tcp 8000/udp
# `status` asks the server over its control socket: no port, no credentials, and it fails while nothing serves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["pounce", "status"]
STOPSIGNAL SIGTERM
# No shell between: the server is process 1, gets the signals, and waits for orphans.
ENTRYPOINT ["pounce"]
CMD ["serve", "--workers", "0"]
"""
"""That of deploy/docker in the repository."""
DOCKERIGNORE = """\
.git
.venv
**/__pycache__
*.pem
.env
"""
REQUIREMENTS = """\
pounce-cli[all]
"""


def init_project(name: str, folder: Path, *, docker: bool) -> list[Path]:
    """Make an application in the folder `name` of `folder`, `.` for that itself; return what was written.

    Raises `ConfigError` where one of the files is there already; nothing is written then.
    """
    if not re.fullmatch(r"\.|[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"{name!r} is no name for a folder here", hint="For example: pounce init hello, or a dot.")
    root = folder / name
    files = {"main.py": MAIN, "test_main.py": TEST, "pounce.toml": SETTINGS, ".gitignore": IGNORED}
    if docker:
        files |= {"Dockerfile": DOCKERFILE, ".dockerignore": DOCKERIGNORE, "requirements.txt": REQUIREMENTS}
    if there := [place for place in files if (root / place).exists()]:
        raise ConfigError(
            f"{', '.join(there)} in {root} would be written over", hint="Choose another name, or take them away."
        )
    root.mkdir(parents=True, exist_ok=True)
    for place, text in files.items():
        (root / place).write_text(text, encoding="utf-8")
    return [root / place for place in files]
