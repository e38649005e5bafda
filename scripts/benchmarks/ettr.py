"""How much of the time a run makes steps (ETTR, effective training time ratio) when its machine is lost every so
often, by how often it saves: real sft on the CPU, on hosts of a lab, through Argus. Beside it: the same run by bare Ray
Jobs on the same pool, with verl's resume_mode=auto, submitted again by a loop that asks each second whether it failed.

Every N seconds the host that the run is on loses power, and boots again at once; if it is nowhere in that moment,
nobody loses anything. ETTR is the number of steps times the median time of one, over the time from the submission to
the end. Needs root. Not a part of `all`: it takes half an hour.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from argus_ray.core import taskspec
from argus_ray.core.verl import command as verl
from benchmarks import report, rounds
from benchmarks.report import ROOT
from tests.support.lab import Host, wait_for, why_not
from tests.support.pool import PATIENCE_S, Pool, RayLab
from tests.support.raycluster import Api
from tests.support.realverl import make_inputs

#: Rows of the data set over the batch: steps of one epoch.
_EPOCH = 50
_POLL_S = 0.05
#: Between two looks of whoever watches a bare job. A person looks less often.
_WATCH_S = 1.0
_RESUME = ("trainer.resume_mode=", "trainer.default_local_dir=", "trainer.resume_from_path=")


@dataclass
class Run:
    """One run, as its metrics files tell it. Times are seconds of the monotonic clock."""

    steps: int
    begun: float
    #: When each line of each file was seen, and its step.
    seen: dict[Path, list[tuple[float, int]]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    ended: float = 0.0

    @property
    def ettr(self) -> float:
        return len(self.distinct) * self.step_s / (self.ended - self.begun)

    @property
    def distinct(self) -> set[int]:
        return {step for lines in self.seen.values() for _, step in lines}

    @property
    def repeated(self) -> int:
        return sum(map(len, self.seen.values())) - len(self.distinct)

    @property
    def step_s(self) -> float:
        """The median; one with a save is longer."""
        return statistics.median(b - a for lines in self.seen.values() for (a, _), (b, _) in itertools.pairwise(lines))

    def back_s(self) -> list[float]:
        """From each loss to the next step that was seen."""
        moments = sorted(at for lines in self.seen.values() for at, _ in lines)
        return [next(at for at in moments if at > loss) - loss for loss in self.losses if moments[-1] > loss]

    def look(self, files: list[Path]) -> None:
        now = time.monotonic()
        for file in files:
            lines = self.seen.setdefault(file, [])
            with contextlib.suppress(FileNotFoundError):
                whole = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
                entries = [json.loads(line) for line in whole]
                made = [entry["step"] for entry in entries if "train/loss" in entry["data"]]
                lines += [(now, step) for step in made[len(lines) :]]


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--steps", type=int, default=400, help="of one run")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two losses")
    parser.add_argument("--save-freq", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds after which a run is broken off")
    options = parser.parse_args(argv)
    if reason := why_not():
        print(f"ettr: skipped: hosts cannot be made here: {reason}", file=sys.stderr)
        return 1
    with report.recorded("ettr", options) as found, _pool() as (pool, workers):
        for freq in options.save_freq:
            sides: dict[str, Callable[[], Run]] = {
                "Argus": lambda freq=freq: _argus(pool, workers, options, freq),  # type: ignore[misc]
                "Ray Jobs": lambda freq=freq: _bare(pool, workers, options, freq),  # type: ignore[misc]
            }
            runs = rounds.alternate(options.rounds, sides)
            for name, made in runs.items():
                _tell(found, f"save_freq {freq}, {name}", made)
            ours, others = ([run.ettr for run in runs[name]] for name in sides)
            found.ratio(f"save_freq {freq}, ETTR: Argus / Ray Jobs", ours, others, ">= 1")
        found.note("bare Ray Jobs has argus_verl_resume, without which verl trains nothing from the end of an epoch")
    return 0


def _tell(found: report.Report, name: str, runs: list[Run]) -> None:
    found.figure(f"{name}: ETTR", "", [run.ettr for run in runs])
    found.figure(f"{name}: losses", "", [len(run.losses) for run in runs])
    found.figure(f"{name}: steps made twice", "", [run.repeated for run in runs])
    if back := [second for run in runs for second in run.back_s()]:
        found.figure(f"{name}: loss -> next step", "s", back)
    found.figure(f"{name}: one step", "s", [run.step_s for run in runs])
    for run in runs:
        if len(run.distinct) < run.steps:
            found.note(f"{name}: broken off after {len(run.distinct)} of {run.steps} steps")


@contextlib.contextmanager
def _pool() -> Iterator[tuple[Pool, list[Host]]]:
    """A head and two workers."""
    root = Path(f"/var/tmp/ettr-{os.getpid()}")  # noqa: S108 - short: Ray's sockets lie below it
    root.mkdir(mode=0o700)
    try:
        with RayLab(root) as lab:
            pool = Pool(lab)
            head, *workers = (lab.host(name, last) for name, last in (("ha", 11), ("wa", 21), ("wb", 22)))
            pool.start_head(head)
            for worker in workers:
                pool.start_worker(worker)
            pool.wait_ready(head)
            for worker in workers:
                pool.wait_joined(worker)
            make_inputs(pool.shared)
            yield pool, workers
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _follow(
    run: Run,
    pool: Pool,
    workers: list[Host],
    options: Any,
    name: str,
    files: Callable[[], list[Path]],
    has_ended: Callable[[], bool],
) -> Run:
    """Until it has ended. `name` is in the command lines of its processes."""
    next_loss, next_ask = run.begun + options.every, 0.0
    while True:
        run.look(files())
        now = time.monotonic()
        if now >= next_ask:
            next_ask = now + _WATCH_S
            if has_ended() or now - run.begun > options.limit:
                break
        if now >= next_loss:
            next_loss += options.every
            if victim := next((host for host in workers if host.is_up and host.find(name)), None):
                run.losses.append(now)
                victim.power_off()
                victim.boot()
                pool.start_worker(victim)
        time.sleep(_POLL_S)
    run.look(files())
    run.ended = time.monotonic()
    gpus = 4 * len(workers)
    wait_for(f"{gpus} GPUs for the next run", lambda: pool.gpus() == gpus, PATIENCE_S, lab=pool.lab)
    return run


def _fields(options: Any, save_freq: int) -> dict[str, Any]:
    return {
        "total_epochs": math.ceil(options.steps / _EPOCH) + 1,
        "total_training_steps": options.steps,
        "save_freq": save_freq,
        "test_freq": -1,
    }


def _argus(pool: Pool, workers: list[Host], options: Any, save_freq: int) -> Run:
    user: Api = pool.user()
    run = Run(options.steps, time.monotonic())
    task = user.submit_example("cpu-sft", **_fields(options, save_freq))
    jobs = pool.shared / "users" / str(user.task(task)["user_id"]) / "jobs"

    def has_ended() -> bool:
        view = user.task(task)
        if view["state"] in ("FAILED", "CANCELED"):
            raise OSError(f"{task} is {view['state']}: {view['reason']}")
        return bool(view["state"] == "SUCCEEDED")

    _follow(run, pool, workers, options, task, lambda: sorted(jobs.glob(f"{task}--a*/metrics.jsonl")), has_ended)
    if user.task(task)["state"] != "SUCCEEDED":
        user.cancel(task)
    return run


def _bare(pool: Pool, workers: list[Host], options: Any, save_freq: int) -> Run:
    """By Ray's own Jobs API, and whoever submits it again."""
    jobs = _Jobs(pool, f"bare-{save_freq}-{time.monotonic_ns()}", _fields(options, save_freq))
    run = Run(options.steps, time.monotonic())
    jobs.submit()

    def has_ended() -> bool:
        status = jobs.status()
        if status in ("FAILED", "STOPPED"):
            jobs.submit()
        return status == "SUCCEEDED"

    _follow(run, pool, workers, options, jobs.name, jobs.files, has_ended)
    jobs.stop()
    return run


