"""The driver log as it lies on the disk: with a bound, and without any byte being moved."""

from __future__ import annotations

import collections
import contextlib
import errno
import math
import os
import time
from collections.abc import Callable

import argus_reserve  # type: ignore[import-not-found]

#: Of the log's second half; the oldest goes when the log has reached its bound.
PIECES = 8
#: Seconds that a line may lie in this machine's cache alone.
SHOW_S = 1.0
#: Bytes of driver.log for lines of our own.
_NOTES = 1024
_NEWLINE = ord("\n")
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Log:
    """At most `limit` bytes on the disk.

    `driver.log` takes the first half. What follows goes into pieces, `driver.log.<offset>`, of which the newest stay.
    The offset is that of the piece's first byte in all that was ever logged, so a place in the log stays what it is.
    `driver.log.<offset>-gap` tells what has gone. `cat driver.log*` shows all in order.
    """

    def __init__(
        self,
        open_logs: Callable[[], int],
        limit: int,
        complain: Callable[[OSError], None],
        reserve: argus_reserve.Reserve,
    ) -> None:
        """`reserve`: what must stay free on the disk, for others."""
        self._open_logs, self._limit, self._complain, self._reserve = open_logs, limit, complain, reserve
        self._folder: int | None = None
        self._file: int | None = None
        #: Of the next byte, in all that was ever logged.
        self._offset = 0
        #: Where driver.log ends; None: it has room yet.
        self._head_end: int | None = None
        #: Bytes that the open file takes yet.
        self._room = limit // 2 - _NOTES
        self._is_new_file = True
        self._pieces: collections.deque[int] = collections.deque()
        self._at_line_start = True
        self._lost = 0
        self._why = ""
        self._has_complained = False
        self._is_shown = True
        self._shown_at = -math.inf
        self.write(b"")

    def write(self, data: bytes) -> None:
        """A disk that is full, or gone, ends no run: what it did not take is counted, and said when it takes more."""
        self._rest = memoryview(data)
        try:
            if self._folder is None:
                self._folder = self._open_logs()
            if self._file is None:
                self._file = self._open("driver.log")
            if self._reserve.is_low(len(data)):
                raise OSError(errno.ENOSPC, f"less than {self._reserve.reserve} bytes are free there")
            if self._lost:
                self._append(self._line(f"{self._lost} bytes of the log are missing here ({self._why})"))
                self._lost = 0
            while self._rest:
                if size := self._fitting():
                    part, self._rest = self._rest[:size], self._rest[size:]
                    self._append(part)
                else:
                    self._next_piece()
        except OSError as error:
            self._lost += len(self._rest)
            self._why = error.strerror or str(error)
            self._trouble(error)

    def end(self) -> None:
        """Say what is missing, if that can be said by now, and show the rest."""
        if self._lost:
            self.write(b"")
        self._show()

    @property
    def show_at(self) -> float:
        """When `show` is due, of the monotonic clock; infinite while there is nothing to show."""
        return math.inf if self._is_shown else self._shown_at + SHOW_S

    def show(self) -> None:
        """Once a second: let readers on other machines see what was written. An NFS client keeps it for up to 30 s
        otherwise; what it promises is that a closed file is on the server. A local filesystem does nothing here."""
        if time.monotonic() >= self.show_at:
            self._show()

    def _show(self) -> None:
        if self._is_shown or self._file is None:
            return
        # The close of any descriptor of a file writes it out; and unlike fdatasync asks no disk to empty its cache.
        try:
            os.close(os.dup(self._file))
        except OSError as error:
            self._trouble(error)
        self._is_shown, self._shown_at = True, time.monotonic()

    def _trouble(self, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            self._complain(error)

    def _fitting(self) -> int:
        """How many of the next bytes the open file takes: whole lines, but for one that is longer than a piece."""
        room = max(0, self._room)
        if len(self._rest) <= room:
            return len(self._rest)
        if end := bytes(self._rest[:room]).rfind(b"\n") + 1:
            return end
        return room if self._is_new_file or not self._at_line_start else 0

    def _append(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        assert self._file is not None
        while view:
            try:
                size = os.write(self._file, view)
            except OSError:
                self._lost += len(view)
                raise
            self._at_line_start = view[size - 1] == _NEWLINE
            self._is_new_file = self._is_shown = False
            self._offset += size
            self._room -= size
            view = view[size:]

    def _line(self, message: str) -> bytes:
        return (b"" if self._at_line_start else b"\n") + f"argus-runner: {message}\n".encode()

    def _next_piece(self) -> None:
        if self._head_end is None:
            self._append(
                self._line(
                    f"here ends the first half of what the log may hold (limits.log_bytes: {self._limit}). It goes on "
                    f"in driver.log.*, of which the newest {self._limit // 2} bytes stay"
                )
            )
            self._head_end = self._offset
        new = self._open(_piece(self._offset))
        old, self._file = self._file, new
        self._room, self._is_new_file = max(1, self._limit // 2 // PIECES), True
        self._pieces.append(self._offset)
        # After that: a close may fail on a network filesystem that is full, and the descriptor is gone all the same.
        try:
            os.close(old)  # type: ignore[arg-type]
        except OSError as error:
            self._trouble(error)
        if len(self._pieces) > PIECES:
            with contextlib.suppress(OSError):
                os.unlink(_piece(self._pieces.popleft()), dir_fd=self._folder)
                self._tell_gap(self._pieces[0] - self._head_end)

    def _tell_gap(self, size: int) -> None:
        """In a file of its own, since it grows: between the two parts in the order of their names."""
        assert self._head_end is not None
        temporary = f".gap.{os.urandom(8).hex()}"
        fd = self._open(temporary)
        try:
            write_all(fd, f"argus-runner: {size} bytes of the log are left out here\n".encode())
        finally:
            os.close(fd)
        name = f"{_piece(self._head_end)}-gap"
        os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _open(self, name: str) -> int:
        return os.open(name, NEW_FILE | os.O_APPEND, 0o666, dir_fd=self._folder)


def _piece(offset: int) -> str:
    """Fifteen digits: the names are in the order of what they hold."""
    return f"driver.log.{offset:015d}"


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
