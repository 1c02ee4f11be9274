"""Of proxies in front, and of what the server does to answers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pounce.options import option
from pounce.settings.types import ForwardedFamily

__all__ = ["AnswerSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class AnswerSettings:
    """Of proxies in front, and of what the server does to answers."""

    # Behind proxies
    proxy_headers: bool = option(
        True,
        "Judge the fields by which proxies say whom they speak for: believe those of trusted_hosts, take away others.",
        group="proxies",
    )
    trusted_hosts: tuple[str, ...] = option(
        (),
        "Proxies that are believed: addresses, networks, unix for peers of Unix sockets, * for all. May be repeated.",
        group="proxies",
        also=("forwarded_allow_ips",),
    )
    trusted_hosts_wildcard: bool = option(
        False,
        "Whether trusted_hosts has *: follows from it, whatever is given.",
        group="proxies",
        flag=False,
    )
    forwarded_for_trusted_hops: int = option(
        1, "Proxies in front, counted from here, whose addresses need not be known.", group="proxies", ge=1
    )
    forwarded_family: ForwardedFamily = option(
        "x-forwarded", "Which fields the proxies write: X-Forwarded-For and its kin, or Forwarded.", group="proxies"
    )
    forwarded_prefix: bool = option(
        False, "Put X-Forwarded-Prefix of a trusted proxy in front of root_path.", group="proxies"
    )
    trusted_keep_alive_timeout: float | None = option(
        None,
        "keep_alive_timeout of trusted proxies; none is 75 s, or keep_alive_timeout where that was changed.",
        group="proxies",
        unit="seconds",
        gt=0,
        per_bind=True,
    )
    request_id: bool = option(
        False, "Give every request an id, which its answer and its log line have.", group="proxies"
    )
    request_id_header: str = option(
        "x-request-id", "Field that has the id, in answers and from trusted proxies.", group="proxies"
    )
    request_id_generator: Any = option(
        None, "Function that makes the ids, or module:attribute.", group="proxies", flag=False
    )
    server_timing: bool = option(
        False, "Tell in the field Server-Timing how long reading, waiting and the application took.", group="proxies"
    )
    forwarded_real_ip: bool = option(
        False, "Take X-Real-IP of a trusted proxy where it sends no X-Forwarded-For.", group="proxies"
    )

    # Answers
    server_names: tuple[str, ...] = option(
        (),
        "Hosts that are answered for, others get 421: example.org, *.example.org; empty is all. May be repeated.",
        group="application",
    )
    headers: tuple[str, ...] = option(
        (),
        "Field of every answer that has none of this name, as Name:Value. May be repeated.",
        group="application",
        also=("header",),
    )
    https_redirect: bool = option(
        False, "Send requests over http on to https, but for those that renew certificates.", group="tls"
    )
    https_redirect_port: int = option(443, "Port that they are sent to.", group="tls", ge=1, le=65535)
    hsts: str = option(
        "", "Value of Strict-Transport-Security, for example max-age=31536000; empty sends none.", group="tls"
    )

    # Compression
    compression: bool = option(
        True,
        "Compress what shrinks by it, for clients that accept it: zstd, br (with brotlicffi), gzip.",
        group="compression",
    )
    compression_min_size: int = option(
        500, "Bytes from which a body is compressed.", group="compression", unit="bytes", ge=0
    )
    compression_types: str = option(
        "", "Regular expression for the media types to compress; empty is those that shrink.", group="compression"
    )
    compression_event_streams: bool = option(False, "Compress text/event-stream too.", group="compression")
    compression_zstd_level: int = option(3, "Level of zstd; 0 leaves it out.", group="compression", ge=0, le=22)
    compression_br_level: int = option(4, "Level of br; 0 leaves it out.", group="compression", ge=0, le=11)
    compression_gzip_level: int = option(6, "Level of gzip; 0 leaves it out.", group="compression", ge=0, le=9)
    compression_dictionaries: tuple[Any, ...] = option(
        (),
        "Dictionaries (RFC 9842), made by pounce.load_dictionary().",
        group="compression",
        flag=False,
    )

    # Static files
    static_files: Mapping[str, str] = option(
        dict,
        "Directories to serve files from, by the path they are under: /static=public. May be repeated.",
        group="static files",
        factory=True,
    )
    static_cache_control: str = option(
        "public, max-age=3600", "Cache-Control of static files; empty sends none.", group="static files"
    )
    static_precompressed: bool = option(
        True, "Send file.br, file.zst or file.gz in place of file to clients that take it.", group="static files"
    )
    static_follow_symlinks: bool = option(False, "Follow links that end inside of the directory.", group="static files")
    static_index_file: str | None = option(
        "index.html", "File that is served for a directory; none serves nothing there.", group="static files"
    )
    static_fallback: str | None = option(
        None, "File of the directory that browsers get for pages which nobody has.", group="static files"
    )
    static_immutable: str = option(
        "",
        "Regular expression for names of files that never change; hashed is that of names with a hash.",
        group="static files",
    )
