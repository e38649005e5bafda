"""Doing something to a module as soon as it is imported, by whoever that will be. Standard library only."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Collection, Sequence
from types import ModuleType


def when_imported(names: Collection[str], then: Callable[[ModuleType], None]) -> None:
    """`then` gets each of these modules once it is there. Not one that has been imported before."""
    sys.meta_path.insert(0, _WhenImported(names, then))


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds what is found anyhow."""

    def __init__(self, names: Collection[str], then: Callable[[ModuleType], None]) -> None:
        self._names, self._then = names, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_tell(module: ModuleType) -> None:
            run(module)
            self._then(module)

        spec.loader.exec_module = run_and_tell  # type: ignore[method-assign]
        return spec
