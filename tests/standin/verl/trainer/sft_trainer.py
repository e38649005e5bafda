"""`python -m verl.trainer.sft_trainer`, one process per GPU with torch's env:// variables."""

import os
import signal
import sys

from verl.plan import KillDriver, Run, insufficient, overrides


def main() -> None:
    run = Run(overrides(sys.argv[1:]))
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    print(f"stand-in sft: rank {rank} of {world}", flush=True)
    if rank:
        return
    if run.plan.fail == "insufficient":
        raise insufficient(0, world)
    run.record_execution()
    try:
        run.train(save_always=True, parts=(".",), metric="train/loss")
    except KillDriver:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
