"""The server's own middleware as plugins: what is switched off is not imported."""

from typing import cast

from pounce.contract.pieces import API_VERSION, MiddlewareChoice, Plugin
from pounce.contract.wire import ASGIApp, Service

__all__ = ["compression", "gates", "static_files"]


def _compression(service: Service, app: ASGIApp) -> ASGIApp | None:
    config = service.config
    if not config.compression:
        return None
    from pounce.middleware.compression import TYPES, Compression

    return Compression(
        app,
        min_size=config.compression_min_size,
        zstd_level=config.compression_zstd_level or None,
        br_level=config.compression_br_level or None,
        gzip_level=config.compression_gzip_level or None,
        types=config.compression_types or TYPES,
        event_streams=config.compression_event_streams,
        dictionaries=config.compression_dictionaries,
    )


def _static_files(service: Service, app: ASGIApp) -> ASGIApp | None:
    config = service.config
    if not config.static_files:
        return None
    from pounce.middleware.static import StaticFiles, StaticMount
    from pounce.middleware.static.mounts import HASHED

    mounts = [
        StaticMount(
            path,
            directory,
            cache_control=config.static_cache_control,
            precompressed=config.static_precompressed,
            follow_symlinks=config.static_follow_symlinks,
            index_file=config.static_index_file or None,
            fallback=config.static_fallback,
            immutable=HASHED if config.static_immutable == "hashed" else config.static_immutable,
        )
        for path, directory in config.static_files.items()
    ]
    return cast(ASGIApp, StaticFiles(app, mounts=mounts, sends_files=True))


def _allowed_hosts(service: Service, app: ASGIApp) -> ASGIApp | None:
    if not service.config.server_names:
        return None
    from pounce.middleware.hosts import AllowedHosts

    return AllowedHosts(app, names=service.config.server_names)


def _https_redirect(service: Service, app: ASGIApp) -> ASGIApp | None:
    config = service.config
    if config.https_redirect:
        from pounce.middleware.https_redirect import HTTPSRedirect

        return HTTPSRedirect(app, port=config.https_redirect_port, hsts=config.hsts)
    if config.hsts:
        from pounce.middleware.https_redirect import hsts_around

        return hsts_around(app, config.hsts)
    return None


gates = Plugin(
    name="gates",
    api=API_VERSION,
    middleware=(
        MiddlewareChoice(name="server_names", create=_allowed_hosts, where="outer"),
        MiddlewareChoice(name="https_redirect", create=_https_redirect, where="outer"),
    ),
)
compression = Plugin(
    name="compression",
    api=API_VERSION,
    middleware=(MiddlewareChoice(name="compression", create=_compression, where="encoding"),),
)
static_files = Plugin(
    name="static_files",
    api=API_VERSION,
    middleware=(MiddlewareChoice(name="static_files", create=_static_files, where="content"),),
)
