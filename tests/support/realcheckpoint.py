"""What verl's own checkpoint manager writes on some processes: `realcheckpoint.py RANK WORLD PORT MODEL FOLDER`, a
process each. Makes `FOLDER/actor` and `FOLDER/critic`, and beside them, of rank 0, `whole.pt`: their whole weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(rank: str, world: str, port: str, model: str, folder: str) -> None:
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    import torch
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    init_process_group("gloo")
    mesh = init_device_mesh("cpu", (int(world),), mesh_dim_names=("fsdp",))
    whole = {}
    for part, auto in (("actor", AutoModelForCausalLM), ("critic", AutoModelForTokenClassification)):
        torch.manual_seed(1)
        config = AutoConfig.from_pretrained(model)
        if part == "critic":
            config.num_labels = 1  # as verl has it
        made = auto.from_pretrained(model, config=config, dtype=torch.float32)
        with torch.no_grad():
            for weight in made.parameters():  # as after some steps, and nothing that bfloat16 holds exactly
                weight.add_(torch.randn_like(weight) / 50)
        whole[part] = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        for layer in made.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(made, mesh=mesh)
        optimizer = torch.optim.SGD(made.parameters(), lr=1e-3)
        tokenizer = AutoTokenizer.from_pretrained(model)
        FSDPCheckpointManager(made, optimizer, processing_class=tokenizer).save_checkpoint(f"{folder}/{part}")
    if rank == "0":
        torch.save(whole, Path(folder, "whole.pt"))
    destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
