"""Builds a tiny model and its data without a network: `make_tiny.py FOLDER [MODEL]`, which gets `models/<MODEL>` (a
Qwen2 with random weights, a byte-level tokenizer and a chat template) and `datasets/add/*.parquet` (one-digit
additions, for sft and for ppo and grpo), and the empty `code/verl`: all that examples/cpu-*.yaml name. What is there
already stays. The models: `tiny` (the default; two layers, for
one core), and `small` (four layers, with heads and a length that the kernels for GPUs take).
"""

from __future__ import annotations

import functools
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 512},
    "small": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "max_position_embeddings": 4096},
}
VAL_ROWS = 16
REPEATS = 8


def make_model(folder: Path, size: dict[str, int]) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["system\n", "user\n", "assistant\n"] * 50, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        chat_template=CHAT_TEMPLATE,
        model_max_length=size["max_position_embeddings"],
        padding_side="left",
    )
    fast.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(fast),
        num_attention_heads=4,
        num_key_value_heads=2,
        **size,
        tie_word_embeddings=True,
        bos_token_id=fast.eos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def make_data(folder: Path) -> None:
    shuffler = random.Random(0)
    pairs = [(a, b) for a in range(10) for b in range(10)]
    shuffler.shuffle(pairs)
    train = pairs * REPEATS
    shuffler.shuffle(train)
    # A part of the training pairs: these runs show that the machine works, not that the model generalises.
    for split, rows in (("train", train), ("val", pairs[:VAL_ROWS])):
        pq.write_table(pa.Table.from_pylist([sft_row(*r) for r in rows]), folder / f"sft_{split}.parquet")
        rl_rows = [rl_row(*r, split, i) for i, r in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(rl_rows), folder / f"rl_{split}.parquet")


def question(a: int, b: int) -> dict[str, str]:
    return {"role": "user", "content": f"{a}+{b}="}


def sft_row(a: int, b: int) -> dict[str, Any]:
    return {"messages": [question(a, b), {"role": "assistant", "content": str(a + b)}]}


def rl_row(a: int, b: int, split: str, index: int) -> dict[str, Any]:
    return {
        "data_source": "tiny/add",
        "prompt": [question(a, b)],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(a + b)},
        "extra_info": {"split": split, "index": index},
    }


def main() -> None:
    name = sys.argv[2] if len(sys.argv) == 3 else "tiny"
    if len(sys.argv) not in (2, 3) or name not in SIZES:
        sys.exit(__doc__)
    root = Path(sys.argv[1])
    # verl is installed on the workers; a team's own copy would lie here and be found first.
    (root / "code" / "verl").mkdir(parents=True, exist_ok=True)
    make_this = functools.partial(make_model, size=SIZES[name])
    for folder, make in ((root / "models" / name, make_this), (root / "datasets" / "add", make_data)):
        if folder.exists():
            print(f"{folder} is there")
            continue
        # Whole or not at all: the folder appears under its name when it is complete.
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
        print(f"{folder} made")


if __name__ == "__main__":
    main()
