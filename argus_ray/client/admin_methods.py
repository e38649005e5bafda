"""The methods for admins, and about the server itself."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import Any

from argus_ray.client import admin_calls
from argus_ray.client.caller import Caller
from argus_ray.client.calls import Answer, Call
from argus_ray.client.models import admin as models
from argus_ray.client.models.tasks import Maintenance
from argus_ray.client.pages import pages
from argus_ray.client.task_calls import Names, When


class AdminMethods(Caller):
    """Part of Client."""

    # Users and their tokens.

    def users(self) -> tuple[models.User, ...]:
        return self.send(admin_calls.users()).users

    def user(self, user_id: str) -> models.User:
        return self.send(admin_calls.user(user_id))

    def create_user(self, user_id: str, display_name: str | None = None) -> models.User:
        return self.send(admin_calls.create_user(user_id, display_name))

    def disable_user(self, user_id: str) -> models.User:
        """Its tokens are refused from the next request on; its tasks go on."""
        return self.send(admin_calls.set_user(user_id, enabled=False))

    def enable_user(self, user_id: str) -> models.User:
        return self.send(admin_calls.set_user(user_id, enabled=True))

    def tokens(self, user_id: str) -> tuple[models.Token, ...]:
        return self.send(admin_calls.tokens(user_id)).tokens

    def issue_token(
        self, user_id: str, *, label: str | None = None, expires_in_s: int | None = None
    ) -> models.IssuedToken:
        """A new token, which is told only this once; it expires after so many seconds, or never."""
        call = admin_calls.issue_token(user_id, label=label, expires_in_s=expires_in_s)
        return self.send(call)

    def revoke_token(self, user_id: str, token_id: str) -> models.Token:
        return self.send(admin_calls.revoke_token(user_id, token_id))

    # The pool.

    def nodes(self) -> models.Nodes:
        return self.send(admin_calls.nodes())

    def cluster(self) -> models.Cluster:
        """How the service and its pool are."""
        return self.send(admin_calls.cluster())

    def cordon(self, node: str, *, reason: str | None = None) -> models.Ordered:
        """The machine gets no new gang. `node`: its hostname, address or Ray node id."""
        return self.send(admin_calls.order(node, "cordon", reason=reason))

    def drain(self, node: str, *, reason: str | None = None, deadline_s: int | None = None) -> models.Ordered:
        """The same; what still runs there after so many seconds is stopped, and resumes elsewhere."""
        call = admin_calls.order(node, "drain", reason=reason, deadline_s=deadline_s)
        return self.send(call)

    def uncordon(self, node: str, *, reason: str | None = None) -> models.Ordered:
        return self.send(admin_calls.order(node, "uncordon", reason=reason))

    def maintenance(self) -> Maintenance:
        return self.send(admin_calls.maintenance())

    def set_maintenance(self, on: bool, *, reason: str | None = None) -> Maintenance:
        """While it is on nothing starts; submissions are accepted, and what runs goes on."""
        return self.send(admin_calls.set_maintenance(on, reason))

    # What was done, and what was used.

    def audit(
        self,
        *,
        user: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: When = None,
        until: When = None,
        limit: int | None = None,
        page_size: int = 100,
    ) -> Iterator[models.AuditEntry]:
        """Who did what, newest first, page by page as they are taken."""

        def page(cursor: str | None, size: int) -> models.AuditPage:
            call = admin_calls.audit(
                user=user, actor=actor, action=action, since=since, until=until, limit=size, cursor=cursor
            )
            return self.send(call)

        return pages(page, lambda found: found.entries, limit, page_size)

    def audit_events(
        self, *, user: str | None = None, actor: str | None = None, action: str | None = None, after: int | None = None
    ) -> Generator[models.AuditEntry, None, None]:
        """What is done from now on, or since the entry `after`; without an end."""

        def open_at(last_id: str | None) -> Call[Answer]:
            return admin_calls.audit_stream(user=user, actor=actor, action=action, after=last_id)

        for event in self.stream_events(open_at, after=None if after is None else str(after)):
            document = json.loads(event.data) if event.event == "entry" else None
            if isinstance(document, dict) and "audit_id" in document:
                yield models.AuditEntry.of(document)

    def usage(
        self, *, by: Names = None, since: When = None, until: When = None, page_size: int = 1000
    ) -> Iterator[models.UsageRow]:
        """GPU seconds and tasks by `user`, `workload` and `day`, page by page as they are taken."""

        def page(cursor: str | None, size: int) -> models.UsagePage:
            return self.send(admin_calls.usage(by=by, since=since, until=until, limit=size, cursor=cursor))

        return pages(page, lambda found: found.rows, None, page_size)

    # The server.

    def health(self) -> models.Health:
        """Whether its process answers."""
        return self.send(admin_calls.health())

    def ready(self) -> dict[str, str]:
        """What each part of the server says that a submission needs. Raises Unavailable if one is not ready."""
        return self.send(admin_calls.ready())

    def version(self) -> models.Version:
        return self.send(admin_calls.version())

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a TaskSpec."""
        return self.send(admin_calls.schema())
