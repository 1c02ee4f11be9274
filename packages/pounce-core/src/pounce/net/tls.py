"""TLS: the contexts that connections are made with, by name and by the files they come from, and what applications are
told of a connection.

A context is never changed once it is in use. When a certificate is renewed a new one takes its place, for connections
that begin from then on: those that are open keep theirs, and session tickets of the old one are worth nothing to the
new, so nobody resumes a session past a client CA that is not trusted any more.
"""

import errno
import logging
import os
import re
import ssl
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pounce.config import ServerConfig
from pounce.errors import ConfigError, TLSError

__all__ = ["ServerContext", "ServerTLS", "tls_extension", "with_certificate"]

log = logging.getLogger("pounce.net")

type Change = Callable[[ssl.SSLContext], object] | None

LOOK_INTERVAL = 5.0
"""Seconds between two looks at whether a file has changed; only new connections cause one."""

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_CERTIFICATES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def with_certificate(config: ServerConfig) -> ServerConfig:
    """The configuration with the files of a certificate for development, where it asks for one. Raises `TLSError`."""
    if not config.ssl_self_signed:
        return config
    import dataclasses

    from pounce.net.self_signed import self_signed_file

    path = str(self_signed_file())
    return dataclasses.replace(config, ssl_certfile=path, ssl_keyfile=path, ssl_self_signed=False)


class ServerContext(ssl.SSLContext):
    """A context for servers that knows its certificate."""

    certificate: str | None = None
    """The first of its chain, PEM, as applications see it."""


class ServerTLS:
    """The TLS of a server: a context for new connections, made anew when its files change; one for each list of ALPN
    ids that binds offer.

    May be used from any thread.
    """

    def __init__(
        self,
        config: ServerConfig,
        alpn: Iterable[str],
        more: Iterable[tuple[str, ...]] = (),
        change: Change = None,
    ) -> None:
        """`alpn` is in order of preference, `more` what single binds offer in its place. `change` is given each context
        before it is used. Raises `TLSError` when a file or a setting cannot be used."""
        self._config = config
        self._change = change
        self._alpn = tuple(alpn)
        self._offers = dict.fromkeys((self._alpn, *more))
        self._files = _files(config)
        self._lock = threading.Lock()
        """Held by the one who reads the files; protects the stamps."""
        self._stamps = _stamps(self._files)
        self._contexts = self._create()
        self._next_look = 0.0
        if config.ssl_keylog is not None:
            log.warning("The secrets of all TLS connections are written to %s", config.ssl_keylog)

    def _create(self) -> dict[tuple[str, ...], ServerContext]:
        return {alpn: _create(self._config, alpn, self._change) for alpn in self._offers}

    def context(self, now: float, alpn: tuple[str, ...] | None = None) -> ServerContext:
        """The context for a connection that begins at `now`, in seconds of the loop's clock, with what its bind offers.

        Every few seconds it is looked whether a file has changed, unless `ssl_reload` is off.
        """
        if self._config.ssl_reload and now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            self.look()
        return self._contexts[self._alpn if alpn is None else alpn]

    def password(self) -> str | None:
        """Of the private keys: the setting, or the first line of its file. Raises `TLSError`."""
        return _password(self._config)

    def files(self) -> dict[str, tuple[str, str]]:
        """Files of certificate and key by the name that clients ask for; `""` for those that ask for none of them."""
        return certificate_files(self._config)

    @staticmethod
    def choose[T](by_name: Mapping[str, T], name: str | None) -> T | None:
        """What belongs to the name that a client asks for: to the name itself, or to `*` in front of its domain."""
        if not name:
            return None
        name = name.lower()
        return by_name.get(name) or by_name.get("*." + name.partition(".")[2])

    def look(self) -> None:
        """Read the files if one of them has changed. What cannot be used is an error in the log, once."""
        if self._lock.acquire(blocking=False):
            try:
                stamps = _stamps(self._files)
                if stamps != self._stamps:
                    self._read(stamps)
            finally:
                self._lock.release()

    def reload(self) -> bool:
        """Read all files again. False, and an error in the log, when they cannot be used: the old ones stay then."""
        with self._lock:
            return self._read(_stamps(self._files))

    def _read(self, stamps: list[object]) -> bool:
        # Taken before reading: what changes meanwhile is seen by the next look.
        self._stamps = stamps
        try:
            self._contexts = self._create()
        except TLSError as exc:
            log.error("TLS goes on with the old certificates, as the new ones cannot be used: %s", exc.message)
            return False
        log.info("TLS certificates were read again")
        return True


