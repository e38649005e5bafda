"""What the build has left in `dist`: two pages, and files whose names change with what they hold."""

from __future__ import annotations

import functools
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from argus_ray.gateway.files.open_bytes import OpenBytes

#: Of argus_ray/console, which holds no Python.
DIST = Path(__file__).parents[2] / "console" / "dist"
_PREFIX = "{{prefix}}"
#: What the build makes beside the names that it hashes.
_UNHASHED = "licences.txt"


class NotBuilt(Exception):
    """There is no build on this head."""


@dataclass(frozen=True)
class Asset:
    plain: OpenBytes
    gzipped: OpenBytes
    media_type: str
    #: The name changes with the content, so it may be kept for ever.
    is_immutable: bool


@dataclass(frozen=True)
class Build:
    pages: dict[str, str]
    assets: dict[str, Asset]

    def page(self, name: str, prefix: str) -> str:
        """`prefix`: of plain segments, as `outer_prefix` gives it, so nothing is to be escaped."""
        return self.pages[name].replace(_PREFIX, prefix)


def build(dist: Path = DIST) -> Build:
    """Read once in the life of this process: some 3 MB. Raises NotBuilt."""
    try:
        return _read(dist)
    except OSError as error:
        raise NotBuilt(f"{dist}: {error.strerror}") from None


@functools.lru_cache(maxsize=1)
def _read(dist: Path) -> Build:
    pages = {name: (dist / name).read_text() for name in ("index.html", "docs.html")}
    assets = {
        path.name: Asset(
            OpenBytes.of(path.read_bytes()),
            OpenBytes.of(path.with_name(f"{path.name}.gz").read_bytes()),
            _media_type(path.name),
            path.name != _UNHASHED,
        )
        for path in (dist / "assets").iterdir()
        if path.suffix != ".gz"
    }
    return Build(pages, assets)


def _media_type(name: str) -> str:
    # Not the machine's own table, which may say text/plain of a script: a browser then refuses it.
    found = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}
    kind = found.get(Path(name).suffix) or mimetypes.types_map.get(Path(name).suffix, "application/octet-stream")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
