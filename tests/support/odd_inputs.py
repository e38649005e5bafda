"""Models and data sets as they come in life, and what is to be said of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.builders import MODEL_FILES, safetensors_file

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 987654321\n"


@dataclass(frozen=True)
class OddModel:
    name: str
    #: What it makes of a folder with a whole model.
    make: Callable[[Path], object]
    #: Words of the error, and of a warning.
    error: str = ""
    warning: str = ""
    #: Whether transformers, as the lock has it, loads its configuration and weights; None: it depends on what is
    #: installed.
    loads: bool | None = False


def make_model(folder: Path, *, over: bool = False) -> Path:
    """A folder with a model that passes a look."""
    folder.mkdir(parents=True, exist_ok=over)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(MODEL_FILES[name])
    return folder


def configure(folder: Path, **values: Any) -> None:
    """Changes config.json. None: takes the value out."""
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def _tensors(folder: Path) -> list[str]:
    raw = weights(folder).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return [name for name in header if name != "__metadata__"]


def _index(folder: Path, shard: str, **more: Any) -> None:
    names = _tensors(folder)
    content = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)} | more
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def _move(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    weights(folder).rename(folder / name)


def _shard(folder: Path, name: str, **more: Any) -> None:
    _index(folder, name, **more)
    _move(folder, name)


def _dangle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("../blobs/none")


def _adapter(folder: Path, base: str = "org/base") -> None:
    _move(folder, "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _both(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for step in steps:
            step(folder)

    return make


def _write(name: str, content: bytes | str) -> Callable[[Path], object]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def _gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _bin(content: bytes | str) -> Callable[[Path], object]:
    return _both(_gone("model.safetensors"), _write("pytorch_model.bin", content))


def _cut(path: Path, size: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:size])


OWN_CODE = {"AutoConfig": "conf.C", "AutoModelForCausalLM": "model.M"}
BIN = MODEL_FILES["pytorch_model.bin"]

MODELS = [
    OddModel("whole", lambda f: None, loads=True),
    # weights that are not there
    OddModel("dangling link", lambda f: _dangle(weights(f)), error="a model.safetensors that does not exist"),
    OddModel(
        "training_args only",
        _both(_gone("model.safetensors"), _write("training_args.bin", BIN)),
        error="training_args.bin is none",
    ),
    OddModel("adapter only", _both(_adapter, _gone("config.json")), error="is an adapter only", loads=None),
    OddModel("adapter with a config", _adapter, error="is an adapter only"),
    OddModel("gguf only", lambda f: _move(f, "m.Q4.gguf"), error="cannot load m.Q4.gguf"),
    OddModel("pth only", lambda f: _move(f, "consolidated.00.pth"), error="cannot load consolidated.00.pth"),
    OddModel("msgpack only", lambda f: _move(f, "flax_model.msgpack"), error="cannot load flax_model.msgpack"),
    OddModel("h5 only", lambda f: _move(f, "tf_model.h5"), error="cannot load tf_model.h5"),
    OddModel(
        "other names", lambda f: _move(f, "weights.safetensors"), warning="does not look for (weights.safetensors"
    ),
    OddModel(
        "shards without an index",
        lambda f: _move(f, "model-00001-of-00001.safetensors"),
        warning="does not look for (model-00001",
    ),
    OddModel(
        "name by the config",
        _both(lambda f: _move(f, "w.safetensors"), lambda f: configure(f, transformers_weights="w.safetensors")),
        loads=True,
    ),
    OddModel(
        "name by the config, gone",
        lambda f: configure(f, transformers_weights="w.safetensors"),
        error="a w.safetensors that does not exist",
    ),
    # weights that are not what they seem
    OddModel("pointer for weights", _write("model.safetensors", POINTER), error="Git LFS pointer"),
    OddModel("empty weights", _write("model.safetensors", b""), error="a model.safetensors that is empty"),
    OddModel("zeros", _write("model.safetensors", bytes(5000)), error="is no safetensors file"),
    OddModel("cut", lambda f: _cut(weights(f), -5), error="a model.safetensors that is cut short"),
    OddModel("cut in its header", lambda f: _cut(weights(f), 40), error="is cut short: its header"),
    OddModel("cut in its length", lambda f: _cut(weights(f), 5), error="is no safetensors file"),
    OddModel("longer", lambda f: weights(f).write_bytes(weights(f).read_bytes() + b"x" * 9), error="9 bytes too many"),
    OddModel("pointer for .bin", _bin(POINTER), error="pytorch_model.bin that is a Git LFS pointer"),
    OddModel("empty .bin", _bin(b""), error="pytorch_model.bin that is empty"),
    OddModel("cut .bin", _bin(BIN[:-9] + bytes(100)), error="pytorch_model.bin that is cut short"),
    OddModel("odd .bin", _bin(b"neither a zip nor a pickle"), warning="does not begin as a file of torch.save"),
    # an index
    OddModel("shard", lambda f: _shard(f, "s.safetensors"), loads=True),
    OddModel(
        "shard in a folder below", lambda f: _shard(f, "sub/s.safetensors"), warning="in other folders", loads=True
    ),
    OddModel(
        "shard in a folder beside", lambda f: _shard(f, "../beside/s.safetensors"), warning="../beside/", loads=True
    ),
    OddModel(
        "shard beside, gone",
        _both(lambda f: _index(f, "../no/s.safetensors"), _gone("model.safetensors")),
        error="a ../no/s.safetensors that does not exist",
    ),
    OddModel(
        "shard gone",
        _both(lambda f: _index(f, "s.safetensors"), _gone("model.safetensors")),
        error="lacks weights that model.safetensors.index.json names: s.safetensors",
    ),
    OddModel("shard gone, .bin whole", _both(lambda f: _index(f, "s.safetensors"), _bin(BIN)), error="lacks weights"),
    OddModel(
        "dangling shard",
        _both(lambda f: _index(f, "s.safetensors"), _gone("model.safetensors"), lambda f: _dangle(f / "s.safetensors")),
        error="a s.safetensors that does not exist",
    ),
    OddModel(
        "pointer for a shard",
        _both(lambda f: _index(f, "s.safetensors"), _gone("model.safetensors"), _write("s.safetensors", POINTER)),
        error="s.safetensors that is a Git LFS",
    ),
    OddModel(
        "pointer for an index",
        _both(lambda f: _shard(f, "s.safetensors"), _write("model.safetensors.index.json", POINTER)),
        error="Git LFS pointer",
    ),
    OddModel(
        "index is a list",
        _both(lambda f: _shard(f, "s.safetensors"), _write("model.safetensors.index.json", "[]")),
        error="an index that cannot be read",
    ),
    OddModel(
        "index of numbers",
        _both(
            lambda f: _shard(f, "s.safetensors"),
            _write("model.safetensors.index.json", '{"metadata": {}, "weight_map": {"a": 1}}'),
        ),
        error="an index that cannot be read",
    ),
    OddModel(
        "index without metadata",
        lambda f: _shard(f, "s.safetensors", metadata=None),
        warning="without metadata",
        loads=None,
    ),
    OddModel(
        "shards too small together",
        lambda f: _shard(f, "s.safetensors", metadata={"total_size": 10**9}),
        warning="is its download whole?",
        loads=True,
    ),
    OddModel("index torn, one file whole", lambda f: _index(f, "s.safetensors"), loads=True),
    OddModel("index of another name", _write("other.safetensors.index.json", "[]"), loads=True),
    # config.json
    OddModel("own code", lambda f: configure(f, auto_map=OWN_CODE), warning="trust_remote_code", loads=True),
    OddModel("own code alone", lambda f: configure(f, auto_map=OWN_CODE, model_type=None), warning="trust_remote_code"),
    OddModel("config is a pointer", _write("config.json", POINTER), error="config.json that is a Git LFS pointer"),
    OddModel("config is empty", _write("config.json", b""), error="config.json that is empty"),
    OddModel("config is no JSON", _write("config.json", "model_type: qwen2"), error="is no JSON object"),
    OddModel("config is a list", _write("config.json", "[]"), error="is no JSON object"),
    OddModel(
        "config with a byte order mark",
        _write("config.json", b"\xef\xbb\xbf" + MODEL_FILES["config.json"]),
        error="is no JSON object",
    ),
    OddModel("config without a type", lambda f: configure(f, model_type=None), error="without a model_type"),
    OddModel("config with a number for a type", lambda f: configure(f, model_type=7), error="without a model_type"),
    OddModel("dangling config", lambda f: _dangle(f / "config.json"), error="a config.json that does not exist"),
    OddModel(
        "quantized",
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        warning="is quantized (gptq)",
        loads=None,
    ),
    OddModel("no architecture", lambda f: configure(f, architectures=None), warning="architectures", loads=True),
    # the tokenizer
    OddModel("no tokenizer", _gone("tokenizer.json"), warning="holds no tokenizer", loads=True),
    OddModel(
        "pointer for a tokenizer",
        _write("tokenizer.json", POINTER),
        error="tokenizer.json that is a Git LFS",
        loads=None,
    ),
    OddModel(
        "pointer for a vocabulary", _write("vocab.json", POINTER), warning="vocab.json that is a Git LFS", loads=None
    ),
    OddModel(
        "dangling tokenizer",
        lambda f: _dangle(f / "tokenizer.json"),
        warning="a tokenizer.json that does not exist",
        loads=True,
    ),
    # a link that leads nowhere, and the next one of transformers' names
    OddModel(
        "dangling, .bin whole",
        _both(lambda f: _dangle(weights(f)), _write("pytorch_model.bin", BIN)),
        warning="pytorch_model.bin is taken in its place",
        loads=None,
    ),
    OddModel(".bin", _bin(BIN), warning="torch 2.6", loads=None),
]

__all__ = ["MODELS", "POINTER", "OddModel", "configure", "make_model", "safetensors_file", "weights"]
