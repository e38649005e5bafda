"""Users and their tokens: admin only, which the service decides."""

from __future__ import annotations

from fastapi import APIRouter, Request

from argus_ray.core.actions import (
    CreateUser,
    GetUser,
    IssueToken,
    ListTokens,
    ListUsers,
    RevokeToken,
    SetUserEnabled,
)
from argus_ray.gateway.context import TheCaller
from argus_ray.gateway.http.body import read_json, schema_of
from argus_ray.gateway.http.params import NoQuery, TokenId, UserId
from argus_ray.gateway.http.schemas import IssuedTokenOut, NewToken, NewUser, TokenOut, TokensOut, UserOut, UsersOut

router = APIRouter(prefix="/api/v2/users", tags=["users (admin)"], dependencies=[NoQuery])


@router.post("", status_code=201, openapi_extra=schema_of(NewUser))
async def create_user(request: Request, caller: TheCaller) -> UserOut:
    """Create a user. The same id again is a 409, also after the user was disabled."""
    body = await read_json(request, NewUser)
    return UserOut.of(await caller.do(CreateUser(body.user_id, body.display_name)))


@router.get("")
async def list_users(caller: TheCaller) -> UsersOut:
    """All users."""
    return UsersOut(users=[UserOut.of(user) for user in await caller.do(ListUsers())])


@router.post("/{user_id}:disable")
async def disable_user(caller: TheCaller, user_id: UserId) -> UserOut:
    """From now on this user's tokens answer 403. Idempotent; tasks of the user go on."""
    return UserOut.of(await caller.do(SetUserEnabled(user_id, enabled=False)))


@router.post("/{user_id}:enable")
async def enable_user(caller: TheCaller, user_id: UserId) -> UserOut:
    """Undo a disable. Idempotent."""
    return UserOut.of(await caller.do(SetUserEnabled(user_id, enabled=True)))


@router.get("/{user_id}")
async def get_user(caller: TheCaller, user_id: UserId) -> UserOut:
    """One user."""
    return UserOut.of(await caller.do(GetUser(user_id)))


@router.post("/{user_id}/tokens", status_code=201, openapi_extra=schema_of(NewToken, required=False))
async def issue_token(request: Request, caller: TheCaller, user_id: UserId) -> IssuedTokenOut:
    """Issue a token. Its plain text is in this answer, and nowhere after it. An empty body: no label, no
    expiry.
    """
    body = await read_json(request, NewToken, optional=True)
    ttl_s = None if body.expires_in_s is None else float(body.expires_in_s)
    return IssuedTokenOut.of(await caller.do(IssueToken(user_id, body.label, ttl_s)))


@router.get("/{user_id}/tokens")
async def list_tokens(caller: TheCaller, user_id: UserId) -> TokensOut:
    """What may be shown of a user's tokens."""
    return TokensOut(tokens=[TokenOut.of(info) for info in await caller.do(ListTokens(user_id))])


@router.delete("/{user_id}/tokens/{token_id}")
async def revoke_token(caller: TheCaller, user_id: UserId, token_id: TokenId) -> TokenOut:
    """The token answers 401 from now on. Idempotent."""
    return TokenOut.of(await caller.do(RevokeToken(user_id, token_id)))
