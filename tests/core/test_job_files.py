"""Which paths below a job root can be asked for."""

from __future__ import annotations

import os

import pytest

from argus_ray.core.job_files import MAX_DEPTH, BrokenPath, is_hidden, names_of


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"", ()),
        (b"metrics.jsonl", ("metrics.jsonl",)),
        (b"checkpoints/global_step_5/actor/", ("checkpoints", "global_step_5", "actor")),
        ("ein Ordner/ä".encode(), ("ein Ordner", "ä")),
        (b"a\xffb", (os.fsdecode(b"a\xffb"),)),
        # Names like any other, whatever they look like.
        ("\uff0e\uff0e/\u2025/\u2215x".encode(), ("\uff0e\uff0e", "\u2025", "\u2215x")),
        (b"...", ("...",)),
        (b"a\\..\\b", ("a\\..\\b",)),
        (b"%2e%2e", ("%2e%2e",)),
        (b"~root", ("~root",)),
        (b"x" * 255, ("x" * 255,)),
        (b"/".join([b"d"] * MAX_DEPTH), ("d",) * MAX_DEPTH),
    ],
)
def test_what_a_path_names(path: bytes, names: tuple[str, ...]) -> None:
    assert names_of(path) == names


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (b"/", "relative"),
        (b"/etc/passwd", "relative"),
        (b"..", "'..'"),
        (b"../x", "'..'"),
        (b"a/../../x", "'..'"),
        (b"a/..", "'..'"),
        (b"./a", "'.'"),
        (b"a//b", "empty"),
        (b"a//", "empty"),
        (b"a\0", "control"),
        (b"a\nb", "control"),
        (b"a\x7f", "control"),
        (b"x" * 256, "255 bytes"),
        (("é" * 128).encode(), "255 bytes"),
        (b"/".join([b"d"] * (MAX_DEPTH + 1)), "folders deep"),
        (b"d/" * 3000, "4096 bytes"),
    ],
)
def test_the_rule_that_a_path_breaks(path: bytes, rule: str) -> None:
    with pytest.raises(BrokenPath, match=rule):
        names_of(path)


@pytest.mark.parametrize(
    "name", ["secrets", "Secrets", "SECRETS", "\u017fecrets", "\uff53ecrets", "secrets.", "secrets ", "secrets. ."]
)
def test_what_is_hidden_is_so_in_all_spellings(name: str) -> None:
    assert is_hidden((name,))
    assert is_hidden((name, "wandb"))
    assert not is_hidden(("logs", name)), "a folder of the program's own"


@pytest.mark.parametrize("name", ["secrets2", "my-secrets", "secret", "s ecrets", os.fsdecode(b"\xff")])
def test_what_is_called_alike_is_not_hidden(name: str) -> None:
    assert not is_hidden((name,))
    assert not is_hidden(())
