"""Makes argus_ray/core/verl/keys.tsv, the keys that verl's configuration has: `make_verl_keys.py`; with `--check` it
only says whether that file is what it would write.

From verl's own composed configurations of the two trainers, and from the dataclasses that these are read into (by their
source, so that torch is not loaded): kinds come from the annotations, and some fields are in no configuration file.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

OUT = Path(__file__).resolve().parents[1] / "argus_ray" / "core" / "verl" / "keys.tsv"
CONFIGURATIONS = {"rl": "ppo_trainer", "sft": "sft_trainer_engine"}
HEADER = (
    "# Keys of verl {version}, by scripts/make_verl_keys.py: workloads, key, kinds, where it is known (in the\n"
    "# configuration, or only in the dataclass or the code: Hydra wants a + before it), and verl's own value.\n"
)

#: Where neither the annotation nor the value of verl says it: the code that reads it does.
KINDS = {
    "data.gen_batch_size": "int|null",
    "data.seed": "int|null",
    "data.tokenizer": "null|str",
    "data.val_batch_size": "int|null",
    "*.adapter_path": "null|str",
    "*.bootstrap_port": "int|null",
    "*.custom_cls.*": "null|str",
    "*.custom_reward_function.path": "null|str",
    "*.decode_tensor_model_parallel_size": "int|null",
    "*.exclude_modules": "list|null|str",
    "*.external_lib": "null|str",
    "*.ib_device": "null|str",
    "*.log_prob_max_token_len_per_gpu": "int",
    "*.log_prob_micro_batch_size": "int|null",
    "*.log_prob_micro_batch_size_per_gpu": "int|null",
    "*.log_prob_use_dynamic_bsz": "bool",
    "*.lora.dtype": "null|str",
    "*.quantization_config_path": "null|str",
    "*.rollout_is": "null|str",
    "*.rollout_rs": "null|str",
    "*.rollout_rs_threshold": "float|null|str",
    "*.target_modules": "list|str",
    "*.total_training_steps": "int|null",
    "*_tool_path": "null|str",
    "*.tool_config_path": "null|str",
    "*_ckpt_to_keep": "int|null",
}
#: Read by verl, and in neither its configuration nor a dataclass.
BESIDE = (
    ("rl", "reward.custom_reward_function.reward_kwargs", "dict", "{}"),
    ("rl", "reward.reward_kwargs", "dict", "{}"),
)
#: Fields in no configuration that verl fills itself, or that are there for another part only.
INTERNAL = (
    *("*.engine", "*.model_config", "*.global_batch_info", "*.hf_config", "*.local_*", "*.tokenizer", "*.processor"),
    *("*.architectures", "*.generation_config", "*.share_embeddings_and_output_weights", "*.qat", "*.load_tokenizer"),
    *("*.fsdp*.*max_token_len_per_gpu", "*.fsdp*.*micro_batch_size_per_gpu", "*.fsdp*.use_*"),
    *("engine.*max_token_len_per_gpu", "engine.*micro_batch_size_per_gpu", "engine.use_*"),
    *("*.ppo_infer_*", "*.layer_name_map", "*.model.model_type"),
)
#: The reference model's part is read into the actor's dataclass, and uses these only.
REFERENCE = re.compile(r"actor_rollout_ref\.ref\.[a-z_]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KINDS = {"bool": "bool", "int": "int", "float": "float", "str": "str", "None": "null", "Literal": "str"}
_LISTS = frozenset({"list", "List", "tuple", "Tuple", "Sequence"})
_DICTS = frozenset({"dict", "Dict", "DictConfig"})


@dataclass
class Class:
    bases: list[str]
    #: Of its own fields.
    fields: dict[str, ast.expr] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Key:
    key: str
    kinds: str
    #: "config" or "dataclass"
    known: str
    default: str


def package() -> Path:
    found = importlib.util.find_spec("verl")
    if found is None or not found.origin:
        sys.exit("verl is not installed")
    return Path(found.origin).parent


def compose(folder: Path, name: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(folder), version_base=None):
        made = OmegaConf.to_container(hydra.compose(name), resolve=False)
    assert isinstance(made, dict)
    return made


def classes(folder: Path) -> dict[str, Class]:
    found: dict[str, Class] = {}
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text()
        if "@dataclass" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                made = Class([ast.unparse(base).rpartition(".")[2] for base in node.bases])
                for each in node.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        made.fields[each.target.id] = each.annotation
                if made.fields or node.name not in found:
                    found.setdefault(node.name, made)
    return found


def fields_of(name: str, known: dict[str, Class]) -> dict[str, ast.expr]:
    if name not in known:
        return {}
    inherited: dict[str, ast.expr] = {}
    for base in known[name].bases:
        inherited |= fields_of(base, known)
    return inherited | known[name].fields


def kinds_of(annotation: ast.expr | None) -> frozenset[str]:
    """Empty: it does not say."""
    if annotation is None:
        return frozenset()
    if isinstance(annotation, ast.Constant):
        return frozenset({"null"}) if annotation.value is None else frozenset()
    if isinstance(annotation, ast.BinOp):
        return kinds_of(annotation.left) | kinds_of(annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rpartition(".")[2]
        if outer in ("Optional", "Union"):
            inner = annotation.slice
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            kinds = frozenset().union(*(kinds_of(part) for part in parts))
            return kinds | {"null"} if outer == "Optional" else kinds
        annotation = annotation.value
    name = ast.unparse(annotation).rpartition(".")[2]
    if name in _LISTS:
        return frozenset({"list"})
    if name in _DICTS:
        return frozenset({"dict"})
    return frozenset({_KINDS[name]}) if name in _KINDS else frozenset()


def kind_of_value(value: Any) -> frozenset[str]:
    if isinstance(value, str) and ("${" in value or value == "???"):
        return frozenset()
    if isinstance(value, list | dict):
        return frozenset({type(value).__name__})
    return frozenset({"null" if value is None else type(value).__name__})


def keys(tree: dict[str, Any], known: dict[str, Class], path: str = "") -> Iterator[Key]:
    fields = fields_of(str(tree.get("_target_", "")).rpartition(".")[2], known)
    for name, value in tree.items():
        key = f"{path}{name}"
        if not _NAME.fullmatch(str(name)):
            continue  # _target_, and names that a key of Hydra's grammar does not hold
        if isinstance(value, dict) and value:
            yield from keys(value, known, f"{key}.")
            continue
        kinds = kinds_of(fields.get(name)) - {""}
        own = kind_of_value(value)
        # verl's own value is right whatever the annotation says.
        both = kinds | own if kinds else own
        if own == {"null"} and not kinds:
            both = frozenset()
        said = next((kinds for pattern, kinds in KINDS.items() if fnmatchcase(key, pattern)), None)
        yield Key(key, said or "|".join(sorted(both)) or "any", "config", json.dumps(value))
    for name, annotation in fields.items():
        kinds = kinds_of(annotation)
        key = f"{path}{name}"
        if name in tree or name.startswith("_") or not kinds or REFERENCE.fullmatch(key):
            continue
        if not any(fnmatchcase(key, pattern) for pattern in INTERNAL):
            yield Key(key, "|".join(sorted(kinds)), "dataclass", "")


def table() -> str:
    folder = package()
    known = classes(folder)
    rows: dict[Key, list[str]] = {}
    for workloads, name in CONFIGURATIONS.items():
        for key in keys(compose(folder / "trainer" / "config", name), known):
            rows.setdefault(key, []).append(workloads)
    for workloads, name, kinds, default in BESIDE:
        rows[Key(name, kinds, "code", default)] = [workloads]
    version = importlib.metadata.version("verl")
    lines = ["\t".join((",".join(rows[k]), k.key, k.kinds, k.known, k.default)) for k in sorted(rows)]
    return HEADER.format(version=version) + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(None if OUT.read_text() == table() else f"{OUT} is not what verl has")
    OUT.write_text(table())


if __name__ == "__main__":
    main()
