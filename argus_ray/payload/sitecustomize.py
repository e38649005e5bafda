"""Python runs this at the start of each process of a run, as the payload comes first on its PYTHONPATH."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

import argus_code_path  # type: ignore[import-not-found]  # a neighbour

argus_code_path.put()

# The machine's own, which this one hides.
_here = os.path.dirname(os.path.abspath(__file__))
_others = [entry for entry in sys.path if entry not in (_here, os.environ.get(argus_code_path.VARIABLE))]
if (_found := PathFinder.find_spec("sitecustomize", _others)) is not None and _found.loader is not None:
    _found.loader.exec_module(importlib.util.module_from_spec(_found))
