"""Tracking by Weights & Biases: its settings, and what an attempt is started with for it. Pure.

One task is one run of W&B through all its attempts. verl knows nothing of that: the payload's argus_verl_wandb, in
verl's own process, puts the project and the name of this environment in the place of verl's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from argus_ray.core import ids, paths

MODULE = "argus_verl_wandb"
#: Seconds that the start of a run waits for the server, and the end of one for what is not uploaded yet.
INIT_TIMEOUT_S = 60
FINISH_TIMEOUT_S = 120

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = ("user", "workload")
_LONGEST_USER_ID = 32
#: Of the longest name that W&B takes, and the characters that it does not (wandb_settings.py, validate_project).
_MAX_PROJECT = 128
_NOT_IN_PROJECT = re.compile(r"[/\\#?%:\x00-\x1f\x7f{}]")
_LOGGER = "trainer.logger"
_LOGGERS = f'{_LOGGER}=["console","file","tensorboard","wandb"]'


def _project_template(value: str) -> str:
    if unknown := sorted({name for name in _PLACEHOLDER.findall(value) if name not in _KNOWN}):
        names = ", ".join(f"{{{name}}}" for name in unknown)
        raise ValueError(f"{names} is unknown: there are {{user}} and {{workload}}")
    longest = project_of(value, user_id="u" * _LONGEST_USER_ID, workload="grpo")
    if _NOT_IN_PROJECT.search(longest) or longest != longest.strip():
        raise ValueError("may not hold / \\ # ? % : nor braces of no placeholder, nor begin or end with a space")
    if not 1 <= len(longest) <= _MAX_PROJECT:
        raise ValueError(f"must make a name of 1 to {_MAX_PROJECT} characters, also for the longest user id")
    return value


def _server(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_server = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be the URL of a W&B server, http:// or https://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("may hold no user, password, query or fragment: the key comes from api_key_env")
    return value.rstrip("/")


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        raise ValueError("must be the name of an environment variable of the head's launcher")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WandbSettings(_Strict):
    """Where runs are tracked."""

    base_url: Annotated[str, AfterValidator(_server)] = "https://api.wandb.ai"
    #: Names the variable of the launcher that holds the key. The key itself is in no setting.
    api_key_env: Annotated[str, AfterValidator(_variable_name)] = "WANDB_API_KEY"
    project: Annotated[str, AfterValidator(_project_template)] = "{user}_project"
    #: The team; None: the default one of the key.
    entity: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] | None = None
    #: offline: nothing is sent, and no key is needed; `wandb sync` sends it later.
    mode: Literal["online", "offline"] = "online"


class TrackingSettings(_Strict):
    """Beside the metrics file and TensorBoard, which are always written."""

    wandb: WandbSettings | None = None

    @property
    def variable(self) -> str:
        """Of the launcher, that holds the key; empty if nothing is tracked."""
        return "" if self.wandb is None else self.wandb.api_key_env

    def for_runs(self) -> Tracking | None:
        own = self.wandb
        return None if own is None else Tracking(own.project, own.mode, own.base_url, own.entity)


@dataclass(frozen=True)
class Tracking:
    """What the runs are told."""

    #: With {user} and {workload}, or filled in.
    project: str
    mode: str
    base_url: str
    entity: str | None = None

    def as_begun(self, earlier: Iterable[Mapping[str, str]]) -> Tracking:
        """The same, but in the project where a task's first tracked attempt began; `earlier`: the environments of its
        attempts, in order. A run of W&B cannot move, so a new template would begin a second one."""
        for env in earlier:
            if "WANDB_PROJECT" in env:
                return replace(self, project=env["WANDB_PROJECT"], entity=env.get("WANDB_ENTITY"))
        return self


def project_of(template: str, *, user_id: str, workload: str) -> str:
    return template.replace("{user}", user_id).replace("{workload}", workload)


def add(
    tracking: Tracking, command: Sequence[str], env: Mapping[str, str], job_root: str, workload: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """An attempt's command and environment, tracked."""
    modules = ",".join(filter(None, [env.get("VERL_USE_EXTERNAL_MODULES"), MODULE]))
    more = environment(tracking, job_root, workload) | {"VERL_USE_EXTERNAL_MODULES": modules}
    return with_logger(command), {**env, **more}


def with_logger(command: Sequence[str]) -> tuple[str, ...]:
    """The command with `wandb` beside the loggers that it names."""
    words = list(command)
    for place in reversed(range(len(words))):
        key, _, value = words[place].partition("=")
        if key.lstrip("+") == _LOGGER and value.endswith("]"):
            if not re.search(r"\bwandb\b", value):
                comma = "" if value == "[]" else ","
                words[place] = f'{key}={value[:-1]}{comma}"wandb"]'
            return tuple(words)
    return (*words, _LOGGERS)


def environment(tracking: Tracking, job_root: str, workload: str) -> dict[str, str]:
    """The variables of one attempt. None is a secret: the key is a file of the job root (`argus_secrets`)."""
    task_id, own = ids.task_of(job_root), f"{job_root}/cache/wandb"
    _, (user_id, *_) = paths.below_users(job_root)
    env = {
        "WANDB_MODE": tracking.mode,
        "WANDB_BASE_URL": tracking.base_url,
        "WANDB_PROJECT": project_of(tracking.project, user_id=user_id, workload=workload),
        "WANDB_RUN_ID": task_id,
        "WANDB_NAME": task_id,
        "WANDB_RESUME": "allow",
        # Everything that it writes; its own places are in the home folder, which all runs of a machine share.
        "WANDB_DIR": job_root,
        "WANDB_CACHE_DIR": own,
        "WANDB_CONFIG_DIR": own,
        "WANDB_DATA_DIR": own,
        "WANDB_ARTIFACT_DIR": own,
        "WANDB_SYMLINK": "false",
        "WANDB_INIT_TIMEOUT": str(INIT_TIMEOUT_S),
        "WANDB_FINISH_TIMEOUT": str(FINISH_TIMEOUT_S),
        # Argus has the log; and W&B's own look at us is not asked for.
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    return env if tracking.entity is None else env | {"WANDB_ENTITY": tracking.entity}


def wants_key(env: Mapping[str, str], tracking: Tracking | None) -> bool:
    """Whether the attempt with this environment is handed the key of these settings: the key of one server is never
    sent to another."""
    return tracking is not None and env.get("WANDB_MODE") == "online" and env.get("WANDB_BASE_URL") == tracking.base_url
