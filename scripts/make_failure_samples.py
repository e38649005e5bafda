"""Makes the logs of tests/core/verl/failures: `make_failure_samples.py [NAME...]`, all of them without a name.

Each sample is a real run of verl or torch on the CPU that is made to fail, with the command line and the environment of
core/verl/command.py, its output cut to its end. Needs torch and verl, and half an hour on two cores. As root it also
mounts a small tmpfs (for the full disk) in a namespace of its own, and makes a memory cgroup (version 1); without root
these two samples are left out. It starts Ray on this machine.

Written: `<name>.log`, and its exit code into `exit_codes.json`. The scratch folder's name becomes /private in the logs,
and this checkout's /opt/argus, so that they do not tell where they were made.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command as verl
from argus_ray.local.cluster import free_port

REPO = Path(__file__).resolve().parents[1]
SAMPLES = REPO / "tests" / "core" / "verl" / "failures"
#: Bytes of the end that are kept: enough for the first cause, and small enough for a repository.
KEEP_BYTES = 16 * 1024
TIMEOUT_S = 240.0
#: Documentation's own network (RFC 5737): no answer ever comes from it.
NOWHERE = "192.0.2.1"


@dataclass
class Scratch:
    root: Path
    extra: list[str] = field(default_factory=list)

    @property
    def common(self) -> Path:
        return self.root / "common"

    def job_root(self, name: str) -> Path:
        folder = self.root / "users" / "alice" / "jobs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def data(self, name: str) -> str:
        return str(self.common / "datasets" / name)

    def launch(self, name: str, workload: str, **fields: Any) -> verl.Launch:
        kind = "sft" if workload == "sft" else "rl"
        spec = {
            "workload": workload,
            "code_path": str(self.common / "code" / "none"),
            "model_id": str(self.common / "models" / "tiny"),
            "train_file": self.data(f"add/{kind}_train.parquet"),
            "val_file": self.data(f"add/{kind}_val.parquet"),
            "nnodes": 1,
            "n_gpus_per_node": 1,
            "total_epochs": 1,
            "total_training_steps": 4,
            "save_freq": 2,
            "test_freq": -1,
            "trainer_device": "cpu",
            **fields,
        }
        site = verl.Site(str(self.root), str(REPO / "argus_ray" / "payload"), sys.executable, 5, 1 << 30)
        return verl.launch(
            TaskSpec.model_validate(spec, context={"shared_root": str(self.root)}),
            site,
            submission_id=name,
            job_root=str(self.job_root(name)),
        )


@dataclass
class Run:
    """One program to fail."""

    command: list[str]
    env: dict[str, str]
    cwd: Path
    #: Called once in the child before the program starts.
    before: Callable[[], None] | None = None
    #: Called beside the program, with its process id.
    beside: Callable[[int], None] | None = None


def sft(scratch: Scratch, name: str, *overrides: str, env: dict[str, str] | None = None, **fields: Any) -> Run:
    """One process, as the launcher starts it."""
    launch = scratch.launch(name, "sft", **fields)
    given = list(launch.command[launch.command.index("--") + 1 :])
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "1", "RANK": "0"}
    alone |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-u", "-m", "verl.trainer.sft_trainer", *given, *overrides]
    return Run(command, launch.env | alone | (env or {}), scratch.job_root(name))


def rl(scratch: Scratch, name: str, *overrides: str, gpus: int = 1, env: dict[str, str] | None = None, **f: Any) -> Run:
    """On a Ray of its own, which main_ppo starts in its process since no address is given."""
    launch = scratch.launch(name, "grpo", **f)
    local = [
        "ray_kwargs.ray_init.num_cpus=16",
        f"+ray_kwargs.ray_init.num_gpus={gpus}",
        "+ray_kwargs.ray_init.resources={worker_node:10}",
        "+ray_kwargs.ray_init.include_dashboard=False",
        "+ray_kwargs.ray_init.object_store_memory=150000000",
    ]
    return Run([*launch.command, *local, *overrides], launch.env | (env or {}), scratch.job_root(name))


def launcher(scratch: Scratch, name: str, *overrides: str, beside: Callable[[int], None] | None = None) -> Run:
    """The sft launcher with two processes, on a Ray that this process has started."""
    start_ray()
    launch = scratch.launch(name, "sft", n_gpus_per_node=2, total_training_steps=2000, total_epochs=100)
    # As Ray Jobs hands it on to the actors.
    config = {"runtime_env": {"env_vars": launch.env}}
    env = launch.env | {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(config)}
    return Run([*launch.command, *overrides], env, scratch.job_root(name), beside=beside)


_ray_is_up = False


def start_ray() -> None:
    global _ray_is_up
    if not _ray_is_up:
        import ray

        ray.init(
            num_cpus=8,
            num_gpus=2,
            resources={"worker_node": 10},
            include_dashboard=False,
            logging_level="ERROR",
            object_store_memory=150_000_000,
        )
        _ray_is_up = True


def kill_one_trainer_late(driver: int) -> None:
    """As the kernel does when the memory is used up: one process goes without a word."""
    metrics = Path(f"/proc/{driver}/cwd/metrics.jsonl")
    while not (metrics.exists() and metrics.stat().st_size > 2000):
        time.sleep(0.2)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environ = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
            ours = (entry / "cwd").readlink() == Path(f"/proc/{driver}/cwd").readlink()
            if ours and b"RANK=1" in environ and b"verl.trainer.sft_trainer" in command:
                os.kill(int(entry.name), signal.SIGKILL)


def torchrun(scratch: Scratch, name: str, *options: str) -> Run:
    (scratch.job_root(name) / "meet.py").write_text("import torch.distributed as d; d.init_process_group('gloo')\n")
    command = [sys.executable, "-m", "torch.distributed.run", *options, "meet.py"]
    return Run(command, {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}, scratch.job_root(name))


#: Two processes that add numbers up, until the second one does something else.
_PAIR = """
import os, signal, sys, torch, torch.distributed as d
d.init_process_group("gloo")
for step in range(100):
    if d.get_rank() and step == 50:
        {end}
    d.all_reduce(torch.ones(1000))
