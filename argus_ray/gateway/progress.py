"""How far a run is: the last step in its metrics file. A convenience; whatever is wrong there, the answer is
None.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from argus_ray.core import paths
from argus_ray.core.model import Task
from argus_ray.gateway import files

_WINDOW = 64 * 1024
#: The spec was valid when it was accepted, and a flat mapping; reading it all again for one number would cost
#: more than the rest of the answer.
_TOTAL = re.compile(r"(?:^|[{,])[ \t]*[\"']?total_training_steps[\"']?[ \t]*:[ \t]*(\d{1,9})[ \t]*(?:$|[,}#\r])", re.M)


@dataclass(frozen=True)
class Progress:
    step: int
    #: Steps of the whole run, if the TaskSpec gives them.
    total_steps: int | None


def read_progress(task: Task) -> Progress | None:
    """Of the newest attempt. Blocks on the disk; reads 64 KiB at most; never raises."""
    if not task.attempts:
        return None
    root = task.attempts[-1].job_root
    try:
        span = files.read_end(root, paths.metrics_file(root), _WINDOW)
    except (OSError, ValueError, files.NotReadable):
        return None
    step = last_step(span.data)
    return None if step is None else Progress(step, total_steps(task.spec_yaml))


def last_step(data: bytes) -> int | None:
    """The step of the last complete line that has one; the line that is being written does not count."""
    for line in reversed(data[: data.rfind(b"\n") + 1].splitlines()):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53:
            return step
    return None


def total_steps(spec_yaml: str) -> int | None:
    match = _TOTAL.search(spec_yaml)
    return int(match[1]) if match else None
