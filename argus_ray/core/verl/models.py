"""What a model's folder must hold so that verl 0.9 can load it, by the names in it and by the bytes of its files.
Pure; it opens nothing.

Taken from transformers 5 (modeling_utils, configuration_utils), which verl 0.9 requires, and from the format of
safetensors. `disk/model_folder.py` looks at the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

CONFIG = "config.json"
#: In this order transformers takes the first that is a file, and no other name, unless config.json names one.
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHTS = (SAFETENSORS, SAFETENSORS_INDEX, TORCH, TORCH_INDEX)
#: The name that config.json may give in place of them.
_EXPLICIT = "transformers_weights"

_ADAPTER_CONFIG = "adapter_config.json"
#: That a Trainer leaves beside a model; they end as weights do.
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin", "scaler.bin"})
_OTHER_FORMATS = (".gguf", ".pth", ".pt", ".ckpt", ".msgpack", ".h5", ".onnx")

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
#: Each is a tokenizer, or the vocabulary of one.
_TOKENIZERS = frozenset(
    {
        TOKENIZER, "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
        "spm.model", "source.spm", "tekken.json", "merges.txt",
    }
)  # fmt: skip

#: How a text begins that stands for a file which `git lfs` has not fetched; such a text is some 130 bytes long.
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_POINTER_BYTES = 1024
POINTER_RULE = "is a Git LFS pointer, and not the file itself: fetch it with `git lfs pull`"

#: The length of a safetensors header, which comes first.
LENGTH_BYTES = 8
#: Above that safetensors refuses a header.
_MAX_HEADER_BYTES = 100_000_000
_OFFSETS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d{1,19}\s*,\s*(\d{1,19})\s*\]')
_ZIP, _PICKLE = b"PK\3\4", b"\x80"


def is_pointer(beginning: bytes) -> bool:
    return beginning.startswith(_LFS_POINTER)


# --- config.json ---


@dataclass(frozen=True)
class Config:
    #: What no transformers can load, in words; empty: nothing.
    error: str = ""
    #: What may be all right.
    doubts: tuple[str, ...] = ()
    #: The file with the weights, if the configuration names it.
    weights: str | None = None


def read_config(raw: bytes) -> Config:
    values = _json(raw)
    if not isinstance(values, dict):
        if is_pointer(raw):
            return Config(f"has a {CONFIG} that {POINTER_RULE}")
        what = "is empty" if not raw.strip() else "is no JSON object"
        return Config(f"has a {CONFIG} that {what}")
    auto_map = values.get("auto_map")
    has_own_config = isinstance(auto_map, dict) and "AutoConfig" in auto_map
    if not isinstance(values.get("model_type"), str) and not has_own_config:
        return Config(f"has a {CONFIG} without a model_type, by which transformers knows the model")
    explicit = values.get(_EXPLICIT)
    return Config(doubts=_doubts_of(values), weights=explicit if isinstance(explicit, str) else None)


def _doubts_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    doubts = []
    if values.get("auto_map"):
        doubts.append(
            f"brings code of its own (auto_map in {CONFIG}): it is not run, for that needs trust_remote_code, which "
            "only an operator's rule may set. Without it transformers uses its own code, if it knows this model"
        )
    quantization = values.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        how = f" ({method[:40]})" if isinstance(method, str) else ""
        doubts.append(f"is quantized{how}: verl trains weights that are not, and the library for it may be missing")
    names = values.get("architectures")
    if not isinstance(names, list) or len(names) != 1:
        doubts.append(f"has a {CONFIG} whose architectures are not exactly one, which verl wants")
    return tuple(doubts)


# --- the names in the folder ---


def is_adapter(names: Set[str]) -> bool:
    return _ADAPTER_CONFIG in names


ADAPTER_RULE = f"is an adapter only ({_ADAPTER_CONFIG}): the weights of its base model must be there, too"


def rule_without_weights(names: Set[str]) -> str:
    """For a folder without any of `WEIGHTS` and of `other_weights`: what it lacks, and what it has in their place."""
    if is_adapter(names):
        return ADAPTER_RULE
    rule = "holds no weights (*.safetensors or *.bin)"
    if trainer := sorted(names & _NO_WEIGHTS):
        return f"{rule}: {trainer[0]} is none"
    if other := sorted(name for name in names if name.endswith(_OTHER_FORMATS)):
        return f"{rule}: verl cannot load {clip(other)}"
    return rule


def other_weights(names: Set[str]) -> list[str]:
    """That are weights by their ending, and of names that transformers does not look for."""
    ends = (".safetensors", ".bin")
    return sorted(n for n in names if n.endswith(ends) and n not in _NO_WEIGHTS and not n.startswith("adapter_model."))


def tokenizers_in(names: Set[str]) -> Set[str]:
    return {name for name in names if name in _TOKENIZERS or name.endswith(".tiktoken")}


def clip(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- an index of weights ---


@dataclass(frozen=True)
class Index:
    files: frozenset[str]
    #: Of all weights, in bytes, as the index says; None: it does not.
    total_size: int | None
    has_metadata: bool


def read_index(raw: bytes) -> Index | None:
    """None: transformers cannot read it."""
    values = _json(raw)
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        return None
    metadata = values["metadata"] if isinstance(values.get("metadata"), dict) else None
    size = (metadata or {}).get("total_size")
    total = int(size) if isinstance(size, (int, float)) and not isinstance(size, bool) and 0 < size < 2**60 else None
    return Index(frozenset(weight_map.values()), total, metadata is not None)


# --- a file of weights ---


def length_of_header(beginning: bytes) -> int:
    """In bytes, of a safetensors file."""
    return int.from_bytes(beginning[:LENGTH_BYTES], "little")


def rule_of_beginning(name: str, size: int, beginning: bytes) -> str:
    """What is wrong with a file of weights of this size that begins so, in words; empty: nothing that shows here."""
    if size == 0:
        return "is empty"
    if is_pointer(beginning):
        return POINTER_RULE
    if not name.endswith(".safetensors"):
        return ""
    length = length_of_header(beginning)
    if size < LENGTH_BYTES or not 1 < length <= _MAX_HEADER_BYTES or beginning[LENGTH_BYTES:][:1] not in (b"{", b""):
        return "is no safetensors file"
    if LENGTH_BYTES + length > size:
        return "is cut short: its header does not fit into it"
    return ""


def rule_of_header(size: int, header: bytes) -> str:
    """The same of a safetensors file with this whole header: where its last tensor ends, the file must end."""
    if not header.startswith(b"{") or not header.rstrip().endswith(b"}"):
        return "is no safetensors file"
    end = LENGTH_BYTES + len(header) + max((int(found) for found in _OFFSETS.findall(header)), default=0)
    if size < end:
        return f"is cut short: {size} of {end} bytes"
    return f"has {size - end} bytes too many" if size > end else ""


def is_torch_file(beginning: bytes) -> bool:
    """Whether torch.save may have begun a file so; a zip since torch 1.6."""
    return beginning.startswith((_ZIP, _PICKLE))


def is_zip(beginning: bytes) -> bool:
    return beginning.startswith(_ZIP)


def _json(raw: bytes) -> Any:
    """None for what is no JSON, or is nested too deeply."""
    try:
        # As transformers reads it; json itself would guess UTF-16 and take a byte order mark.
        return json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
