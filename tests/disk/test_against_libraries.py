"""What Argus says of an odd model or data set, beside what the libraries of the lock do with it.

Where Argus sees an error they must fail, and where they fail Argus must have said something.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.odd_data import COLUMNS, DATA
from tests.support.odd_inputs import MODELS, weights

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "datasets", "pandas")),
    reason="torch, transformers, datasets or pandas are not installed (pip install 'argus-ray[verl]')",
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def make_real(folder: Path) -> dict[str, Any]:
    """A whole model, its tokenizer and its weights, in their common forms."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    config = transformers.Qwen2Config(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="a").save_pretrained(
        folder
    )
    del torch
    return dict(model.state_dict())


def loads(folder: Path) -> str:
    """Why verl's way to a model fails; empty: it does not."""
    import transformers

    try:
        transformers.AutoTokenizer.from_pretrained(str(folder))
        transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        transformers.AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
def test_transformers_agrees_about_each_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In one test: to load the libraries takes longer than all the models."""
    make_real(tmp_path / "real")
    wrong = {}
    for number, odd in enumerate(MODELS):
        folder = tmp_path / str(number) / "model"
        folder.parent.mkdir()
        _copy(tmp_path / "real", folder)
        odd.make(folder)
        why = loads(folder)
        if odd.loads is not None and odd.loads == bool(why):
            wrong[odd.name] = why or "it loads"
        if why and not (odd.error or odd.warning):
            wrong[odd.name] = f"accepted in silence, and fails: {why}"
    assert wrong == {}
    assert weights(tmp_path / "real").exists()


def test_pandas_and_datasets_agree_about_each_data_set(tmp_path: Path) -> None:
    wrong = {}
    for number, odd in enumerate(DATA):
        path = tmp_path / str(number) / odd.name
        path.parent.mkdir()
        odd.make(path)
        with _quiet():
            why = reads(odd.workload, path)
        if odd.loads == bool(why):
            wrong[odd.id] = why or "it is read"
    assert wrong == {}


def reads(workload: str, path: Path) -> str:
    """Why verl's way to a data set fails (MultiTurnSFTDataset, RLHFDataset of verl 0.9.1); empty: it does not."""
    import datasets
    import pandas as pd

    try:
        if workload == "sft":
            frame = pd.read_parquet(str(path), dtype_backend="pyarrow")
            rows, columns = frame["messages"].dropna().shape[0], set(frame.columns)
        else:
            kind = {"parquet": "parquet", "json": "json", "jsonl": "json"}.get(path.name.rsplit(".", 1)[-1])
            if kind is None:
                return "ValueError: Unsupported file format"
            cache = str(path.parent / "cache")
            data = datasets.load_dataset(kind, data_files=str(path), cache_dir=cache)["train"]
            rows, columns = len(data), set(data.column_names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wanted = COLUMNS[:1] if workload == "sft" else COLUMNS[1:]
    return "" if rows and columns >= set(wanted) else "nothing to train on"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield


def _copy(whole: Path, folder: Path) -> None:
    folder.mkdir()
    for file in whole.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2"