"""
_KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def pair(scratch: Scratch, name: str, end: str, *, heard: bool = True) -> Run:
    """What the first process says when the second one ends; `heard`: with what that one and torchrun say."""
    (scratch.job_root(name) / "pair.py").write_text(_PAIR.format(end=end))
    env = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    if heard:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "pair.py"]
        return Run(command, env, scratch.job_root(name))
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    both = 'RANK=1 "$0" pair.py >/dev/null 2>&1 & RANK=0 exec "$0" pair.py'
    return Run(["sh", "-c", both, sys.executable], env, scratch.job_root(name))


def unmet(scratch: Scratch, name: str, rank: int, address: str, timeout_s: int) -> Run:
    """torch's env:// meeting with a short patience; verl's own is ten hours."""
    code = (
        "import datetime, torch.distributed as d; d.init_process_group('gloo', "
        f"timeout=datetime.timedelta(seconds={timeout_s}))"
    )
    env = {"MASTER_ADDR": address, "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "RANK": str(rank)}
    return Run([sys.executable, "-c", code], env | {"GLOO_SOCKET_IFNAME": "lo"}, scratch.job_root(name))


def port_taken(scratch: Scratch, name: str) -> Run:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    _held.append(holder)
    return sft(scratch, name, env={"MASTER_PORT": str(holder.getsockname()[1])})


_held: list[socket.socket] = []


def disk_full(scratch: Scratch, name: str) -> Run:
    run = sft(scratch, name)
    checkpoints = scratch.job_root(name) / "checkpoints"
    checkpoints.mkdir()
    # The mount lives and dies with the namespace of this one program.
    mount = f'mount -t tmpfs -o size=1m tmpfs {checkpoints} && exec "$0" "$@"'
    run.command = ["unshare", "--mount", "sh", "-c", mount, *run.command]
    return run


def memory_limit(run: Run, gib: float) -> Run:
    size = int(gib * 2**30)
    run.before = lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))
    return run


def kernel_kill(run: Run) -> Run:
    """In a memory cgroup too small for it: the kernel's own out-of-memory kill. cgroup v1, as on this machine."""
    group = Path(f"/sys/fs/cgroup/memory/argus-samples-{os.getpid()}")
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(300 * 2**20))
    _groups.append(group)

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    run.before = enter
    return run


_groups: list[Path] = []


def broken_code(scratch: Scratch, name: str) -> Run:
    """A verl of the user's own that imports what is not installed."""
    folder = scratch.common / "code" / "broken"
    (folder / "verl").mkdir(parents=True, exist_ok=True)
    (folder / "verl" / "__init__.py").write_text("import flash_attn_next\n")
    return sft(scratch, name, code_path=str(folder))


