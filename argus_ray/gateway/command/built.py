"""The file argus.pyz as it was built: read once in the life of this process, by one thread, whoever asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway import apart
from argus_ray.gateway.files.open_bytes import OpenBytes
from argus_ray.gateway.http.from_disk import from_disk
from argus_ray.gateway.http.problems import RouteNotFound

#: Seconds.
_READ_S = 15.0


class BuiltCommand:
    """It belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = BoundedThreads("argus-command", 1)
        self._found: OpenBytes | None = None
        self._reading: asyncio.Task[OpenBytes | None] | None = None

    async def get(self, file: Path) -> OpenBytes:
        """Raises RouteNotFound if it was not made, and Unavailable if the disk does not answer."""
        if self._found is None:
            if self._reading is None or self._reading.done():
                self._reading = apart.begin(lambda: from_disk(self._threads, lambda: _read(file), _READ_S), "argus-pyz")
            self._found = await asyncio.shield(self._reading)
        if self._found is None:
            raise RouteNotFound("argus.pyz was not made on this head: run scripts/setup there, or scripts/make-pyz.")
        return self._found


def _read(file: Path) -> OpenBytes | None:
    try:
        return OpenBytes.of(file.read_bytes())
    except OSError:
        return None
