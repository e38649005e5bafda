"""The TaskSpec: parse what a user sent, check every rule, report all broken ones at once, each naming its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from argus_ray.core import flat_yaml, paths
from argus_ray.core.errors import BodyTooLarge, FieldError, InvalidSpec

#: Bytes of UTF-8 that are accepted. A TaskSpec is some hundred bytes.
MAX_SPEC_BYTES = 8 * 1024
#: What the database may hold from earlier versions.
MAX_STORED_BYTES = 64 * 1024

#: The inputs that may lie in a folder of the user's own, and in which.
_OWN_KINDS = {"train_file": paths.OWN_DATA, "val_file": paths.OWN_DATA, "model_id": paths.OWN_MODELS}

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def _never_or_positive(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value != -1 and value < 1:
        raise ValueError("must be -1 (never) or at least 1")
    return value


#: In steps; -1: never.
Frequency = Annotated[
    int, Field(ge=-1, le=10**9), BeforeValidator(_never_or_positive), Field(json_schema_extra={"not": {"const": 0}})
]


class TaskSpec(BaseModel):
    """A training run, with the fields that docs/taskspec.md lists. Any other field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    workload: Literal["ppo", "grpo", "sft"] = Field(
        description="ppo: `verl.trainer.main_ppo` with `algorithm.adv_estimator=gae` and a critic; grpo: the same with "
        "`grpo`; sft: `verl.trainer.sft_trainer`"
    )
    code_path: str = Field(
        description="[importable](#code) in each process of the run: a verl in it is found before the installed one",
        json_schema_extra={"format": "input-folder"},
    )
    model_id: str = Field(
        description="`actor_rollout_ref.model.path`, for ppo also `critic.model.path`; sft: `model.path`",
        json_schema_extra={"format": "model"},
    )
    train_file: str = Field(description="`data.train_files`", json_schema_extra={"format": "input-path"})
    val_file: str = Field(description="`data.val_files`", json_schema_extra={"format": "input-path"})
    nnodes: int = Field(ge=1, le=1024, description="`trainer.nnodes`; so many different machines")
    n_gpus_per_node: int = Field(ge=1, le=64, description="`trainer.n_gpus_per_node`")
    total_epochs: int = Field(ge=1, le=10**6, description="`trainer.total_epochs`")
    total_training_steps: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="`trainer.total_training_steps`: the run ends after that many steps, or after its epochs if these "
        "are over first",
    )
    save_freq: Frequency = Field(
        description="`trainer.save_freq`, in steps; an sft run also saves after the last of its steps"
    )
    test_freq: Frequency = Field(
        description="`trainer.test_freq`, in steps; ppo and grpo also validate before the first step, unless it is -1; "
        "sft also after its last step"
    )
    trainer_device: Literal["cuda", "cpu"] = Field(
        default="cuda",
        description="`trainer.device`; `cpu` is for trial runs of small models on machines without a GPU, below",
    )
    submission_id: str = Field(
        default="",
        max_length=256,
        exclude=True,
        description="nothing: accepted for old clients, and ignored",
    )

    @field_validator("code_path", "train_file", "val_file")
    @classmethod
    def _is_input_path(cls, value: str, info: ValidationInfo) -> str:
        return _checked_path(value, info, is_dir=info.field_name == "code_path")

    @field_validator("model_id")
    @classmethod
    def _is_model(cls, value: str, info: ValidationInfo) -> str:
        if value.startswith("/"):
            return _checked_path(value, info, is_dir=True)
        if not _HUB_ID.fullmatch(value) or ".." in value:
            raise ValueError("must be a hub id (name or organisation/name) or an absolute path")
        return value


def _checked_path(value: str, info: ValidationInfo, *, is_dir: bool) -> str:
    context: Mapping[str, Any] = info.context or {}
    shared_root, user_id = context["shared_root"], context.get("own_user")
    kind = _OWN_KINDS.get(info.field_name or "")
    own = paths.own_folder(shared_root, user_id, kind) if user_id is not None and kind is not None else None
    rule = paths.broken_rule(value, shared_root, is_dir=is_dir, own=own)
    if rule is not None:
        raise ValueError(rule)
    return value.rstrip("/")


def parse(text: str | bytes, *, shared_root: str, own_user: str | None = None, limit: int = MAX_SPEC_BYTES) -> TaskSpec:
    """The TaskSpec in this text. `limit` in bytes. Reads no file: links are looked at with the inputs (disk/inputs.py).

    `own_user`: who may name inputs of their own; None: nobody may.

    Raises BodyTooLarge, or InvalidSpec with every broken rule.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > limit:
        raise BodyTooLarge(f"a TaskSpec may be at most {limit} bytes long")
    values, bad = flat_yaml.read(raw, TaskSpec.model_fields)
    try:
        spec = TaskSpec.model_validate(values, context={"shared_root": shared_root, "own_user": own_user})
    except ValidationError as error:
        found = [item for item in field_errors(error) if item.field not in bad]
        raise InvalidSpec("the TaskSpec is not valid", [*found, *_rules(bad)]) from None
    if bad:
        raise InvalidSpec("the TaskSpec is not valid", _rules(bad))
    return spec


def parse_stored(text: str, *, shared_root: str, own_user: str | None = None) -> TaskSpec:
    """The TaskSpec that the database holds. One of a version before this one may be longer, and hold a number that is
    not decimal: what was accepted then is still read as it was then. Raises InvalidSpec."""
    try:
        return parse(text, shared_root=shared_root, own_user=own_user, limit=MAX_STORED_BYTES)
    except InvalidSpec:
        try:
            values = yaml.load(text, Loader=yaml.CSafeLoader)
            return TaskSpec.model_validate(values, context={"shared_root": shared_root, "own_user": own_user})
        except (yaml.YAMLError, ValidationError, ValueError):
            pass
        raise


def names_own(spec: TaskSpec, shared_root: str, user_id: str) -> bool:
    """Whether one of its inputs lies in a folder of this user."""
    return any(paths.is_own(getattr(spec, field), shared_root, user_id) for field in _OWN_KINDS)


def _rules(bad: Mapping[str, str]) -> list[FieldError]:
    return [FieldError(field, rule) for field, rule in bad.items()]


def field_errors(error: ValidationError) -> list[FieldError]:
    """What pydantic found, in our words; never the offending input, which may be long or private."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"]) or "(document)"
        rule = {
            "missing": "is required",
            "extra_forbidden": "is not a known field",
        }.get(item["type"], item["msg"].removeprefix("Value error, "))
        found.append(FieldError(name[:128], rule))
    return found
