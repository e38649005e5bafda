"""What an attempt is handed: who can read it, who takes it, and that nothing of it stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from argus_ray.disk import secrets
from argus_ray.payload import argus_secrets

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "users" / "ada" / "jobs" / "argus-ada-sft-20260101-000000-abcd--a01"


def hand_over(root: Path, key: str = KEY) -> Path:
    secrets.hand_over(str(root), argus_secrets.WANDB, key)
    return root / "secrets" / "wandb"


def take(root: Path) -> str | None:
    return argus_secrets.take(str(root), argus_secrets.WANDB)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_it_is_its_owners_alone_whatever_the_umask(root: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file = hand_over(root)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert file.read_text() == KEY


def test_it_is_taken_once(root: Path) -> None:
    assert take(root) is None
    file = hand_over(root)
    assert take(root) == KEY
    assert not file.exists()
    assert take(root) is None


def test_a_second_submission_puts_the_key_of_now_in_its_place(root: Path) -> None:
    hand_over(root)
    file = hand_over(root, "another")
    assert os.listdir(file.parent) == ["wandb"]  # noqa: PTH208
    assert take(root) == "another"


def test_nothing_is_left_of_it(root: Path) -> None:
    secrets.clear(str(root))
    file = hand_over(root)
    (file.parent / "wandb.new").write_text(KEY)  # the head died while it wrote
    secrets.clear(str(root))
    assert root.is_dir() and not (root / "secrets").exists()
    (file.parent / "wandb").mkdir(parents=True)
    secrets.clear(str(root))
    assert (file.parent / "wandb").is_dir(), "what a program has put there is its own"


def test_a_half_that_was_left_does_not_stand_in_the_way(root: Path) -> None:
    file = hand_over(root)
    (file.parent / "wandb.new").write_text("half")
    hand_over(root, "another")
    assert take(root) == "another" and list(file.parent.iterdir()) == []


@pytest.mark.parametrize("linked", ["secrets", "secrets/wandb"])
def test_no_link_is_followed(root: Path, tmp_path: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "wandb").write_text("somebody else's")
    root.mkdir(parents=True)
    if linked == "secrets":
        (root / "secrets").symlink_to(elsewhere)
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            hand_over(root)
    else:
        (root / "secrets").mkdir()
        (root / "secrets" / "wandb").symlink_to(elsewhere / "wandb")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        take(root)
    secrets.clear(str(root))
    assert (elsewhere / "wandb").read_text() == "somebody else's"
    if linked == "secrets/wandb":
        hand_over(root)
        assert (elsewhere / "wandb").read_text() == "somebody else's"


def test_what_is_no_key_is_not_taken(root: Path) -> None:
    (root / "secrets").mkdir(parents=True)
    os.mkfifo(root / "secrets" / "wandb")
    assert take(root) is None  # and nobody waits for a writer
    (root / "secrets" / "wandb").unlink()
    (root / "secrets" / "wandb").write_text("k" * (argus_secrets.MAX_BYTES + 1))
    assert take(root) is None
