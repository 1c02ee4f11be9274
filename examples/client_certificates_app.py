r"""Clients that show a certificate: who they are stands in the scope (the TLS extension of ASGI).

    pounce serve client_certificates_app:app --ssl-certfile cert.pem --ssl-keyfile key.pem \
        --ssl-ca-certs clients.pem --ssl-cert-reqs required
    curl --cacert cert.pem --cert client.pem --key client-key.pem https://localhost:8000/
"""

import json


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    tls = scope["extensions"].get("tls") or {}
    shown = {
        "client": tls.get("client_cert_name"),
        "error": tls.get("client_cert_error"),
        "certificates": len(tls.get("client_cert_chain") or ()),
    }
    status = 200 if shown["client"] else 403
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(shown).encode()})
