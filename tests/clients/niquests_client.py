"""A client with niquests. Reads a task from standard input, JSON, and writes what came of it to standard output.

`url`: the server.
"""

import hashlib
import json
import sys

import niquests

CONTENT = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(40_000))


def report(response):
    body = response.content
    return {
        "version": response.http_version,
        "status": response.status_code,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "text": body[:200].decode("latin-1"),
    }


def main():
    task = json.load(sys.stdin)
    early = []
    with niquests.Session() as session:
        # It takes no certificate that signs itself.
        session.verify = session.trust_env = False
        # The first request goes over TCP and is told of HTTP/3 by Alt-Svc.
        first = report(session.get(task["url"] + "/hello"))
        hooks = {"early_response": [lambda response: early.append(response.status_code)]}
        answers = [
            report(session.get(task["url"] + "/hello")),
            report(session.post(task["url"] + "/echo", data=CONTENT)),
            report(session.get(task["url"] + "/large")),
            report(session.get(task["url"] + "/hints", hooks=hooks)),
        ]
    json.dump({"first": first, "answers": answers, "early": early}, sys.stdout)


main()
