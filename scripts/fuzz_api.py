"""What scripts/fuzz runs: prints calls and statuses by route, and what failed; exits 1 if anything did."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.support.builders import memory_folder
from tests.support.fuzz.run import Fuzz, report

#: Calls between two looks at the clock, and into one database.
_CHAPTER = 4000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--minutes", type=float, help="for so long, in place of a number of calls")
    parser.add_argument("--seed", type=int, default=0, help="other calls (0)")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    begun = time.monotonic()
    deadline = begun + 60 * arguments.minutes if arguments.minutes else None
    with tempfile.TemporaryDirectory(prefix="argus-fuzz-", dir=memory_folder()) as folder:
        fuzz = Fuzz(Path(folder), seed=arguments.seed)
        try:
            while time.monotonic() < deadline if deadline else fuzz.total < arguments.calls:
                fuzz.run(_CHAPTER if deadline else min(_CHAPTER, arguments.calls - fuzz.total))
                print(f"{fuzz.total} calls, {len(fuzz.failures)} failures", file=sys.stderr, flush=True)
        finally:
            fuzz.close()
    print("\n".join(report(fuzz)))
    print(f"seed {arguments.seed}, {time.monotonic() - begun:.0f} s")
    return 1 if fuzz.failures else 0


if __name__ == "__main__":
    sys.exit(main())
