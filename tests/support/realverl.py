"""Tasks that train for real: the examples for the CPU, on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.raycluster import ROOT, Api

needs_verl = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "verl")),
    reason="torch and verl are not installed (pip install 'argus-ray[verl]')",
)

#: Say how long something took or how much the machine had in use, not how the training went.
_OF_THE_MACHINE = ("timing", "perf/", "train/mfu", "critic/perf/", "actor/perf/")


def make_inputs(shared: Path) -> None:
    """A tiny model and a data set of one-digit additions where the examples have theirs; no code of a user's own."""
    subprocess.run([sys.executable, ROOT / "scripts" / "make_tiny.py", shared / "common"], check=True, timeout=300)


#: Of the vocabulary of the model that attacks: enough that most answers of eight tokens hold one.
_ATTACKS = 60
_CODE_TESTS = json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]})


def make_attacks(shared: Path) -> dict[str, str]:
    """The same for a model that attacks whoever runs what it writes: a part of its tokens are whole answers that make a
    file in `marks/` where they are run. Half of the rows are of data sources with which verl's default scorer does.
    The fields of a TaskSpec."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

    common, marks = shared / "common", shared / "marks"
    marks.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(common / "models" / "tiny")
    for i in range(_ATTACKS):
        evaluated = rf"""\boxed{{\pi-open("{marks}/{i}","w").fileno()}}"""
        executed = f"```python\nopen('{marks}/{i}', 'w')\n```"
        # And numbers, for which some answers score: without a reward all runs train alike.
        for token in (executed if i % 4 == 0 else evaluated, f"{i} "):
            tokenizer.add_tokens(AddedToken(token, special=False, normalized=False))
    model = AutoModelForCausalLM.from_pretrained(common / "models" / "tiny")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for made in (tokenizer, model):
        made.save_pretrained(common / "models" / "attacks")
    (common / "datasets" / "attacks").mkdir()
    for split in ("train", "val"):
        rows = pq.read_table(common / "datasets" / "add" / f"rl_{split}.parquet").to_pylist()
        for i, row in enumerate(rows):
            if i % 2:
                row["data_source"] = "numina_olympiads" if i % 4 == 1 else "apps"
            if i % 4 == 3:
                row["reward_model"]["ground_truth"] = _CODE_TESTS
        pq.write_table(pa.Table.from_pylist(rows), common / "datasets" / "attacks" / f"rl_{split}.parquet")
    folder = common / "datasets" / "attacks"
    files = {"train_file": str(folder / "rl_train.parquet"), "val_file": str(folder / "rl_val.parquet")}
    return {"model_id": str(common / "models" / "attacks"), **files}


def attacks_in(root: Path) -> int:
    """How many answers of a ppo or grpo run would have made a file."""
    lines = [line for file in (root / "rollouts").glob("*.jsonl") for line in file.read_text().splitlines()]
    return sum("/marks/" in json.loads(line)["output"] for line in lines)


def own_inputs(shared: Path, user_id: str) -> dict[str, str]:
    """Copies of what sft's example names, in the user's own folders, by the fields of a TaskSpec."""
    own, common = shared / "users" / user_id, shared / "common"
    shutil.copytree(common / "models" / "tiny", own / "models" / "tiny")
    (own / "datasets").mkdir()
    fields = {"model_id": str(own / "models" / "tiny")}
    for field, name in (("train_file", "sft_train.parquet"), ("val_file", "sft_val.parquet")):
        fields[field] = str(shutil.copy(common / "datasets" / "add" / name, own / "datasets" / name))
    return fields


def wait_long(user: Api, task: str) -> dict[str, Any]:
    """The task's view once it has SUCCEEDED; 15 minutes at most."""
    view = user.wait_final(task, 900)
    assert view["state"] == "SUCCEEDED", view["reason"]
    return view


def curves(user: Api, task: str) -> dict[str, dict[int, float]]:
    """What the API tells of the training, by name, as {step: value}, through all attempts."""
    path = f"/api/v2/tasks/{task}/metrics?max_points=2048"
    first = user.get(path)
    names = [name for name in [*first["curves"], *first["available"]] if not name.startswith(_OF_THE_MACHINE)]
    found = {}
    for i in range(0, len(names), 16):
        for name, curve in user.get(f"{path}&names={','.join(names[i : i + 16])}")["curves"].items():
            assert len(set(curve["steps"])) == len(curve["steps"]), f"{name} has a step twice"
            found[name] = dict(zip(curve["steps"], curve["values"], strict=True))
    assert found.keys() == set(names)
    return found


def metric(root: Path, key: str) -> list[float]:
    lines = (root / "metrics.jsonl").read_text().splitlines()
    return [entry["data"][key] for entry in map(json.loads, lines) if key in entry["data"]]


def differences(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> list[str]:
    """Where two runs are not alike, but for the order in which float32 numbers were added."""
    found = [f"{name} is in one only" for name in one.keys() ^ other.keys()]
    for name in one.keys() & other.keys():
        if one[name].keys() != other[name].keys():
            found.append(f"{name}: steps {sorted(one[name])} and {sorted(other[name])}")
            continue
        for step, value in one[name].items():
            if not math.isclose(value, other[name][step], rel_tol=1e-3, abs_tol=1e-5):
                found.append(f"{name} at step {step}: {value} and {other[name][step]}")
    return found