class _Jobs:
    """One run without Argus: verl's launcher for one machine, in Ray Jobs."""

    def __init__(self, pool: Pool, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self._folder = pool.shared / name
        self._folder.mkdir()
        self._count = 0
        token = Path(pool.ray_environment["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        url = f"http://{pool.record()['head_ip']}:8265"
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )
        text = (ROOT / "examples" / "cpu-sft.yaml").read_text().replace("/private/", f"{pool.shared}/")
        spec = taskspec.parse(text, shared_root=str(pool.shared)).model_copy(update=fields)
        payload = str(ROOT / "argus_ray" / "payload")
        site = verl.Site(str(pool.shared), payload, "python", stop_grace_s=30, log_bytes=1 << 30)
        launch = verl.launch(spec, site, submission_id=name, job_root=str(self._folder))
        overrides = [word for word in launch.command[launch.command.index("--") + 1 :] if not word.startswith(_RESUME)]
        overrides += ["trainer.resume_mode=auto", f"trainer.default_local_dir={self._folder / 'checkpoints'}"]
        torchrun = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
        self._command = shlex.join([*torchrun, "-m", "verl.trainer.sft_trainer", *overrides])
        modules = f"{launch.env['VERL_USE_EXTERNAL_MODULES']},argus_verl_resume"
        self._env = {**launch.env, "VERL_USE_EXTERNAL_MODULES": modules}

    def files(self) -> list[Path]:
        return sorted(self._folder.glob("metrics-*.jsonl"))

    def submit(self) -> None:
        self._count += 1
        env = {**self._env, "VERL_FILE_LOGGER_PATH": str(self._folder / f"metrics-{self._count:03}.jsonl")}
        body = {
            "entrypoint": self._command,
            "submission_id": f"{self.name}-{self._count}",
            "runtime_env": {"env_vars": env},
            "entrypoint_resources": {"worker_node": 1},
        }
        self._http.post("/api/jobs/", json=body).raise_for_status()

    def status(self) -> str:
        answer = self._http.get(f"/api/jobs/{self.name}-{self._count}").raise_for_status()
        return str(answer.json()["status"])

    def stop(self) -> None:
        if self.status() in ("PENDING", "RUNNING"):
            self._http.post(f"/api/jobs/{self.name}-{self._count}/stop").raise_for_status()
        self._http.close()
