"""Where a run's own code stands among what is importable: after the standard library, before what is installed.

So a folder `verl` in it is found before the installed one, and a file of it that has the name of a standard module
(`queue.py`, `secrets.py`) stands in for none, neither for the program nor for Ray's own processes, which have the same
environment. What Ray's processes need to start is found where it is installed, whatever lies in the user's code.

Called by `sitecustomize` at the start of each Python of a run; a failure here must not keep it from starting."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

VARIABLE = "ARGUS_CODE_PATH"
#: What a worker of Ray and its job supervisor import before they run anything, as of Ray 2.60, and what Python itself
#: runs at its start. `core/verl/code.py` has the same names; tests compare both with what Ray imports.
RESERVED = frozenset(
    """
    aiohappyeyeballs aiohttp aiosignal annotated_types attr attrs certifi chardet charset_normalizer click colorama
    colorful filelock frozenlist google idna jsonschema jsonschema_specifications msgpack multidict numpy packaging
    propcache psutil pydantic pydantic_core ray referencing requests rpds setproctitle sitecustomize tqdm
    typing_extensions typing_inspection urllib3 usercustomize uvloop wcwidth yaml yarl
    """.split()  # noqa: SIM905  # one a word
)
#: Empty before Python 3.10, which a program that a run starts may be written for: the order of folders must do there.
_STANDARD: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())


class Installed:
    """Finds the names of the standard library and the reserved ones without the user's code. That may have a reserved
    one which is not installed, but none of the library's: it asks for modules of other systems, to go on without."""

    def __init__(self, code_path: str) -> None:
        self._code_path = code_path

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_standard = name in _STANDARD
        if path is not None or not (is_standard or name in RESERVED):
            return None
        found = PathFinder.find_spec(name, [entry for entry in sys.path if entry != self._code_path], target)
        if found is None and is_standard and PathFinder.find_spec(name, [self._code_path], target) is not None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found


def put() -> None:
    """Does nothing where the variable names no folder."""
    code_path = os.environ.get(VARIABLE)
    if not code_path:
        return
    sys.path[:] = [entry for entry in sys.path if entry != code_path]
    sys.path.insert(_after_standard_library(), code_path)
    # Not before what others have put first: setuptools has its own distutils.
    at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
    sys.meta_path.insert(at, Installed(code_path))


def _after_standard_library() -> int:
    # Each of its folders: modules in Python, those in C, and the zip that may stand for both.
    library = os.path.dirname(os.__file__)
    name = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    places = [
        i
        for i, entry in enumerate(sys.path)
        if entry in (library, f"{library}/lib-dynload") or os.path.basename(entry) in (name, "lib-dynload")
    ]
    return max(places, default=len(sys.path) - 1) + 1
