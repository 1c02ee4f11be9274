"""Static files, as a middleware or an application, under any ASGI server."""

from pounce.middleware.static.app import StaticFiles, create_static_handler, no_application
from pounce.middleware.static.mounts import StaticMount

__all__ = ["StaticFiles", "StaticMount", "create_static_handler", "no_application"]
