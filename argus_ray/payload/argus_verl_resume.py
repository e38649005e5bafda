"""An sft run that resumes from the end of an epoch. Loaded through VERL_USE_EXTERNAL_MODULES for sft attempts that
resume.

verl 0.9 saves the data loader's state with the step, and gives it to the loader of the run that resumes. After the
last step of an epoch that state is an exhausted loader: the next epoch, whose number follows from the step, then has
no batches at all, and if it is the last one, the run trains nothing and ends as if all were well (measured). Without
that state the next epoch begins as it would have begun in the run that was lost: the order of an epoch follows from
its number. (verl's ppo and grpo ask an exhausted loader for a new epoch themselves.)"""

from __future__ import annotations

from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler

_load = CheckpointHandler._load_dataloader_state


def _load_within_an_epoch(self: CheckpointHandler, checkpoint_path: str) -> None:
    if self.resume_global_step % len(self.train_dataloader):
        _load(self, checkpoint_path)
    elif self.rank == 0:
        print(f"Step {self.resume_global_step} ended an epoch: the next one starts afresh")


CheckpointHandler._load_dataloader_state = _load_within_an_epoch
