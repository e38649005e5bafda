from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from argus_ray import config
from argus_ray.config import ConfigError, Settings, load
from argus_ray.core.attempts import RetryPolicy
from argus_ray.core.states import TaskState


def test_defaults_are_those_of_the_documents() -> None:
    settings = load({}, {})
    assert settings.shared_root == "/private"
    assert settings.scheduling.max_overtake_s == 600
    assert settings.tokens.admin == ("ARGUS_ADMIN_TOKEN", "MVP_ADMIN_TOKEN")
    assert settings.tokens.internal == "MVP_INTERNAL_TOKEN"


def test_the_environment_overrides_what_every_machine_must_agree_on() -> None:
    settings = load({"shared_root": "/a"}, {"ARGUS_SHARED_ROOT": "/b/c/", "ARGUS_CLUSTER": "lab"})
    assert (settings.shared_root, settings.cluster_name) == ("/b/c", "lab")
    assert load({"shared_root": "/a"}, {"ARGUS_SHARED_ROOT": ""}).shared_root == "/a"


def test_all_errors_at_once_each_naming_its_key() -> None:
    args = {
        "shared_root": "private",
        "cluster_name": "Lab!",
        "colour": "red",
        "scheduling": {"tick_s": 0, "max_losses": "many"},
        "limits": {"waiting_tasks": -1},
        "tokens": {"admin": ["lower case"]},
    }
    with pytest.raises(ConfigError) as caught:
        load(args, {})
    for key in (
        "shared_root", "cluster_name", "colour", "scheduling.tick_s", "scheduling.max_losses",
        "limits.waiting_tasks", "tokens.admin.0",
    ):  # fmt: skip
        assert f"\n  {key}: " in str(caught.value), key


@pytest.mark.parametrize(
    "root", ["", "/", "private", "/a/../b", "/a b", "/a;b", "/a\n", "/-a", "//a", "/a/./b", "/é", 7]
)
def test_shared_roots_that_are_refused(root: Any) -> None:
    with pytest.raises(ConfigError, match="shared_root"):
        load({"shared_root": root}, {})


@pytest.mark.parametrize("umask", ["022", "027", "077", "002", "000"])
def test_a_umask_leaves_its_owner_everything(umask: str) -> None:
    assert load({"files": {"umask": umask}}, {}).files.umask_bits == int(umask, 8)


@pytest.mark.parametrize("umask", ["777", "22", "0o22", "028", "", "-22", 18, 0, None, "0022 "])
def test_umasks_that_are_refused(umask: Any) -> None:
    """YAML reads 022 without quotes as the number 18."""
    with pytest.raises(ConfigError, match=r"files.umask: must be three octal digits in quotes"):
        load({"files": {"umask": umask}}, {})


def test_the_reserve_is_of_bytes_and_may_be_none() -> None:
    assert load({}, {}).limits.reserve_bytes == 2 * 1024**3
    assert load({"limits": {"reserve_bytes": 0}}, {}).limits.reserve_bytes == 0
    with pytest.raises(ConfigError, match=r"limits.reserve_bytes"):
        load({"limits": {"reserve_bytes": -1}}, {})


def test_the_retry_policy_comes_from_the_settings() -> None:
    scheduling = {"max_losses": 1, "retry_interval_s": 2, "max_retry_interval_s": 3, "max_refusals": 4}
    assert load({"scheduling": scheduling}, {}).scheduling.retry_policy() == RetryPolicy(**scheduling)
    assert load({}, {}).scheduling.retry_policy() == RetryPolicy(), "the defaults are the same"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().shared_root = "/other"  # type: ignore[misc]


def test_the_fingerprint_follows_the_settings() -> None:
    assert config.fingerprint(Settings()) == config.fingerprint(Settings())
    assert config.fingerprint(Settings()) != config.fingerprint(Settings(cluster_name="other"))


def test_the_configuration_that_ships_is_valid() -> None:
    path = Path(config.__file__).parents[1] / "serve_config.yaml"
    (application,) = yaml.safe_load(path.read_text())["applications"]
    load(application.get("args", {}), {})