Make = Callable[[Scratch, str], Run]
SAMPLES_OF: dict[str, Make] = {
    "sft_dataset_missing": lambda s, n: sft(s, n, train_file=s.data("add/gone.parquet")),
    "sft_dataset_corrupt": lambda s, n: sft(s, n, train_file=s.data("corrupt.parquet")),
    "sft_dataset_truncated": lambda s, n: sft(s, n, train_file=s.data("truncated.parquet")),
    "sft_dataset_columns": lambda s, n: sft(s, n, train_file=s.data("add/rl_train.parquet")),
    "sft_model_missing": lambda s, n: sft(s, n, model_id=str(s.common / "models" / "gone")),
    "sft_model_empty": lambda s, n: sft(s, n, model_id=str(s.common / "models" / "empty")),
    "sft_model_no_weights": lambda s, n: sft(s, n, model_id=str(s.common / "models" / "no-weights")),
    "sft_model_corrupt": lambda s, n: sft(s, n, model_id=str(s.common / "models" / "corrupt")),
    "sft_model_not_in_cache": lambda s, n: sft(s, n, model_id="Qwen/Qwen2.5-0.5B-Instruct"),
    "sft_config_key": lambda s, n: sft(s, n, "trainer.no_such_key=1"),
    "sft_config_grammar": lambda s, n: sft(s, n, "trainer.project_name=a b='"),
    "sft_code_import": broken_code,
    "sft_port_in_use": port_taken,
    "sft_no_gpu": lambda s, n: sft(s, n, trainer_device="cuda"),
    "sft_non_finite": lambda s, n: sft(s, n, "optim.lr=1e30", "optim.lr_warmup_steps=0"),
    "sft_disk_full": disk_full,
    "sft_host_memory": lambda s, n: memory_limit(sft(s, n), 1.5),
    "sft_host_memory_tensor": lambda s, n: memory_limit(sft(s, n, model_id=str(s.common / "models" / "wide")), 4.0),
    "sft_kernel_kill": lambda s, n: kernel_kill(sft(s, n)),
    "launcher_one_killed": lambda s, n: launcher(s, n, beside=kill_one_trainer_late),
    "torchrun_rendezvous": lambda s, n: torchrun(
        s,
        n,
        "--nnodes=2",
        "--rdzv-backend=c10d",
        "--rdzv-id=x",
        "--rdzv-endpoint=127.0.0.1:0",
        "--rdzv-conf=join_timeout=5,timeout=5",
    ),
    "torchrun_one_killed": lambda s, n: pair(s, n, _KILL),
    "torchrun_one_out_of_memory": lambda s, n: pair(s, n, "torch.ones(10**13)"),
    "gloo_peer_lost": lambda s, n: pair(s, n, _KILL, heard=False),
    "meeting_no_master": lambda s, n: unmet(s, n, 1, NOWHERE, 5),
    "meeting_refused": lambda s, n: unmet(s, n, 1, "127.0.0.1", 5),
    "meeting_no_peers": lambda s, n: unmet(s, n, 0, "127.0.0.1", 5),
    "meeting_no_such_host": lambda s, n: unmet(s, n, 1, "no-such-host.invalid", 5),
    "rl_insufficient_resources": lambda s, n: rl(s, n, gpus=0),
    "rl_dataset_missing": lambda s, n: rl(s, n, train_file=s.data("add/gone.parquet")),
    "rl_dataset_corrupt": lambda s, n: rl(s, n, train_file=s.data("corrupt.parquet")),
    "rl_dataset_suffix": lambda s, n: rl(s, n, train_file=s.data("rl_train.pq")),
    "rl_no_prompt": lambda s, n: rl(s, n, train_file=s.data("add/sft_train.parquet")),
    "rl_no_reward_model": lambda s, n: rl(s, n, train_file=s.data("rl_no_reward_model.parquet")),
    "rl_no_data_source": lambda s, n: rl(s, n, train_file=s.data("rl_no_data_source.parquet")),
    "rl_model_empty": lambda s, n: rl(s, n, model_id=str(s.common / "models" / "empty")),
    "rl_model_not_in_cache": lambda s, n: rl(s, n, model_id="Qwen/Qwen2.5-0.5B-Instruct"),
    "rl_config_key": lambda s, n: rl(s, n, "trainer.no_such_key=1"),
    "rl_non_finite": lambda s, n: rl(s, n, "actor_rollout_ref.actor.optim.lr=1e30"),
    "rl_ray_memory_monitor": lambda s, n: rl(
        s, n, env={"RAY_memory_usage_threshold": "0.05", "RAY_memory_monitor_refresh_ms": "100"}
    ),
}


