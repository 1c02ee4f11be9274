"""Media types by the end of a name; the same on every machine, whatever its own tables say."""

import mimetypes
from collections.abc import Mapping

__all__ = ["content_type"]

MORE = {
    ".avif": "image/avif",
    ".cjs": "text/javascript",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".ico": "image/x-icon",
    ".jsonld": "application/ld+json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}
CODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": "application/octet-stream",
}
"""A file that is asked for by its own name is not decoded on the way: it is of this type."""

_table = mimetypes.MimeTypes()


def content_type(name: str, extra: Mapping[str, str]) -> str:
    """The media type of a file; `extra` is asked first, by the ending with its dot. Text is said to be UTF-8."""
    dot = name.rfind(".")
    ending = name[dot:].lower() if dot > 0 else ""
    found = extra.get(ending) or MORE.get(ending)
    if found is None:
        found, coding = _table.guess_type("file" + ending if ending else "file")
        if coding is not None:
            found = CODED.get(coding)
    if found is None:
        return "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") and "charset" not in found else found
