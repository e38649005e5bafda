"""Downloads that go on where they were broken off."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import httpx2

from argus_ray.client.broken import Broken
from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import BadAnswer, BadArgument, RangeNotSatisfiable, TryLater
from argus_ray.client.transport import Transport


def file_name(path: str) -> str:
    """What a file of this path (percent-encoded) is called here. Raises BadArgument."""
    name = unquote(path.rpartition("/")[2])
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise BadArgument(f"no file can be named like {path!r}")
    return name


def download_file(
    transport: Transport,
    call: Call[Answer],
    to: Path,
    *,
    on_progress: Callable[[int, int], None] | None,
    patience_s: float,
) -> Path:
    """As `Client.download`, to the file `to`."""
    patience = transport.patience(patience_s)
    download = _Download(to, on_progress, patience.renew)
    try:
        while True:
            broken: Broken | None = None
            later: TryLater | None = None
            try:
                if download.go_on(transport, call):
                    return to
                continue
            except Broken as found:
                broken = found
            except TryLater as error:
                later = error
            if later is not None:
                transport.pause_for(patience, later)
            elif broken is not None:
                transport.pause(patience, broken, what=repr(call))
    finally:
        download.close()


class _Download:
    """One file here. What has come of it lies beside it, under a name that tells its version, until it is whole."""

    def __init__(self, to: Path, on_progress: Callable[[int, int], None] | None, renew: Callable[[], None]) -> None:
        self._to, self._on_progress, self._renew = to, on_progress, renew
        self._tag = ""
        self._part: Path | None = None
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def go_on(self, transport: Transport, call: Call[Answer]) -> bool:
        """One answer. Whether the file is whole now; False: ask again. Raises Broken, ApiError, BadAnswer, OSError."""
        have = 0 if self._file is None else self._file.seek(0, os.SEEK_END)
        headers = dict(call.headers)
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._tag}
        try:
            with transport.opened(replace(call, headers=headers)) as response:
                tag = response.headers.get("etag", "")
                if tag != self._tag or self._file is None:
                    if self._begin(tag):
                        return False  # some of it is here already
                    have = 0
                return self._take(response, have if response.status_code == 206 else 0)
        except RangeNotSatisfiable as error:
            size = error.size
        if size == have:  # only the last step was missing
            return self._end()
        self._opened().truncate(0)
        return False

    def _begin(self, tag: str) -> bool:
        """For this version of the file. Whether some of it is here."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        self.close()
        version = hashlib.sha256(tag.encode()).hexdigest()[:12]
        self._part = self._to.with_name(f".{self._to.name[:200]}.{version}.part")
        self._tag, self._file = tag, _open(self._part)
        if not tag:
            self._file.truncate(0)  # nothing tells whether it is the same
        return self._file.seek(0, os.SEEK_END) > 0

    def _take(self, response: httpx2.Response, have: int) -> bool:
        file = self._opened()
        if have and _start_of(response.headers.get("content-range", "")) != have:
            raise BadAnswer("the answer begins elsewhere than it was asked to")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadAnswer("something on the way has packed the file")
        file.truncate(have)
        file.seek(have)
        total = have + int(response.headers.get("content-length", "0"))
        for chunk in response.iter_bytes():
            file.write(chunk)
            have += len(chunk)
            self._renew()
            if self._on_progress is not None:
                self._on_progress(have, total)
        file.flush()
        if have != total:
            raise Broken("the answer broke off")
        return self._end()

    def _end(self) -> bool:
        if self._part is not None:
            self._part.replace(self._to)
        return True

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise BadAnswer("the server answers a range that nobody has asked for")
        return self._file


def _start_of(content_range: str) -> int | None:
    """`bytes 100-199/200` -> 100."""
    start = content_range.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else None


def _open(part: Path) -> IO[bytes]:
    """Raises BadArgument if another process writes it."""
    # A link that somebody has put there is not followed.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(part, flags, 0o666), "r+b")
    if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid():
        file.close()
        raise BadArgument(f"{part} is somebody else's file")
    with contextlib.suppress(ImportError):  # on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BadArgument(f"another process downloads the same file to {part.parent}") from None
        except OSError:
            pass  # a filesystem without locks
    return file
