"""The calls about users and tokens, the pool, and the server itself."""

from __future__ import annotations

from typing import Any

from argus_ray.client import paths
from argus_ray.client.calls import JSON_BODY, Answer, Call, as_json
from argus_ray.client.models import admin as models
from argus_ray.client.models.tasks import Maintenance
from argus_ray.client.task_calls import EVENTS, Names, When, of


def me() -> Call[models.Me]:
    return Call("GET", paths.ME, of(models.Me))


def presets() -> Call[models.Presets]:
    return Call("GET", paths.PRESETS, of(models.Presets))


def users() -> Call[models.Users]:
    return Call("GET", paths.USERS, of(models.Users))


def user(user_id: str) -> Call[models.User]:
    return Call("GET", paths.USER, of(models.User), {"user_id": user_id})


def create_user(user_id: str, display_name: str | None) -> Call[models.User]:
    body = as_json(user_id=user_id, display_name=display_name)
    return Call("POST", paths.USERS, of(models.User), headers=JSON_BODY, content=body, repeats=False)


def set_user(user_id: str, *, enabled: bool) -> Call[models.User]:
    return Call("POST", paths.ENABLE_USER if enabled else paths.DISABLE_USER, of(models.User), {"user_id": user_id})


def tokens(user_id: str) -> Call[models.Tokens]:
    return Call("GET", paths.TOKENS, of(models.Tokens), {"user_id": user_id})


def issue_token(user_id: str, *, label: str | None, expires_in_s: int | None) -> Call[models.IssuedToken]:
    body = as_json(label=label, expires_in_s=expires_in_s)
    parts = {"user_id": user_id}
    return Call("POST", paths.TOKENS, of(models.IssuedToken), parts, headers=JSON_BODY, content=body, repeats=False)


def revoke_token(user_id: str, token_id: str) -> Call[models.Token]:
    parts = {"user_id": user_id, "token_id": token_id}
    return Call("DELETE", paths.TOKEN, of(models.Token), parts)


def nodes() -> Call[models.Nodes]:
    return Call("GET", paths.NODES, of(models.Nodes))


def cluster() -> Call[models.Cluster]:
    return Call("GET", paths.CLUSTER, of(models.Cluster))


def order(node: str, verb: str, *, reason: str | None = None, deadline_s: float | None = None) -> Call[models.Ordered]:
    """`verb`: cordon, drain or uncordon."""
    path = paths.ORDERS[verb]
    body = as_json(reason=reason, deadline_s=deadline_s)
    return Call("POST", path, of(models.Ordered), {"node": node}, headers=JSON_BODY, content=body)


def maintenance() -> Call[Maintenance]:
    return Call("GET", paths.MAINTENANCE, of(Maintenance))


def set_maintenance(on: bool, reason: str | None) -> Call[Maintenance]:
    body = as_json(on=on, reason=reason)
    return Call("PUT", paths.MAINTENANCE, of(Maintenance), headers=JSON_BODY, content=body)


def health() -> Call[models.Health]:
    return Call("GET", "/healthz", of(models.Health))


def ready() -> Call[dict[str, str]]:
    def parts(answer: Answer) -> dict[str, str]:
        found = answer.json()
        return {str(name): str(value) for name, value in found.get("parts", {}).items()}

    return Call("GET", "/readyz", parts, repeats=False)


def version() -> Call[models.Version]:
    return Call("GET", paths.VERSION, of(models.Version))


def schema() -> Call[dict[str, Any]]:
    return Call("GET", paths.SCHEMA, Answer.json)


def audit(
    *,
    user: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: When = None,
    until: When = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[models.AuditPage]:
    query = (("user", user), ("actor", actor), ("action", action), ("since", since), ("until", until))
    return Call("GET", paths.AUDIT, of(models.AuditPage), query=(*query, ("limit", limit), ("cursor", cursor)))


def audit_stream(
    *, user: str | None = None, actor: str | None = None, action: str | None = None, after: str | None = None
) -> Call[Answer]:
    headers = EVENTS if after is None else EVENTS | {"Last-Event-ID": after}
    query = (("user", user), ("actor", actor), ("action", action))
    return Call("GET", paths.AUDIT_STREAM, lambda a: a, query=query, headers=headers)


def usage(
    *, by: Names = None, since: When = None, until: When = None, limit: int | None = None, cursor: str | None = None
) -> Call[models.UsagePage]:
    query = (("by", by), ("since", since), ("until", until), ("limit", limit), ("cursor", cursor))
    return Call("GET", paths.USAGE, of(models.UsagePage), query=query)
