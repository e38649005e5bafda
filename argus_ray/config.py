"""The settings of one deployment: the `args` of the application in serve_config.yaml, checked at start.

All errors are reported at once, each naming its key. ARGUS_SHARED_ROOT and ARGUS_CLUSTER override the two keys that
every machine of a pool must agree on (the workers read the same two variables).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from argus_ray.core import ids, retention, stall
from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.attempts import RetryPolicy
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.quotas import Quotas
from argus_ray.core.states import TaskState
from argus_ray.core.taskspec import field_errors
from argus_ray.core.verl.command import Site
from argus_ray.core.verl.recipes import VerlSettings
from argus_ray.core.webhooks import Webhook

REFUSED = 65


class ConfigError(Exception):
    """The settings break rules; the message lists all of them, one a line."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        raise ValueError("must be the name of an environment variable")
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]


class TokenVariables(_Strict):
    """Names of environment variables of the launcher. The tokens themselves are never in a file of ours, nor in Ray."""

    admin: tuple[VariableName, ...] = ("ARGUS_ADMIN_TOKEN", "MVP_ADMIN_TOKEN")
    internal: VariableName = "MVP_INTERNAL_TOKEN"
    #: Of Prometheus, which may read /metrics and nothing else.
    metrics: VariableName = "ARGUS_METRICS_TOKEN"


def _user_id(value: str) -> str:
    try:
        return ids.check_user_id(value)
    except InvalidRequest as error:
        raise ValueError(error.fields[0].rule) from error


class UserLimits(_Strict):
    """Of one user, in place of those for all. What is not named is as for all."""

    waiting_tasks: int | None = Field(default=None, ge=1, le=10_000)
    #: 0: any number.
    running_gpus: int | None = Field(default=None, ge=0)


class Limits(_Strict):
    """Bounds of what is stored and waited for; 429 beyond them."""

    #: Of everybody. The upper bound is what has been measured; nothing else depends on it.
    waiting_tasks: int = Field(default=10_000, ge=1, le=10_000)
    waiting_tasks_per_user: int = Field(default=1_000, ge=1, le=10_000)
    #: GPUs that the attempts of a user hold at a time; 0: any number. The task waits, and nobody is answered 429.
    running_gpus_per_user: int = Field(default=0, ge=0)
    users: dict[Annotated[str, AfterValidator(_user_id)], UserLimits] = Field(default_factory=dict)
    tokens_per_user: int = Field(default=100, ge=1, le=10_000)
    #: While less is free on the shared filesystem nothing starts, and logs and rollouts do not grow: the database still
    #: can. 0: there is no such reserve.
    reserve_bytes: int = Field(default=2 * 1024**3, ge=0, le=2**50)
    #: Of one attempt's log on the disk: its first half and the newest of the rest.
    log_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024, le=1024**4)
    log_tail_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)

    def waiting_tasks_of(self, user_id: str) -> int:
        own = self.users.get(user_id)
        return self.waiting_tasks_per_user if own is None or own.waiting_tasks is None else own.waiting_tasks

    def quotas(self) -> Quotas:
        """Of running GPUs."""
        own = {user: each.running_gpus for user, each in self.users.items() if each.running_gpus is not None}
        return Quotas(self.running_gpus_per_user or None, {user: gpus or None for user, gpus in own.items()})


class Scheduling(_Strict):
    """Times in seconds."""

    #: The safety net: how often the scheduler looks when nothing happens.
    tick_s: float = Field(default=5.0, gt=0, le=600)
    #: How often the attempts that are alive are asked about, each by its id.
    poll_s: float = Field(default=1.0, gt=0, le=60)
    #: How long a task may be overtaken before nodes are reserved for it.
    max_overtake_s: float = Field(default=600.0, ge=0, le=86_400 * 7)
    #: The wait after verl's own fit check said no; it doubles with each refusal in a row.
    retry_interval_s: float = Field(default=60.0, gt=0, le=86_400)
    max_retry_interval_s: float = Field(default=3600.0, gt=0, le=86_400)
    #: Refusals in a row before a task is FAILED.
    max_refusals: int = Field(default=20, ge=0, le=1000)
    #: Attempts that may be lost to infrastructure, without progress between them, before a task is FAILED.
    max_losses: int = Field(default=5, ge=0, le=1000)
    #: Attempts in a row whose program may never begin, because nodes cannot start it, before a task is FAILED.
    max_failed_starts: int = Field(default=50, ge=0, le=1000)
    #: Progress is a newer checkpoint, or for a task that has none, steps for so long.
    progress_after_s: float = Field(default=14_400.0, gt=0, le=86_400 * 30)
    #: Bound of one call to Ray.
    ray_timeout_s: float = Field(default=30.0, gt=0, le=600)
    #: Calls to Ray Jobs at a time.
    ray_concurrency: int = Field(default=8, ge=1, le=64)
    #: How long a canceled driver may take to end by SIGTERM before it is killed.
    stop_grace_s: int = Field(default=30, ge=1, le=3600)

    #: How long an attempt may run without a new step before its task is shown as stalled; 0: never.
    stall_after_s: float = Field(default=1800.0, ge=0, le=86_400 * 30)
    #: Whether a stalled attempt is stopped and its task FAILED.
    stop_stalled: bool = False

    #: Whether the tasks of who has used the least of late go first, in place of the oldest.
    fair_share: bool = False
    #: After so many seconds what was used counts half. Kept up also while fair share is off.
    fair_share_half_life_s: float = Field(default=86_400.0, ge=60, le=86_400 * 365)

    #: A gang that found no room for so long where it was assigned to goes back to wait; seconds, 0: never.
    claim_after_s: float = Field(default=600.0, ge=0, le=86_400)

    @property
    def longest_hold_s(self) -> float:
        """Of a task with a trouble of its own, until its next look."""
        return max(self.retry_interval_s, self.tick_s)

    def stall_policy(self) -> stall.StallPolicy:
        return stall.StallPolicy(self.stall_after_s, self.stop_stalled, self.claim_after_s)

    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_losses=self.max_losses,
            progress_after_s=self.progress_after_s,
            max_failed_starts=self.max_failed_starts,
            retry_interval_s=self.retry_interval_s,
            max_retry_interval_s=self.max_retry_interval_s,
            max_refusals=self.max_refusals,
        )


