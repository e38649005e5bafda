"""PPO's critic on the CPU. Loaded through VERL_USE_EXTERNAL_MODULES for ppo with trainer_device cpu only.

verl.utils.model.load_valuehead_model asks for flash_attention_2, whatever the configuration says, and that
does not exist on a CPU. This replaces the function by one that asks for plain attention. It loads token
classification heads only, not trl's value heads."""

from __future__ import annotations

from typing import Any

import verl.utils.model

if not hasattr(verl.utils.model, "load_valuehead_model"):
    raise ImportError("this version of verl has no load_valuehead_model: argus_verl_critic does not know it")


def load_valuehead_model(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForTokenClassification

    return AutoModelForTokenClassification.from_pretrained(
        local_path,
        dtype=torch_dtype,
        config=model_config,
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
    )


verl.utils.model.load_valuehead_model = load_valuehead_model
