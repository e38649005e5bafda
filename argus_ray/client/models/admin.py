"""Users and their tokens, the pool, and what an operator sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from argus_ray.client.models.base import Model


class OwnToken(Model):
    SCHEMAS = ("OwnTokenOut",)

    token_id: str | None
    expires_at: datetime | None


class UsageSums(Model):
    SCHEMAS = ("UsageSums",)

    gpu_seconds: float
    tasks: int
    succeeded: int
    failed: int
    canceled: int


class OwnUsage(Model):
    SCHEMAS = ("OwnUsageOut",)

    last_30_days: UsageSums
    total: UsageSums


class OwnLimits(Model):
    SCHEMAS = ("OwnLimitsOut",)

    waiting_tasks: int
    waiting_tasks_limit: int
    gpus_held: int
    gpus_quota: int | None


class Me(Model):
    """Whom a token belongs to: `role` is admin, internal or user."""

    SCHEMAS = ("MeOut",)

    role: str
    user_id: str | None
    scopes: tuple[str, ...]
    token: OwnToken | None = None
    usage: OwnUsage | None = None
    limits: OwnLimits | None = None

    @property
    def is_admin(self) -> bool:
        return self.role != "user"


class User(Model):
    SCHEMAS = ("UserOut",)

    user_id: str
    display_name: str
    state: str
    created_at: datetime


class Users(Model):
    SCHEMAS = ("UsersOut",)

    users: tuple[User, ...]


class Token(Model):
    """What is known of a token; never itself."""

    SCHEMAS = ("TokenOut",)

    token_id: str
    user_id: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class Tokens(Model):
    SCHEMAS = ("TokensOut",)

    tokens: tuple[Token, ...]


class IssuedToken(Model):
    """A new token. `token` is told only this once, and no repr shows it."""

    SCHEMAS = ("IssuedTokenOut",)
    SECRET = frozenset({"token"})

    token_id: str
    user_id: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    token: str


class Cordon(Model):
    """An order about a machine: `state` is cordoned, draining, drained or cleared."""

    SCHEMAS = ("CordonOut",)

    machine: str
    state: str
    by: str
    since: datetime
    reason: str
    deadline: datetime | None
    tasks: tuple[str, ...]


class Ordered(Cordon):
    """`nodes`: Ray's ids of the machine's nodes."""

    SCHEMAS = ("OrderedOut",)

    nodes: tuple[str, ...]


class NodeTask(Model):
    SCHEMAS = ("NodeTaskOut",)

    task_id: str
    user_id: str
    gpus: int


class Node(Model):
    SCHEMAS = ("NodeOut",)

    node_id: str
    ip: str
    hostname: str
    is_head: bool
    gpus_total: float
    gpus_free: float
    cpus_total: float
    cpus_free: float
    worker_slots_total: float
    worker_slots_free: float
    barred: str | None
    cordon: Cordon | None
    tasks: tuple[NodeTask, ...] = ()


class Nodes(Model):
    """`away`: cordons of machines that are not in the pool now."""

    SCHEMAS = ("NodesOut",)

    nodes: tuple[Node, ...]
    away: tuple[Cordon, ...]


class Preset(Model):
    SCHEMAS = ("PresetOut",)

    name: str
    selectable: bool
    set: Mapping[str, Any]


class Rule(Model):
    """An operator's rule; only admins see them."""

    SCHEMAS = ("RuleOut",)

    number: int
    match: Mapping[str, Any]
    use: tuple[str, ...]
    set: Mapping[str, Any]


class Presets(Model):
    SCHEMAS = ("PresetsOut",)

    presets: tuple[Preset, ...]
    rules: tuple[Rule, ...] | None


class Health(Model):
    SCHEMAS = ("HealthOut",)

    status: str


class Version(Model):
    """`schema`: of the database; `build`: the git commit, if that is known."""

    SCHEMAS = ("VersionOut",)

    version: str
    api: str
    schema: int
    build: str | None


class AuditEntry(Model):
    """Who did what: `result` is `done`, or the code of the refusal."""

    SCHEMAS = ("AuditEntryOut",)

    audit_id: int
    at: datetime
    actor: str | None
    role: str
    token_id: str | None
    address: str | None
    action: str
    target: str | None
    user_id: str | None
    result: str
    detail: Mapping[str, Any] | None


class AuditPage(Model):
    SCHEMAS = ("AuditOut",)

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None


class UsageRow(UsageSums):
    """Of a user, a workload or a day, or of what was asked for of these; the others are None."""

    SCHEMAS = ("UsageRowOut",)

    user_id: str | None = None
    workload: str | None = None
    day: str | None = None


class UsagePage(Model):
    SCHEMAS = ("UsageOut",)

    rows: tuple[UsageRow, ...]
    since: str
    until: str
    next_cursor: str | None


class PoolGpus(Model):
    SCHEMAS = ("PoolGpusOut",)

    total: float | None
    free: float | None
    barred: float | None
    claimed: int | None


class PoolNodes(Model):
    SCHEMAS = ("PoolNodesOut",)

    ready: int
    barred: int
    cordoned: int


class Waiting(Model):
    SCHEMAS = ("WaitingOut",)

    tasks: int
    gpus: int
    oldest_s: float


class HeadFile(Model):
    SCHEMAS = ("HeadFileOut",)

    age_s: float | None
    ttl_s: float | None
    epoch: int | None


class SharedDisk(Model):
    SCHEMAS = ("SharedDiskOut",)

    free: int
    size: int


class Cluster(Model):
    """How the service and its pool are; None where a part does not tell."""

    SCHEMAS = ("ClusterOut",)

    at: datetime
    parts: Mapping[str, str]
    maintenance: bool | None
    last_tick_age_s: float | None
    head_file: HeadFile | None
    gpus: PoolGpus
    nodes: PoolNodes | None
    waiting: Waiting | None
    shared_disk: SharedDisk | None
    store_bytes: int | None
    backup_age_s: float | None
