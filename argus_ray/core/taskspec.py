"""The TaskSpec: parse what a user sent, check every rule, report all broken ones at once, each naming its field."""

from __future__ import annotations

import os
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

from argus_ray.core import paths
from argus_ray.core.errors import BodyTooLarge, FieldError, InvalidSpec

#: Bytes of UTF-8. A TaskSpec is some hundred bytes.
MAX_SPEC_BYTES = 64 * 1024

#: Of the YAML scanner. A TaskSpec has 13 fields of four tokens each.
_MAX_TOKENS = 1000

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def _never_or_positive(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value != -1 and value < 1:
        raise ValueError("must be -1 (never) or at least 1")
    return value


Frequency = Annotated[int, BeforeValidator(_never_or_positive), Field(le=10**9)]


class TaskSpec(BaseModel):
    """A training run, as architecture.md lists its fields; any other field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    workload: Literal["ppo", "grpo", "sft"]
    #: Put on PYTHONPATH of every process of the run.
    code_path: str
    #: A hub id, resolved in the shared cache, or a path under common.
    model_id: str
    train_file: str
    val_file: str
    nnodes: int = Field(ge=1, le=1024)
    n_gpus_per_node: int = Field(ge=1, le=64)
    total_epochs: int = Field(ge=1, le=10**6)
    total_training_steps: int | None = Field(default=None, ge=1, le=10**9)
    #: In steps; -1: never.
    save_freq: Frequency
    test_freq: Frequency
    trainer_device: Literal["cuda", "cpu"] = "cuda"
    #: Old clients send it; it is ignored.
    submission_id: str = Field(default="", max_length=256, exclude=True)

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
    rule = paths.broken_rule(
        value, context["shared_root"], is_dir=is_dir, resolve=context.get("resolve", os.path.realpath)
    )
    if rule is not None:
        raise ValueError(rule)
    return value.rstrip("/")


def parse(text: str | bytes, *, shared_root: str, resolve: paths.Resolve = os.path.realpath) -> TaskSpec:
    """The TaskSpec in this YAML. Raises BodyTooLarge, or InvalidSpec with every broken rule."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_SPEC_BYTES:
        raise BodyTooLarge(f"a TaskSpec may be at most {MAX_SPEC_BYTES} bytes long")
    document = _load_flat_mapping(raw)
    try:
        return TaskSpec.model_validate(document, context={"shared_root": shared_root, "resolve": resolve})
    except ValidationError as error:
        raise InvalidSpec("the TaskSpec is not valid", field_errors(error)) from None


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


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that also refuses duplicate keys, and anchors and aliases (a flat mapping needs none, and they
    are how a small document becomes a huge one)."""

    _fetched = 0

    def fetch_more_tokens(self) -> Any:
        self._fetched += 1
        if self._fetched > _MAX_TOKENS:
            # PyYAML's scanner takes quadratic time on deep nesting: 5,000 brackets would hold everybody up for 1 s.
            raise yaml.YAMLError("has far more keys, values and brackets than a TaskSpec can have")
        return super().fetch_more_tokens()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(f"anchors and aliases are not allowed (line {event.start_mark.line + 1})")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.YAMLError(f"keys must be plain strings (line {key_node.start_mark.line + 1})")
            if key_node.value in seen:
                raise yaml.YAMLError(
                    f"the key {key_node.value[:64]!r} stands twice (line {key_node.start_mark.line + 1})"
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _load_flat_mapping(raw: bytes) -> dict[str, Any]:
    try:
        document = yaml.load(raw.decode("utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError:
        raise _not_yaml("must be UTF-8") from None
    except RecursionError:
        raise _not_yaml("is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise _not_yaml(f"is not valid YAML: {getattr(error, 'problem', None) or error}{where}") from None
    if not isinstance(document, dict):
        raise _not_yaml("must be one YAML mapping of field names to values")
    return document


def _not_yaml(rule: str) -> InvalidSpec:
    return InvalidSpec(f"the TaskSpec {rule}", [FieldError("(document)", rule)])
