"""A stand-in for verl with the same command lines, for tests that need a training run's outside and not its
inside.

It claims its gang from Ray, writes metrics and checkpoints, and fails, as verl 0.9.1 does. What it does is
told by the file that it is given as training data: see verl/plan.py. No torch, no data, no model."""

import importlib
import os

# As verl does; those of ours that patch verl's inside have nothing to patch here.
for _module in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(","):
    if _module in ("argus_verl_tq", "argus_verl_placement"):
        importlib.import_module(_module)