def make_inputs(scratch: Scratch) -> None:
    import pyarrow.parquet as pq

    common = scratch.common
    subprocess.run([sys.executable, REPO / "scripts" / "make_tiny.py", common], check=True)
    (common / "code" / "none").mkdir(parents=True)
    data, models = common / "datasets", common / "models"
    whole = (data / "add" / "sft_train.parquet").read_bytes()
    (data / "corrupt.parquet").write_bytes(b"PAR1" + b"\x07" * 400 + b"PAR1")
    (data / "truncated.parquet").write_bytes(whole[: len(whole) // 2])
    shutil.copy(data / "add" / "rl_train.parquet", data / "rl_train.pq")
    table = pq.read_table(data / "add" / "rl_train.parquet")
    for column in ("reward_model", "data_source"):
        pq.write_table(table.drop_columns([column]), data / f"rl_no_{column}.parquet")
    (models / "empty").mkdir()
    shutil.copytree(models / "tiny", models / "no-weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(models / "tiny", models / "corrupt")
    weights = models / "corrupt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    shutil.copytree(models / "tiny", models / "wide", ignore=shutil.ignore_patterns("*.safetensors"))
    from transformers import Qwen2Config, Qwen2ForCausalLM

    vocabulary = json.loads((models / "tiny" / "config.json").read_text())["vocab_size"]
    wide = Qwen2Config(
        vocab_size=vocabulary, hidden_size=1024, intermediate_size=16_384, num_hidden_layers=6, num_attention_heads=8
    )
    Qwen2ForCausalLM(wide).bfloat16().save_pretrained(models / "wide")


def fail(run: Run, log: Path) -> int:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            run.command,
            cwd=run.cwd,
            env=env | run.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=run.before,
        )
        if run.beside:
            threading.Thread(target=run.beside, args=(process.pid,), daemon=True).start()
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = 124
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code if code >= 0 else 128 - code


def cleaned(raw: bytes, scratch: Path) -> str:
    text = raw[-8 * KEEP_BYTES :].decode("utf-8", "replace")
    site = str(Path(sys.prefix))
    for old, new in ((str(scratch), "/private"), (site, "/opt/argus/.venv"), (str(REPO), "/opt/argus")):
        text = text.replace(old, new)
    text = text.replace(socket.gethostname(), "worker-1")
    text = re.sub(r"[^\n]{2000,}", lambda long: long[0][:1000] + " ... " + long[0][-500:], text)
    return text[-KEEP_BYTES:].partition("\n")[2] if len(text) > KEEP_BYTES else text


@contextlib.contextmanager
def scratch_folder() -> Iterator[Scratch]:
    # Short: Ray's sockets lie below TMPDIR, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="argus-fs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Scratch(Path(folder))


def main() -> None:
    wanted = sys.argv[1:] or list(SAMPLES_OF)
    if unknown := [name for name in wanted if name not in SAMPLES_OF]:
        sys.exit(f"no such sample: {' '.join(unknown)}\n\n{__doc__}")
    if os.geteuid():
        wanted = [name for name in wanted if name not in ("sft_disk_full", "sft_kernel_kill")]
    SAMPLES.mkdir(parents=True, exist_ok=True)
    codes_file = SAMPLES / "exit_codes.json"
    codes: dict[str, int] = json.loads(codes_file.read_text()) if codes_file.exists() else {}
    with scratch_folder() as scratch:
        make_inputs(scratch)
        for name in wanted:
            begin = time.monotonic()
            log = scratch.root / f"{name}.log"
            code = fail(SAMPLES_OF[name](scratch, name), log)
            raw = log.read_bytes()
            (SAMPLES / f"{name}.log").write_text(cleaned(raw, scratch.root))
            codes[name] = code
            codes_file.write_text(json.dumps(codes, indent=2, sort_keys=True) + "\n")
            print(f"{name}: exit code {code}, {len(raw)} bytes, {time.monotonic() - begin:.0f} s", flush=True)
            shutil.rmtree(scratch.job_root(name), ignore_errors=True)
    for group in _groups:
        with contextlib.suppress(OSError):
            group.rmdir()


if __name__ == "__main__":
    main()
