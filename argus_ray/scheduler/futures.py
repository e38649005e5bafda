"""The futures of a forecast, played in a process of their own: for seconds they take all of a CPU, and a thread would
take it from the ticks. It has the lowest priority, a bound of time, and ends with its answer, so that nothing is kept
while nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import argus_ray
from argus_ray.core.forecast.model import Question, Run, Told
from argus_ray.core.forecast.ranges import MIN_DRAWS, foretell
from argus_ray.scheduler import gently

#: CPU seconds after which no more futures are played than a range needs, and after which none is.
SOFT_S, HARD_S = 6.0, 25.0
#: Of the whole answer, on a machine that has other things to do. Seconds.
TIMEOUT_S = 90.0
_NICE = 19
#: Runs that are written down at a time: some milliseconds, in which the loop has no turn for others.
_AT_ONCE = 250


async def ask(
    question: Question, timeout_s: float = TIMEOUT_S, *, soft_s: float = SOFT_S, hard_s: float = HARD_S
) -> Sequence[Told]:
    """`soft_s`, `hard_s`: as above. Raises TimeoutError or OSError; then nothing is left of it."""
    # The package that this process has, wherever it is from.
    path = os.pathsep.join([str(Path(argus_ray.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        answer = await asyncio.wait_for(_talk(child, question, (soft_s, hard_s)), timeout_s)
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    # Not by its exit code, which is nobody's to read where Ray has children reaped.
    if not answer:
        raise ChildProcessError(f"the futures ended with {child.returncode} and without an answer")
    told: Sequence[Told] = pickle.loads(answer)  # noqa: S301 - of our own process
    return told


async def _talk(child: asyncio.subprocess.Process, question: Question, bounds: tuple[float, float]) -> bytes:
    pipe, answer = child.stdin, child.stdout
    if pipe is None or answer is None:
        raise ChildProcessError("the futures have no pipes")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, and has no answer
        runs = [*question.running, *question.waiting]
        pieces = (runs[at : at + _AT_ONCE] for at in range(0, len(runs), _AT_ONCE))
        await _write(pipe, (*bounds, len(question.running), replace(question, running=(), waiting=())))
        for piece in pieces:
            await _write(pipe, piece)
    pipe.close()
    return await answer.read()


async def _write(pipe: asyncio.StreamWriter, piece: object) -> None:
    pipe.write(pickle.dumps(piece, pickle.HIGHEST_PROTOCOL))
    await pipe.drain()
    await gently.others_first()


def _read() -> tuple[float, float, Question]:
    """Of the scheduler that has started us."""
    soft_s, hard_s, running, question = pickle.load(sys.stdin.buffer)  # noqa: S301
    runs: list[Run] = []
    with contextlib.suppress(EOFError):
        while True:
            runs += pickle.load(sys.stdin.buffer)  # noqa: S301
    return soft_s, hard_s, replace(question, running=tuple(runs[:running]), waiting=tuple(runs[running:]))


def play(question: Question, soft_s: float = SOFT_S, hard_s: float = HARD_S) -> Sequence[Told]:
    begun = time.process_time()

    def may_go_on(played: int) -> bool:
        return time.process_time() - begun < (soft_s if played >= MIN_DRAWS else hard_s)

    return foretell(question, random.random, may_go_on)


def main() -> None:
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    soft_s, hard_s, question = _read()
    pickle.dump(play(question, soft_s, hard_s), sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