def _umask(value: object) -> object:
    # YAML takes 022 without quotes for the number 18, and an operator for a umask of 0022.
    if not isinstance(value, str) or not re.fullmatch(r"0[0-7]{2}", value):
        raise ValueError('must be three octal digits in quotes, of which the first is 0: "022", "027" or "077"')
    return value


class Files(_Strict):
    """What attempts make in their job roots."""

    #: What it takes from the modes 0777 of folders and 0666 of files. The same on all machines, whatever the umask of
    #: whoever has started a watchdog: else the head could not read what a run has written as another user.
    umask: Annotated[str, BeforeValidator(_umask)] = "022"

    @property
    def umask_bits(self) -> int:
        return int(self.umask, 8)


class Inputs(_Strict):
    """What else tasks may name as their inputs, beside what lies in `<shared_root>/common/`."""

    #: Data sets in `<shared_root>/users/<own id>/datasets/`, models in `users/<own id>/models/`.
    own_folders: bool = False


class Monitoring(_Strict):
    """What /metrics tells."""

    #: Whether it names users, with what they hold and have used.
    per_user: bool = True


class Retention(_Strict):
    """When old files go. 0: never."""

    #: From one pass over the disk to the next, which also measure what job roots take; sooner while work is left.
    #: Seconds.
    pass_every_s: float = Field(default=3600.0, ge=1, le=86_400)

    #: From the end of a task until its job roots move to `<shared_root>/users/<user>/trash/`.
    trash_after_days: float = Field(default=0.0, ge=0, le=36_500)
    #: From then until they are deleted.
    delete_after_days: float = Field(default=0.0, ge=0, le=36_500)
    #: Newest complete checkpoints of a task that has ended that stay; older complete ones are deleted.
    keep_checkpoints: int = Field(default=0, ge=0, le=1000)

    #: From when something was done until the audit forgets it.
    audit_days: float = Field(default=730.0, ge=0, le=36_500)

    def policy(self) -> retention.RetentionPolicy:
        return retention.RetentionPolicy(self.trash_after_days, self.delete_after_days, self.keep_checkpoints)


def _never_or_seldom(value: float) -> float:
    if 0 < value < 60:
        raise ValueError("must be 0 (no backups) or at least 60")
    return value


class Backups(_Strict):
    """Of the database, in `<shared_root>/ray/backup/<cluster>/`."""

    #: From one to the next, in seconds; 0: none is made.
    every_s: Annotated[float, AfterValidator(_never_or_seldom)] = Field(default=21_600.0, ge=0, le=86_400 * 7)
    #: The newest ones that stay.
    keep: int = Field(default=8, ge=1, le=1000)
    #: The last one of each of so many days stays, too.
    keep_days: int = Field(default=14, ge=0, le=3650)