def test_quotas_are_off_unless_somebody_sets_them() -> None:
    assert not load({}, {}).limits.quotas().are_on and load({}, {}).admission_policy().half_life_s is None
    users = {"ada": {"running_gpus": 16, "waiting_tasks": 5}, "bob": {"running_gpus": 0}, "eve": {"waiting_tasks": 7}}
    args = {"limits": {"running_gpus_per_user": 8, "users": users}, "scheduling": {"fair_share": True}}
    settings = load(args, {})
    quotas = settings.admission_policy().quotas
    assert [quotas.limit_of(user) for user in ("ada", "bob", "eve", "zoe")] == [16, None, 8, 8]
    assert [settings.limits.waiting_tasks_of(user) for user in ("ada", "bob", "eve", "zoe")] == [5, 1000, 7, 1000]
    assert settings.admission_policy().half_life_s == 86_400
    assert Settings.model_validate(settings.model_dump()) == settings, "on its way to the actors"


def test_limits_of_users_are_checked() -> None:
    users = {"Ada!": {}, "bob": {"running_gpus": -1, "waiting_tasks": 0, "gpus": 1}}
    with pytest.raises(ConfigError) as caught:
        load({"limits": {"users": users}, "scheduling": {"fair_share_half_life_s": 0}}, {})
    for key in ("users.Ada!", "users.bob.running_gpus", "users.bob.waiting_tasks", "users.bob.gpus", "half_life_s"):
        assert key in str(caught.value), key
    assert "1 to 32 of a-z, 0-9 and single hyphens" in str(caught.value)


def test_a_log_has_a_bound_of_a_mebibyte_at_least() -> None:
    assert load({}, {}).limits.log_bytes == 1024**3
    assert load({"limits": {"log_bytes": 1024**2}}, {}).limits.log_bytes == 1024**2
    with pytest.raises(ConfigError, match=r"limits\.log_bytes"):
        load({"limits": {"log_bytes": 1024**2 - 1}}, {})


class TestTheFileAlone:
    """`python -m argus_ray.config FILE`, before a deploy."""

    def test_the_file_of_the_repository_is_taken(self) -> None:
        assert config.main([str(Path(__file__).parents[1] / "serve_config.yaml")]) == 0

    def test_a_mistake_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "serve_config.yaml"
        verl = {"presets": {"long": {"data.max_respnse_length": 1}}}
        path.write_text(yaml.safe_dump({"applications": [{"name": "argus", "args": {"verl": verl}}]}))
        assert config.main([str(path)]) == 65
        assert "verl.presets.long.data.max_respnse_length: is not a key" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "code"), [("[", 2), ("{}", 2), ("[]", 2), ("applications: [{name: other, args: {}}]", 2)]
    )
    def test_what_is_no_such_file(self, tmp_path: Path, text: str, code: int) -> None:
        (tmp_path / "x.yaml").write_text(text)
        assert config.main([str(tmp_path / "x.yaml")]) == code
        assert config.main([str(tmp_path / "missing.yaml")]) == 2
        assert config.main([]) == 2


HOOK = {"name": "chat", "url": "https://hooks.example/a?b=c", "secret_env": "CHAT_SECRET"}


def test_a_webhook_of_the_settings() -> None:
    settings = load({"webhooks": [{**HOOK, "users": ["ada"], "states": ["FAILED"]}]}, {})
    (hook,) = (each.webhook() for each in settings.webhooks)
    assert (hook.name, hook.users, hook.states, hook.allow_local) == ("chat", ("ada",), (TaskState.FAILED,), False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("url", url) for url in ("", "chat", "ftp://a/", "http://", "http://a b/", "https://u:p@a/", "http://a/#x")),
        *(("url", url) for url in ("http://a:0/", "http://a:99999/", "http://[::1/", "http://\u00e9/")),
        *(("name", name) for name in ("", "A", "a" * 33, "-a")),
        *(("secret_env", name) for name in ("whsec_abc", "a-b", "")),
        *(("users", users) for users in (["Ada!"], "ada")),
        *(("states", states) for states in (["DONE"],)),
        ("secret", "x"),
    ],
)
def test_webhooks_that_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"webhooks\.0\.{key}"):
        load({"webhooks": [{**HOOK, key: value}]}, {})


def test_no_two_webhooks_share_a_place() -> None:
    with pytest.raises(ConfigError, match="different names"):
        load({"webhooks": [HOOK, HOOK]}, {})
