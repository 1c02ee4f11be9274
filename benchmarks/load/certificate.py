"""A certificate for this machine, made anew for each run: P-256, as browsers and servers use today."""

from pathlib import Path

from pounce.net.self_signed import create


def certificate_files(folder: Path) -> tuple[Path, Path]:
    """Certificate and key as PEM files in `folder`."""
    paths = folder / "certificate.pem", folder / "key.pem"
    for path, content in zip(paths, create(), strict=True):
        path.write_bytes(content)
    return paths
