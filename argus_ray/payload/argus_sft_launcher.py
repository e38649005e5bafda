"""Runs verl's sft trainer on a gang that Ray knows of: `argus_sft_launcher.py --nnodes N ... --
OVERRIDES...`.

torchrun claims nothing from Ray, which would give its GPUs away a second time, and verl's own Ray variant
asks for ten CPUs a GPU. This driver asks for nothing itself; it makes one placement group with a bundle per
node and in each bundle one actor that starts one process per GPU, with the variables of torch's env://
rendezvous: what torchrun does, less its elasticity. Output comes back to this process' standard output; the
first process that fails ends all."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

EXIT_NOT_PLACED = 77
EXIT_NODE_LOST = 78
EXIT_CANNOT_START = 127

PLACEMENT_TIMEOUT_S = 600.0
PLACEMENT_REPORT_S = 30.0
ACTOR_START_TIMEOUT_S = 300.0
POLL_S = 1.0
MAX_LINE = 1 << 16
DRAIN_S = 2.0
#: torch's words when the port that was free a moment ago is not free any more.
PORT_TAKEN = b"EADDRINUSE"
#: The processes meet at the beginning: whatever holds these words later is not about that port.
MEETING_S = 120.0
_SIOCGIFADDR = 0x8915

#: Ties the program to the thread that starts it: killed with the actor, however that ends. Not a
#: preexec_fn, which is unsafe in a process with threads, and a Ray worker has many.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Node:
    """One node's processes. Made a Ray actor in `main`; knows nothing of Ray itself but the node's
    address."""

    def __init__(self, ip: str | None = None) -> None:
        self._ip = ip or _ray_node_ip()
        self._lines: queue.Queue[bytes] = queue.Queue(maxsize=10_000)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._keepers: list[threading.Thread] = []
        self._exit_code = 0
        self._lock = threading.Lock()

    def rendezvous(self) -> tuple[str, int]:
        """This node's address, with a port that is free now."""
        with socket.socket() as probe:
            probe.bind((self._ip, 0))
            return self._ip, int(probe.getsockname()[1])

    def start(self, command: list[str], cwd: str, shared: dict[str, str], first_rank: int, count: int) -> None:
        self._exit_code = 0
        self._processes = []
        environment = {"OMP_NUM_THREADS": "1", **self._interface(), **os.environ, **shared}
        started = threading.Barrier(count + 1)
        self._keepers = [
            threading.Thread(
                target=self._keep,
                args=(
                    command,
                    cwd,
                    {**environment, "RANK": str(first_rank + i), "LOCAL_RANK": str(i)},
                    started,
                ),
                daemon=True,
            )
            for i in range(count)
        ]
        for keeper in self._keepers:
            keeper.start()
        started.wait(timeout=60)

    def poll(self, timeout_s: float) -> tuple[bytes, int | None]:
        """Output that has come, waiting for some if there is none; and the exit code once all have ended."""
        ended = not any(keeper.is_alive() for keeper in self._keepers)
        lines = []
        with contextlib.suppress(queue.Empty):
            lines.append(self._lines.get(timeout=0.0 if ended else timeout_s))
            while len(lines) < 1000:
                lines.append(self._lines.get_nowait())
            ended = False  # perhaps more than a thousand
        return b"".join(lines), self._exit_code if ended else None

    def stop(self, grace_s: float) -> None:
        with self._lock:
            processes = list(self._processes)  # a later run's are not meant
        self._signal(signal.SIGTERM, processes)
        killer = threading.Timer(grace_s, self._signal, [signal.SIGKILL, processes])
        killer.daemon = True
        killer.start()

    def _keep(self, command: list[str], cwd: str, env: dict[str, str], started: threading.Barrier) -> None:
        """The thread that a process is tied to: it lives as long as the process does."""
        # Isolated: what lies in the user's code or in the working directory is not meant for these lines.
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
        try:
            process = subprocess.Popen(
                tied,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with self._lock:
                self._processes.append(process)
        except OSError as error:
            self._lines.put(f"cannot start a process: {error}\n".encode())
            self._exit_code = EXIT_CANNOT_START
            return
        finally:
            started.wait(timeout=60)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            # What it left behind; it is not reaped yet, so the group's id is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            is_first_failure = code != 0 and self._exit_code == 0
            if is_first_failure:
                self._exit_code = code if code > 0 else 128 - code
        if is_first_failure:
            self.stop(grace_s=5)
        # Its last lines; something outside its group may hold the pipe, and a full queue may hold the reader.
        drain_until = time.monotonic() + DRAIN_S
        while reader.is_alive() and (self._lines.full() or time.monotonic() < drain_until):
            reader.join(timeout=0.1)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Whole lines, so that those of several processes do not mix; a huge one in pieces."""
        assert process.stdout is not None
        with process.stdout as output:
            while line := output.readline(MAX_LINE):
                self._lines.put(line)

    def _signal(self, number: int, processes: list[subprocess.Popen[bytes]]) -> None:
        with self._lock:
            for process in processes:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)

    def _interface(self) -> dict[str, str]:
        """Gloo and NCCL take the interface of the host name otherwise, which may be a loopback address."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                    if socket.inet_ntoa(answer[20:24]) == self._ip:
                        return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
        return {}


class NodeLost(Exception):
    """A node, or the actor on it, died."""


class Gang:
    """The driver's side: claims the nodes, runs the processes, brings back what they print."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._nodes: list[Any] = []
        self._stopping = False
        self._port_was_taken = False
        self._failed_after_s = 0.0
        self._grace_s = max(1.0, float(os.environ.get("ARGUS_STOP_GRACE_S", "25")) - 5.0)

    def stop(self, *_: object) -> None:
        """For SIGTERM: the loops see it within a second."""
        self._stopping = True

    def run(self) -> int:
        try:
            if not self._place():
                return 128 + signal.SIGTERM if self._stopping else EXIT_NOT_PLACED
            code = self._run_once()
            if code and self._could_not_meet() and not self._stopping:
                say("the port for the processes to meet was taken meanwhile; trying another one")
                code = self._run_once()
        except NodeLost as loss:
            say(str(loss))
            return EXIT_NODE_LOST
        return 128 + signal.SIGTERM if self._stopping else code

    def _could_not_meet(self) -> bool:
        """Whether the run failed over the port before it had trained: only then may it be made again."""
        metrics = Path(os.environ.get("VERL_FILE_LOGGER_PATH", os.devnull))
        has_trained = metrics.exists() and metrics.stat().st_size > 0
        return self._port_was_taken and self._failed_after_s <= MEETING_S and not has_trained

    def _place(self) -> bool:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options = self._options
        bundle = {"GPU": options.gpus_per_node, "CPU": options.cpus_per_node}
        # Where Argus has chosen the nodes (ARGUS_NODES), else wherever Ray finds room.
        nodes = [node for node in os.environ.get("ARGUS_NODES", "").split(",") if node]
        selectors = [{"ray.io/node-id": node} for node in nodes] or None
        group = placement_group(
            [bundle] * options.nnodes, strategy="STRICT_SPREAD", name=options.name, bundle_label_selector=selectors
        )
        begin = time.monotonic()
        report_at = begin + PLACEMENT_REPORT_S
        wanted = f"{options.nnodes} node(s) with {bundle['GPU']} GPUs and {bundle['CPU']} CPUs each"
        while not group.wait(POLL_S):
            now = time.monotonic()
            if self._stopping:
                return False
            if now - begin > PLACEMENT_TIMEOUT_S:
                say(f"insufficient resources: no {wanted} within {PLACEMENT_TIMEOUT_S:g} s")
                return False
            if now > report_at:
                report_at += PLACEMENT_REPORT_S
                say(f"waiting for {wanted}, for {now - begin:.0f} s now")
        actor = ray.remote(num_gpus=bundle["GPU"], num_cpus=bundle["CPU"], max_concurrency=4)(Node)
        strategies = [PlacementGroupSchedulingStrategy(group, index) for index in range(options.nnodes)]
        self._nodes = [actor.options(scheduling_strategy=strategy).remote() for strategy in strategies]
        return True

    def _run_once(self) -> int:
        options = self._options
        self._port_was_taken = False
        address, port = self._get(0, self._nodes[0].rendezvous.remote())
        count = options.gpus_per_node
        shared = {
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(options.nnodes * count),
            "LOCAL_WORLD_SIZE": str(count),
        }
        command = [sys.executable, "-u", "-m", "verl.trainer.sft_trainer", *options.overrides]
        say(f"starting {options.nnodes} x {count} process(es), meeting at {address}:{port}")
        starts = [
            node.start.remote(command, options.job_root, {**shared, "GROUP_RANK": str(i)}, i * count, count)
            for i, node in enumerate(self._nodes)
        ]
        for i, start in enumerate(starts):
            self._get(i, start)
        return self._follow()

    def _follow(self) -> int:
        """Until all have ended, or one has failed and the others were stopped. The first failure's exit
        code."""
        import ray

        begin = time.monotonic()
        polls = {node.poll.remote(POLL_S): i for i, node in enumerate(self._nodes)}
        code = 0
        stopped = False
        give_up_at = float("inf")
        while polls and time.monotonic() < give_up_at:
            ready, _ = ray.wait(list(polls), timeout=POLL_S)
            for reference in ready:
                i = polls.pop(reference)
                output, exit_code = self._get(i, reference)
                self._print(i, output)
                if exit_code is None:
                    polls[self._nodes[i].poll.remote(POLL_S)] = i
                elif exit_code and not code:
                    code = exit_code
                    self._failed_after_s = time.monotonic() - begin
                    say(f"a process on node {i} ended with exit code {code}")
            if (code or self._stopping) and not stopped:
                stopped = True
                give_up_at = time.monotonic() + self._grace_s + 10
                for node in self._nodes:
                    node.stop.remote(self._grace_s)
        if polls:
            say("not all processes ended when told to")
        return code or int(bool(polls))

    def _get(self, index: int, reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference, timeout=ACTOR_START_TIMEOUT_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            raise NodeLost(f"lost node {index} of the gang: {type(error).__name__}: {error}") from None

    def _print(self, index: int, output: bytes) -> None:
        self._port_was_taken |= PORT_TAKEN in output
        if self._options.nnodes > 1:
            prefix = f"[node {index}] ".encode()
            output = b"".join(prefix + line for line in io.BytesIO(output))
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()


def say(message: str) -> None:
    print(f"argus-sft: {message}", flush=True)


def _ray_node_ip() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="argus_sft_launcher.py")
    parser.add_argument("--name", required=True, help="of the placement group")
    parser.add_argument("--nnodes", type=int, required=True)
    parser.add_argument("--gpus-per-node", type=int, required=True)
    parser.add_argument("--cpus-per-node", type=int, required=True)
    parser.add_argument("--job-root", required=True, help="working directory of the processes")
    parser.add_argument("overrides", nargs="*", help="for verl.trainer.sft_trainer")
    gang = Gang(parser.parse_args(arguments))

    import argus_own_raylet  # type: ignore[import-not-found]  # neighbours on the workers' PYTHONPATH
    import argus_ray_poll  # type: ignore[import-not-found]
    import ray

    # The cluster of the job (RAY_ADDRESS); never one of our own. We bring the output ourselves.
    argus_ray_poll.install(ray._raylet)
    ray.init(address="auto", log_to_driver=False, **argus_own_raylet.options())
    signal.signal(signal.SIGTERM, gang.stop)
    signal.signal(signal.SIGINT, gang.stop)
    return gang.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
