"""Keys of tracking servers between the launcher and the scheduler."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from argus_ray.discovery import tracking_keys

KEY = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("args:\n  verl:\n    tracking: {wandb: {mode: online}}\n", ("WANDB_API_KEY",)),
        ("verl:\n  tracking:\n    wandb:\n      api_key_env: OUR_KEY  # not OTHER_KEY\n", ("OUR_KEY",)),
        ('{"verl": {"tracking": {"wandb": {"api_key_env": "OUR_KEY"}}}}', ("OUR_KEY",)),
        ("verl:\n  # tracking: {wandb: {api_key_env: OUR_KEY}}\n", ()),
        ("project: wandb\n", ()),
        (
            "webhooks:\n- {name: chat, secret_env: CHAT_KEY}\n- secret_env: 'OTHER'\n#  secret_env: NONE\n",
            ("CHAT_KEY", "OTHER"),
        ),
        ("verl: {tracking: {wandb: {}}}\nwebhooks: [{secret_env: CHAT_KEY}]\n", ("WANDB_API_KEY", "CHAT_KEY")),
    ],
)
def test_only_what_is_tracked_or_told_names_a_variable(config: str, names: tuple[str, ...]) -> None:
    assert tracking_keys.names_in(config) == names


def test_our_own_configuration_tracks_nothing() -> None:
    assert tracking_keys.names_in((ROOT / "serve_config.yaml").read_text()) == ()


def test_a_key_that_is_missing_is_a_warning_and_one_that_is_none_an_error() -> None:
    assert tracking_keys.found(("A", "B"), {"A": KEY, "C": "x"}) == (
        {"A": KEY},
        ("B is not set: runs that are to be tracked online stay on the disk, webhooks that it signs are not told",),
    )
    for bad in ("has spaces", "line\nend", "é" * 40, "k" * 513):
        with pytest.raises(tracking_keys.BadKey) as raised:
            tracking_keys.found(("A",), {"A": bad})
        assert str(raised.value).startswith("A: must be ") and bad not in str(raised.value)


def test_the_file_is_its_owners_and_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    environ = {tracking_keys.VARIABLE: str(path), "WANDB_API_KEY": "not-this-one"}
    assert tracking_keys.read("WANDB_API_KEY", environ) is None
    tracking_keys.write(path, {"WANDB_API_KEY": KEY})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tracking_keys.read("WANDB_API_KEY", environ) == KEY
    assert tracking_keys.read("OUR_KEY", environ) is None
    tracking_keys.write(path, {"WANDB_API_KEY": f"new{KEY}"})
    assert tracking_keys.read("WANDB_API_KEY", environ) == f"new{KEY}"
    for odd in (b"", b"[]", b'"text"', b"\xff"):
        path.write_bytes(odd)
        with pytest.raises(OSError, match="holds no keys"):
            tracking_keys.read("WANDB_API_KEY", environ)


def test_a_head_that_was_started_by_hand_has_it_in_its_environment() -> None:
    assert tracking_keys.read("OUR_KEY", {"OUR_KEY": KEY}) == KEY
    assert tracking_keys.read("OUR_KEY", {"OUR_KEY": ""}) is None
