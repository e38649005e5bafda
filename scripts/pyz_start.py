# What argus.pyz begins with. An old Python must be able to read it, to say that it is too old.
import sys

if sys.version_info < (3, 11):
    sys.exit("argus: needs Python 3.11 or newer, and this is %d.%d (%s)" % (sys.version_info[:2] + (sys.executable,)))

import gc
import os
import stat
import time

BUILD = "@BUILD@"
# Seconds after which what was not started is removed: another version, or what a killed start has left.
OLD_S = 30 * 86400


def ours(folder: str) -> str:
    """Raises OSError for a link and for somebody else's folder, who could put anything into it."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        raise OSError("not ours")
    if status.st_mode & 0o077:
        os.chmod(folder, 0o700)
    return folder


def unpacked(archive: str) -> str:
    """Where the packages lie, unpacked when this version is started for the first time. Raises OSError."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(cache):
        raise OSError("no home")
    folder = os.path.join(cache, "argus")
    os.makedirs(folder, 0o700, exist_ok=True)
    place = os.path.join(ours(folder), BUILD)
    if os.path.lexists(place):
        ours(place)
        try:  # noqa: SIM105 - contextlib would be imported for it
            os.utime(place)
        except OSError:
            pass  # read-only: it is as good as it was
    else:
        unpack(archive, folder, place)
    return ours(place)


def unpack(archive: str, folder: str, place: str) -> None:
    import shutil
    import tempfile
    import zipfile

    for name in os.listdir(folder):
        other = os.path.join(folder, name)
        if time.time() - os.lstat(other).st_mtime > OLD_S:
            # Away first: half of one that is removed must not be found by the next start of its version.
            gone = tempfile.mkdtemp(prefix="old-", dir=folder)
            os.rename(other, os.path.join(gone, name))
            shutil.rmtree(gone, ignore_errors=True)
    new = tempfile.mkdtemp(prefix="new-", dir=folder)
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(new, [name for name in file.namelist() if name != "__main__.py"])
        # Whole or not at all, and without a lock, which some network filesystems do not have.
        os.rename(new, place)
    except OSError:
        if not os.path.isdir(place):  # else another start was quicker
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def main() -> None:
    archive = os.path.abspath(sys.argv[0])
    try:
        packages = unpacked(archive)
        # Even where PYTHONDONTWRITEBYTECODE says otherwise: the folder is a cache of our own, and compiling at each
        # start takes as long as all else together.
        sys.dont_write_bytecode = False
    except OSError:
        # No home, or one that is full, read-only or somebody else's: slower, from the file itself.
        packages = archive
    # Before PYTHONPATH, whose packages are other programs'.
    sys.path.insert(0, packages)
    # Until all is imported there is nothing to collect; the command turns it on again.
    gc.disable()
    from argus_ray.cli.app import main as command

    command()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        # Before the command itself has begun, which says it in words.
        sys.exit(130)
