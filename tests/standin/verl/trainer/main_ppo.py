"""`python -m verl.trainer.main_ppo`: a driver without resources, a task runner, and the gang as placement
groups."""

import os
import signal
import sys
from typing import Any

import ray

from verl.plan import KillDriver, Run, insufficient, leave_behind, overrides
from verl.single_controller.ray.base import make_groups


@ray.remote(num_cpus=1)
class TransferQueueController:
    def __init__(self, owner: str) -> None:
        self._owner = owner

    def owner(self) -> str:
        return self._owner


@ray.remote
class TaskRunner:
    """As in verl, all the work is in this actor, and its exceptions reach the driver as RayTaskError."""

    def run(self, settings: dict[str, str]) -> bool:
        """False if the driver is to end by SIGKILL."""
        run = Run(settings)
        run.record_execution()
        if run.plan.leave_behind:
            leave_behind()
        if run.plan.transfer_queue:
            self._controller = attach_or_create()
        nnodes = int(settings["trainer.nnodes"])
        n_gpus = int(settings["trainer.n_gpus_per_node"])
        self._claim(nnodes, n_gpus, refuse=run.plan.fail == "insufficient")
        try:
            parts = ("actor", "critic") if settings["algorithm.adv_estimator"] == "gae" else ("actor",)
            run.train(save_always=False, parts=parts, metric="critic/score/mean")
        except KillDriver:
            return False
        return True

    def _claim(self, nnodes: int, n_gpus: int, *, refuse: bool) -> None:
        per_node = ray._private.state.available_resources_per_node()
        available = 0 if refuse else int(sum(node.get("GPU", 0) for node in per_node.values()))
        if available < nnodes * n_gpus:
            raise insufficient(available, nnodes * n_gpus)
        self._groups = make_groups(nnodes, n_gpus)
        for group in self._groups:  # not ready(): that starts a process in each
            while not group.wait(60):
                print("stand-in: waiting for the gang", flush=True)


def attach_or_create() -> Any:
    """As transfer_queue.init does. Prints whose it is: with isolation, always our own."""
    own = os.environ["ARGUS_SUBMISSION_ID"]
    try:
        controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    except ValueError:
        actor = TransferQueueController.options(name="TransferQueueController", namespace="transfer_queue")
        controller = actor.remote(own)
    print(f"stand-in transfer queue of {ray.get(controller.owner.remote())}", flush=True)
    return controller


def main() -> None:
    ray.init()
    settings = overrides(sys.argv[1:])
    if Run(settings).plan.leave_behind:
        leave_behind()
    survives = ray.get(TaskRunner.remote().run.remote(settings))
    if not survives:
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
