"""A cancel that comes while the attempt starts, again and again at other moments: real runners, real files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from argus_ray.core import paths
from argus_ray.disk import attempt_files
from tests.support.running import PYTHON, RUNNER, is_alive, until

DEADLINE_S = 30.0
ROUNDS = 24
PROGRAM = "import os, time; open('ran', 'w').write(str(os.getpid())); time.sleep(600)"


def test_cancel_against_start(tmp_path: Path) -> None:
    """Either the program never begins, or it is ended; and a second runner of the same id starts nothing."""
    began = 0
    for number in range(ROUNDS):
        root = tmp_path / f"users/ada/jobs/argus-ada-sft-20260101-000000-{number:04x}--a01"
        argv = [*PYTHON, RUNNER, "--job-root", str(root), "--", sys.executable, "-S", "-c", PROGRAM]
        runner = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "ARGUS_STOP_GRACE_S": "1"})
        try:
            if number % 2:
                until(Path(paths.start_marker(str(root))).exists, "it has its start marker")
            # This spreads the race, and decides nothing.
            threading.Event().wait(number * 0.002)
            attempt_files.forbid_start(str(root))
            runner.communicate(timeout=DEADLINE_S)
        finally:
            runner.kill()
            runner.wait()
        assert runner.returncode != 0
        ran = root / "ran"
        if ran.exists() and ran.read_text():
            began += 1
            assert not is_alive(int(ran.read_text()))
        ran.unlink(missing_ok=True)
        again = subprocess.run(argv, capture_output=True, timeout=DEADLINE_S, check=False)
        assert again.returncode in (75, 76)
        assert not ran.exists() and Path(paths.cancel_marker(str(root))).exists()
    print(f"{began} of {ROUNDS} programs had begun")
