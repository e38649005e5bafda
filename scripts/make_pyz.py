#!/usr/bin/env python3
"""Make argus.pyz: the command `argus`, its client and what they need, as one file for any Python of 3.11 or newer.

The packages are those of this environment, which must be those of the lock, and pure Python. The same packages and
sources make the same bytes. Not by shiv (1.0.8): what it starts with hangs on a home without file locks, fails on one
that is read-only, and unpacks into a folder without asking whose it is.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "argus_ray" / "gateway" / "command" / "argus.pyz"
#: What argus_ray/cli and argus_ray/client import.
_ROOTS = ("click", "httpx2")
_OURS = ("cli", "client")
#: Of the machines that the file may run on.
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_PLATFORMS = ("linux", "darwin")
#: Of a package's metadata: importlib.metadata reads the one, the others are owed.
_OF_METADATA = re.compile(r"METADATA|licenses?/.*|(LICEN[SC]E|NOTICE|COPYING|AUTHORS).*", re.IGNORECASE)
_SOURCES = (".py", ".pyi", ".typed", ".json", ".txt", ".yaml", ".tsv")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class NotMade(Exception):
    """Why it cannot be made."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make argus.pyz from the packages of this environment.")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock", help="the versions that it must have")
    options = parser.parse_args()
    try:
        made = make(options.output, options.lock)
    except NotMade as error:
        sys.exit(f"make-pyz: {error}")
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB, build {made}", file=sys.stderr)


def make(output: Path, lock: Path, package: Path = ROOT / "argus_ray") -> str:
    """Write the file, whole or not at all. The build: it tells one content from another. Raises NotMade."""
    versions = locked(lock)
    files = dict(ours(package))
    for name in sorted(needed(_ROOTS)):
        distribution = metadata.distribution(name)
        if versions.get(name) != distribution.version:
            raise NotMade(f"{name} is {distribution.version}, and {lock.name} has {versions.get(name)}")
        files |= dict(files_of(distribution))
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    start = (ROOT / "scripts" / "pyz_start.py").read_text()
    digest.update(start.encode())
    build = digest.hexdigest()[:16]
    new = output.with_name(f".{output.name}.new")
    with new.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            _add(archive, "__main__.py", start.replace("@BUILD@", build).encode())
            for name, path in sorted(files.items()):
                _add(archive, name, path.read_bytes())
    new.chmod(0o755)
    new.replace(output)
    return build


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content, compresslevel=9)


def locked(lock: Path) -> dict[str, str]:
    """Name -> version."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;+]+)", lock.read_text(), re.MULTILINE)
    return {_canonical(name): version for name, version in pairs}


def needed(roots: tuple[str, ...]) -> set[str]:
    """These packages and all that they need on any of the machines."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = _canonical(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments()):
                waiting.append(requirement.name)
    return found


def environments() -> Iterator[dict[str, str]]:
    for python in _PYTHONS:
        for platform in _PLATFORMS:
            known: dict[str, str] = {**default_environment()}  # type: ignore[dict-item]
            yield known | {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "sys_platform": platform,
                "extra": "",
            }


def files_of(distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """Name in the file -> file. Raises NotMade for what runs on one kind of machine only."""
    for each in distribution.files or ():
        path = Path(str(distribution.locate_file(each)))
        top = each.parts[0]
        if top in ("..", "bin") or "__pycache__" in each.parts:
            continue
        if top.endswith(".dist-info"):
            if _OF_METADATA.fullmatch("/".join(each.parts[1:])):
                yield each.as_posix(), path
        elif each.suffix in (".so", ".pyd", ".dylib", ".dll"):
            raise NotMade(f"{distribution.name} is not pure Python: {each}")
        elif each.suffix in _SOURCES:
            yield each.as_posix(), path


def ours(package: Path) -> Iterator[tuple[str, Path]]:
    yield "argus_ray/__init__.py", package / "__init__.py"
    for room in _OURS:
        for path in sorted((package / room).rglob("*")):
            if path.is_file() and path.suffix in _SOURCES and "__pycache__" not in path.parts:
                yield f"argus_ray/{path.relative_to(package).as_posix()}", path


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