def certificate_files(config: ServerConfig) -> dict[str, tuple[str, str]]:
    """Files of certificate and key that a configuration names, by the name that clients ask for; `""` for those that
    ask for none of them. Raises `ConfigError`."""
    single = {} if config.ssl_certfile is None else {"": (config.ssl_certfile, config.ssl_keyfile or "")}
    return single | _by_name(config)


def _files(config: ServerConfig) -> list[str]:
    by_name = [path for pair in _by_name(config).values() for path in pair]
    single = (
        config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password_file, config.ssl_ca_certs, config.ssl_crl,
    )  # fmt: skip
    return [path for path in (*single, *by_name) if path is not None]


def _stamps(files: list[str]) -> list[object]:
    """What changes when a file does, or what a link leads to."""
    stamps: list[object] = []
    for path in files:
        try:
            status = os.stat(path)
            stamps.append((status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino))
        except OSError as exc:
            stamps.append(exc.errno)
    return stamps


def _by_name(config: ServerConfig) -> dict[str, tuple[str, str]]:
    """Certificate and key by the name that clients ask for. Raises `ConfigError`."""
    found: dict[str, tuple[str, str]] = {}
    for text in config.ssl_sni:
        match = re.fullmatch(r"((?:\*\.)?[a-zA-Z0-9_.-]+)=([^:]+)(?::([^:]+))?", text)
        if match is None:
            raise ConfigError(
                f"ssl_sni must be name=certfile:keyfile (got {text!r})",
                hint="For example example.org=/etc/tls/org.pem:/etc/tls/org.key; without a key it is in the same file.",
            )
        name = match[1].lower()
        if name in found:
            raise ConfigError(f"ssl_sni has two certificates for {name}")
        found[name] = (match[2], match[3] or match[2])
    return found


def _create(config: ServerConfig, alpn: tuple[str, ...], change: Change) -> ServerContext:
    assert config.ssl_certfile is not None
    assert config.ssl_keyfile is not None
    password = _password(config)
    context = _create_one(config, alpn, config.ssl_certfile, config.ssl_keyfile, password)
    others = {
        name: _create_one(config, alpn, certfile, keyfile, password)
        for name, (certfile, keyfile) in _by_name(config).items()
    }
    if change is not None:
        for each in (context, *others.values()):
            change(each)
        if any(_rules_for_clients(each) != _rules_for_clients(context) for each in others.values()):
            raise TLSError(
                "ssl_context gives names of ssl_sni other rules for certificates of clients",
                code="POUNCE_TLS_CLIENT_RULES",
                hint="A session could be resumed under the name with less strict ones (RFC 6066 3): use two binds.",
            )
    if others:
        context.sni_callback = lambda ssl_object, name, _: _choose(others, ssl_object, name)
    return context


def _rules_for_clients(context: ssl.SSLContext) -> object:
    return context.verify_mode, context.verify_flags, sorted(context.get_ca_certs(binary_form=True))


def _choose(others: Mapping[str, ServerContext], ssl_object: ssl.SSLObject, name: str | None) -> None:
    """Give a connection the certificate of the name it asks for; the first one where there is none."""
    found = ServerTLS.choose(others, name)
    if found is not None:
        ssl_object.context = found


