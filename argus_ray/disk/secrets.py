"""The head's side of `argus_secrets`: what an attempt is handed before Ray hears of it."""

from __future__ import annotations

import contextlib
import os

from argus_ray.disk import beneath
from argus_ray.disk.beneath import NOT_THERE, Meaning
from argus_ray.payload import argus_folders, argus_secrets


def hand_over(job_root: str, name: str, value: str, umask: int = argus_folders.DEFAULT_UMASK) -> None:
    """For the attempt of this job root, in the place of what it was handed before. `umask`: of the job root, if it has
    to be made for it; the secret is its owner's alone whatever that says. Raises OSError."""
    root = argus_folders.job_root(job_root, umask)
    try:
        folder = argus_folders.folder(argus_secrets.FOLDER, root, 0o077)
        try:
            os.fchmod(folder, 0o700)
            _write(folder, name, value.encode())
        finally:
            os.close(folder)
    finally:
        os.close(root)


def clear(job_root: str) -> None:
    """Nothing of it is left that we may touch. Raises OSError when the shared filesystem does not answer."""
    with beneath.suppress(*NOT_THERE, Meaning.CLOSED), beneath.folder(job_root) as root:
        argus_secrets.clear(root)


def _write(folder: int, name: str, content: bytes) -> None:
    """Whole or not at all: an attempt that Ray has got already may be looking for it."""
    temporary = name + argus_secrets.NEW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