class WebhookSettings(_Strict):
    """Where changes of tasks are told; core/webhooks.py says in which words."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    #: With a host; no name and password in it, which would stand in logs.
    url: str = Field(max_length=2048)
    #: The launcher's variable that holds the secret by which each message is signed.
    secret_env: VariableName
    users: tuple[Annotated[str, AfterValidator(_user_id)], ...] = Field(default=(), max_length=1000)
    states: tuple[TaskState, ...] = ()
    #: Whether its host may be this machine or something on its link: a receiver on the head, say.
    allow_local: bool = False

    @field_validator("url")
    @classmethod
    def _can_be_called(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            has_host = bool(parts.hostname) and parts.port != 0
        except ValueError:
            has_host = False
        if not has_host or parts.scheme not in ("http", "https") or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ValueError("must be an http or https URL with a host, of visible ASCII characters")
        if parts.username is not None or parts.fragment:
            raise ValueError("must hold no user name, password or fragment")
        return value

    def webhook(self) -> Webhook:
        return Webhook(self.name, self.url, self.secret_env, self.users, self.states, self.allow_local)


def _different_names(value: tuple[WebhookSettings, ...]) -> tuple[WebhookSettings, ...]:
    if len({each.name for each in value}) < len(value):
        raise ValueError("must have different names: a place in the events belongs to each")
    return value


class Settings(_Strict):
    shared_root: str = "/private"
    cluster_name: str = "argus"
    #: The command that starts Python on a worker.
    worker_python: str = Field(default="python3", pattern=r"^[A-Za-z0-9_./+-]+$")
    tokens: TokenVariables = TokenVariables()
    limits: Limits = Limits()
    scheduling: Scheduling = Scheduling()
    retention: Retention = Retention()
    backup: Backups = Backups()
    files: Files = Files()
    inputs: Inputs = Inputs()
    monitoring: Monitoring = Monitoring()
    verl: VerlSettings = VerlSettings()
    webhooks: Annotated[tuple[WebhookSettings, ...], AfterValidator(_different_names)] = Field(
        default=(), max_length=16
    )

    def site(self, payload_dir: str) -> Site:
        """Of the workers. `payload_dir`: the payload of this version on the shared filesystem."""
        return Site(
            shared_root=self.shared_root,
            payload_dir=payload_dir,
            worker_python=self.worker_python,
            stop_grace_s=self.scheduling.stop_grace_s,
            reserve_bytes=self.limits.reserve_bytes,
            umask=self.files.umask_bits,
            log_bytes=self.limits.log_bytes,
            tracking=self.verl.tracking.for_runs(),
        )

    def admission_policy(self) -> AdmissionPolicy:
        scheduling = self.scheduling
        return AdmissionPolicy(
            scheduling.max_overtake_s,
            scheduling.retry_interval_s,
            self.limits.quotas(),
            scheduling.fair_share_half_life_s if scheduling.fair_share else None,
        )

    @field_validator("shared_root")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9._+@=][A-Za-z0-9._+@=-]*)+/?", value) or "/.." in value or "/./" in value:
            raise ValueError("must be an absolute path without '..', of the characters A-Z a-z 0-9 . _ + @ = - and /")
        return value.rstrip("/")

    @field_validator("cluster_name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", value):
            raise ValueError("must be 1 to 64 of a-z, 0-9 and '-', with no '-' at either end")
        return value


def load(args: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the application's `args`; raises ConfigError with every broken rule."""
    merged = dict(args)
    for key, variable in (("shared_root", "ARGUS_SHARED_ROOT"), ("cluster_name", "ARGUS_CLUSTER")):
        if environ.get(variable):
            merged[key] = environ[variable]
    settings, broken = None, list[FieldError]()
    try:
        settings = Settings.model_validate(merged)
        verl = settings.verl
    except ValidationError as error:
        broken += field_errors(error)
        verl = _verl_alone(merged)
    broken += verl.broken(settings.shared_root if settings else str(merged.get("shared_root", "")))
    if settings is None or broken:
        rules = "\n".join(f"  {item.field}: {item.rule}" for item in broken)
        raise ConfigError(f"serve_config.yaml, the application's args:\n{rules}")
    return settings


def _verl_alone(args: Mapping[str, Any]) -> VerlSettings:
    """So that one answer also says what is wrong there, where something else is wrong too."""
    try:
        return VerlSettings.model_validate(args.get("verl", {}))
    except ValidationError:
        return VerlSettings()


def main(arguments: Sequence[str]) -> int:
    """`python -m argus_ray.config FILE`: says what is wrong with this serve_config.yaml, and deploys nothing. Exit code
    65 (of sysexits.h: the data is wrong) if there is something; the launcher asks for it before it deploys."""
    try:
        applications = yaml.safe_load(Path(arguments[0]).read_text())["applications"]
        load(next(each["args"] for each in applications if each["name"] == "argus"))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except (OSError, yaml.YAMLError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (LookupError, TypeError, StopIteration):
        sys.stderr.write("name one serve_config.yaml, whose application argus has args\n")
        return 2
    return 0


def fingerprint(settings: Settings) -> str:
    """Changes when the code or the settings change. Actors that carry another one are replaced at the next start."""
    digest = hashlib.sha256(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode())
    package = Path(__file__).parent
    # Not the console, which no actor has, and below which thousands of files of npm lie.
    rooms = (path for path in package.iterdir() if path.name != "console")
    files = (path for room in rooms for path in (room.rglob("*") if room.is_dir() else (room,)))
    for path in sorted(files):
        if path.suffix in (".py", ".sql", ".tsv"):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