def _create_one(
    config: ServerConfig, alpn: tuple[str, ...], certfile: str, keyfile: str, password: str | None
) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MINIMUM[config.ssl_minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # Clients that end without close_notify are many; HTTP's own framing says whether a message is whole.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    try:
        context.set_ciphers(config.ssl_ciphers)
    except ssl.SSLError as exc:
        raise TLSError(
            f"ssl_ciphers selects nothing (got {config.ssl_ciphers!r})",
            code="POUNCE_TLS_CIPHERS",
            hint="It is a list as `openssl ciphers` takes it, for TLS 1.2.",
        ) from exc
    _choose_key_exchange(context, config)
    context.num_tickets = config.ssl_session_tickets
    if not config.ssl_session_tickets:
        context.options |= ssl.OP_NO_TICKET
    context.certificate = _load_certificate(context, certfile, keyfile, password)
    if config.ssl_ca_certs is not None:
        context.verify_mode = _CLIENT_CERTIFICATES[config.ssl_cert_reqs]
        _trust(context, config.ssl_ca_certs, config.ssl_crl)
    if config.ssl_keylog is not None:
        try:
            _make_private(config.ssl_keylog)
            context.keylog_filename = config.ssl_keylog
        except OSError as exc:
            raise TLSError(
                f"ssl_keylog cannot be written to {config.ssl_keylog}: {exc.strerror or exc}",
                hint="It must be a file of the user that runs the server, or be none yet.",
            ) from exc
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _choose_key_exchange(context: ssl.SSLContext, config: ServerConfig) -> None:
    """Groups and the suites of TLS 1.3, as far as this Python can set them. Raises `TLSError`."""
    for name, method in (("ssl_groups", "set_groups"), ("ssl_ciphersuites", "set_ciphersuites")):
        text: str | None = getattr(config, name)
        if text is None:
            continue
        choose = getattr(context, method, None)
        if choose is None and name == "ssl_groups" and ":" not in text:
            # One is what Python before 3.15 can name, the curves by OpenSSL's own names.
            choose = context.set_ecdh_curve
        if choose is None:
            raise TLSError(
                f"{name} needs Python 3.15 (got {text!r})",
                code="POUNCE_TLS_NOT_IN_THIS_PYTHON",
                hint="The ssl module of older ones sets a single group, and no suites of TLS 1.3.",
            )
        try:
            choose(text)
        except (ssl.SSLError, ValueError) as exc:
            raise TLSError(f"{name} is not known to OpenSSL (got {text!r})", hint="Names are OpenSSL's.") from exc


def _make_private(path: str) -> None:
    """Let `path` be a regular file that its owner, this user, alone can read, made here if there is none.

    OpenSSL would make it by the umask, and write to what a link in its place leads to. Raises `OSError`.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user")
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _password(config: ServerConfig) -> str | None:
    if config.ssl_keyfile_password_file is None:
        return config.ssl_keyfile_password
    return _text("ssl_keyfile_password_file", config.ssl_keyfile_password_file).partition("\n")[0].rstrip("\r")


def _load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str, password: str | None) -> str | None:
    """Load certificate and key, and return the first certificate of the chain. Raises `TLSError`."""
    chain, key = _text("certificate", certfile), _text("private key", keyfile)

    def ask() -> str:
        # Without this OpenSSL asks on the terminal, and a server would hang there.
        if password is None:
            raise TLSError(
                f"the private key {keyfile} is encrypted",
                code="POUNCE_TLS_KEY_PASSWORD",
                hint="Give ssl_keyfile_password_file or ssl_keyfile_password.",
            )
        return password

    try:
        context.load_cert_chain(certfile, keyfile, ask)
    except (OSError, ValueError) as exc:
        raise _unusable(exc, certfile, chain, keyfile, key) from exc
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = chain.find(begin), chain.find(end)
    return chain[start : stop + len(end)] + "\n" if 0 <= start < stop else None


def _unusable(exc: OSError | ValueError, certfile: str, chain: str, keyfile: str, key: str) -> TLSError:
    """Why OpenSSL did not take certificate and key: it seldom says so itself."""
    reason = getattr(exc, "reason", None) or str(exc)
    if reason == "KEY_VALUES_MISMATCH":
        return TLSError(
            f"the private key {keyfile} does not belong to the certificate {certfile}",
            code="POUNCE_TLS_KEY_MISMATCH",
            hint="The first certificate in the file must be the server's own, before those that signed it.",
        )
    if "CERTIFICATE-----" not in chain:
        return TLSError(f"{certfile} holds no certificate in PEM", hint="Convert it with openssl x509 -inform DER.")
    if "PRIVATE KEY-----" not in key:
        return TLSError(f"{keyfile} holds no private key in PEM", hint="Convert it with openssl pkey -inform DER.")
    if "ENCRYPTED" in key:
        return TLSError(
            f"the private key {keyfile} cannot be opened with the password that was given",
            code="POUNCE_TLS_KEY_PASSWORD",
            hint="Check ssl_keyfile_password_file or ssl_keyfile_password.",
        )
    return TLSError(
        f"certificate {certfile} or private key {keyfile} cannot be used: {reason}",
        hint="Both must be PEM, and not cut off.",
    )


def _trust(context: ssl.SSLContext, ca_certs: str, crl: str | None) -> None:
    """Accept client certificates of these authorities. Raises `TLSError`."""
    try:
        if os.path.isdir(ca_certs):
            context.load_verify_locations(capath=ca_certs)
        else:
            _text("ssl_ca_certs", ca_certs)
            context.load_verify_locations(cafile=ca_certs)
        if crl is not None:
            _text("ssl_crl", crl)
            context.load_verify_locations(cafile=crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, ValueError) as exc:
        raise TLSError(
            f"ssl_ca_certs or ssl_crl cannot be used: {getattr(exc, 'reason', None) or exc}",
            code="POUNCE_TLS_CLIENT_CA",
            hint="Both are PEM; ssl_ca_certs may be a folder as openssl rehash makes it.",
        ) from exc


def _text(what: str, path: str) -> str:
    """The content of a file, for a message that names it before OpenSSL does not. Raises `TLSError`."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as exc:
        raise _unreadable(what, path, exc) from exc


def _unreadable(what: str, path: str, exc: OSError) -> TLSError:
    if isinstance(exc, FileNotFoundError):
        return TLSError(
            f"TLS file not found: {path} ({what})", code="POUNCE_TLS_CERT_FILE_NOT_FOUND", hint="Check the path."
        )
    if isinstance(exc, PermissionError):
        return TLSError(
            f"TLS file {path} ({what}) cannot be read: permission denied",
            code="POUNCE_TLS_CERT_PERMISSION_DENIED",
            hint="The user that runs the server must be able to read it.",
        )
    return TLSError(f"TLS file {path} ({what}) cannot be read: {exc.strerror or exc}", hint="Check the path.")


def tls_extension(ssl_object: ssl.SSLObject) -> dict[str, object]:
    """The ASGI `tls` extension, version 0.2, for one connection."""
    cipher = ssl_object.cipher()
    peer = ssl_object.getpeercert(binary_form=True)
    # A resumed session has the client's certificate without those that signed it.
    chain = (ssl_object.get_unverified_chain() or [peer]) if peer else []
    return {
        "server_cert": getattr(ssl_object.context, "certificate", None),
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate) for certificate in chain],
        "client_cert_name": distinguished_name(ssl_object.getpeercert() or {}) if peer else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(ssl_object.version() or ""),
        "cipher_suite": _cipher_id(ssl_object, cipher[0]) if cipher else None,
    }


_SHORT = {
    "commonName": "CN", "countryName": "C", "localityName": "L", "stateOrProvinceName": "ST", "streetAddress": "STREET",
    "organizationName": "O", "organizationalUnitName": "OU", "domainComponent": "DC", "userId": "UID",
}  # fmt: skip
"""RFC 4514 3."""


def distinguished_name(certificate: Mapping[str, Any]) -> str | None:
    """The subject of a certificate as `getpeercert()` has it, as RFC 4514 writes it: `CN=alice,O=Example`."""
    parts = (
        "+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(certificate.get("subject", ()))
    )
    return ",".join(parts) or None


def _escaped(value: str) -> str:
    """RFC 4514 2.4."""
    value = re.sub(r'[,+"\\<>;]', r"\\\g<0>", value).replace("\0", "\\00")
    if value[:1] in ("#", " "):
        value = "\\" + value
    return value[:-1] + "\\ " if value.endswith(" ") and len(value) > 2 else value


def _cipher_id(ssl_object: ssl.SSLObject, name: str) -> int | None:
    """The IANA number of the negotiated cipher suite."""
    for entry in ssl_object.context.get_ciphers():
        if entry["name"] == name:
            return int(entry["id"]) & 0xFFFF
    return None
