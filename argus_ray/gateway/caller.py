"""The caller of a request: who asks, and the way to the control plane in their name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from argus_ray.core.actions import (
    INTERNAL_USER,
    Action,
    Credential,
    Explanation,
    Foresight,
    Principal,
    Role,
    Submitted,
    TaskView,
    WhoAmI,
)
from argus_ray.core.usage import Me
from argus_ray.core.watching import Watch
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.http.access import Facts, facts_of

R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class Caller:
    """Who asks, and the way to the control plane in their name."""

    credential: Credential
    gateway: GatewayParts
    facts: Facts

    async def do(self, action: Action[R]) -> R:
        """The action's result; raises ArgusError. Authentication and authorisation happen there, in the same
        hop."""
        result = await self.gateway.control.call(self.credential, action)
        user_id = _own_user_id(self.credential, result)
        if self.credential.digest is not None:
            self.gateway.known_tokens.add(self.credential.digest, user_id)
        if self.facts.user_id is None:
            self.facts.user_id = user_id
        return result

    async def do_as(self, action: Action[R]) -> tuple[R, Principal]:
        """The same, and who asks: both go in one batch."""
        return await both(self.do(action), self.do(WhoAmI()))

    async def recognize(self) -> None:
        """Before anything is done for a caller that costs more than a look at its request. Raises Unauthenticated.

        Costs no crossing for a token that was good a moment ago; the action itself authenticates in any case.
        """
        if not self.is_known:
            await self.do(WhoAmI())

    async def user_id(self) -> str | None:
        """As `recognize`, and whose token it is; None: an admin's that is no user."""
        if self.credential.role is not Role.USER:
            return INTERNAL_USER if self.credential.role is Role.INTERNAL else None
        known = self.gateway.known_tokens.user_of(self.credential.digest or "")
        return known or (await self.do(WhoAmI())).user_id

    async def own_user(self) -> str | None:
        """Whose own inputs this caller's tasks may name; None where the settings let nobody name any, and for an admin
        who is no user. Raises Unauthenticated, where the settings let users name some."""
        return await self.user_id() if self.gateway.settings.inputs.own_folders else None

    @property
    def is_known(self) -> bool:
        digest = self.credential.digest
        return digest is None or digest in self.gateway.known_tokens


async def both(first: Awaitable[R], second: Awaitable[S]) -> tuple[R, S]:
    """At once, as `asyncio.gather`; but nothing of it goes on after its error."""
    answers = await asyncio.gather(first, second, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast("tuple[R, S]", answers)


def _own_user_id(credential: Credential, result: Any) -> str | None:
    """For the access log. A user sees only own tasks, so a task in the answer says who asked."""
    if isinstance(result, Principal):
        return result.user_id
    if isinstance(result, (Me, Watch)):
        return result.principal.user_id
    if isinstance(result, (Submitted, Foresight)):
        return result.user_id if credential.role is Role.USER else None
    if credential.role is Role.USER and isinstance(result, (TaskView, Explanation)):
        return result.task.user_id
    return None


def holder_of(principal: Principal) -> str:
    """Whose open answers count together: a user's, whatever the token; else a role's."""
    return f"{principal.role.value}/{principal.user_id or ''}"


async def gateway_of(request: Request) -> GatewayParts:
    gateway: GatewayParts = request.app.state.gateway
    return gateway


_scheme = HTTPBearer(auto_error=False, description="A user token (`argus_u_...`) or an admin token")


def caller_of(request: Request) -> Caller:
    """Who sends this request, by the Authorization header and by nothing else. Raises Unauthenticated.

    The routes that are called most take this function rather than the dependency below: each dependency of FastAPI
    costs a request some 50 us.
    """
    gateway: GatewayParts = request.app.state.gateway
    address = gateway.address_of(request.scope)
    credential = gateway.authenticator.credential(request.headers.getlist("authorization"), address)
    facts = facts_of(request.scope)
    facts.role = credential.role.value
    caller = Caller(credential, gateway, facts)
    # A stream waits for its client to leave by the same messages, so only where a body is read.
    if request.method not in ("GET", "HEAD", "DELETE") and not caller.is_known:
        facts.arrival.require(caller.recognize)
    return caller


async def _caller(request: Request, _: Annotated[Any, Depends(_scheme)]) -> Caller:
    """The scheme is here for the docs page."""
    return caller_of(request)


TheGateway = Annotated[GatewayParts, Depends(gateway_of)]
TheCaller = Annotated[Caller, Depends(_caller)]
#: For the docs page, of a route that takes `caller_of`.
SECURITY: dict[str, Any] = {"security": [{_scheme.scheme_name: []}]}
