"""What a log of a GiB costs the gateway: opened, tailed, read in parts, and searched from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.log_memory import MIB

#: Of the log that is really written. `ARGUS_TEST_LOG_MIB=1024` for a GiB.
WRITTEN_MIB = int(os.environ.get("ARGUS_TEST_LOG_MIB", "64"))
#: Bytes.
MOST = 50_000_000


@pytest.mark.parametrize(("kind", "mib"), [("sparse", 1024), ("written", WRITTEN_MIB)])
def test_a_large_log_takes_little_memory(tmp_path: Path, kind: str, mib: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.log_memory", str(tmp_path), str(mib), kind],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    print(facts)
    assert facts["size"] >= mib * MIB
    assert facts["tail"] == "000018 the needle\r000019 the needle\r\n", (
        "what the progress bars were at last, and a line"
    )
    # Of the sparse one the search forward went to the end once, and those backward met the end first.
    assert facts["matches"] == 20 * (4 if kind == "sparse" else 6)
    assert facts["calls"] >= mib // 64, "each is bounded"
    assert 0 < facts["grown"] < MOST
