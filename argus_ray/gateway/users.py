"""Users and their tokens over HTTP: admin only, which the service decides. The wire, then the routes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.core.actions import (
    CreateUser,
    GetUser,
    IssueToken,
    ListTokens,
    ListUsers,
    RevokeToken,
    SetUserEnabled,
)
from argus_ray.core.model import IssuedToken, TokenInfo, User
from argus_ray.gateway.caller import TheCaller
from argus_ray.gateway.http.body import read_json, schema_of
from argus_ray.gateway.http.params import NoQuery, TokenId, UserId
from argus_ray.gateway.http.schemas import Time, rfc3339, time_or_none


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class NewUser(_Request):
    user_id: str = Field(max_length=64, description="1 to 32 of a-z, 0-9 and single hyphens")
    display_name: str = Field(default="", max_length=128)


class NewToken(_Request):
    label: str = Field(default="", max_length=128)
    #: At most ten years.
    expires_in_s: int | None = Field(default=None, ge=1, le=315_360_000)


class UserOut(BaseModel):
    user_id: str
    display_name: str
    state: str
    created_at: Time

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(
            user_id=user.user_id,
            display_name=user.display_name,
            state=user.state.value,
            created_at=rfc3339(user.created_at),
        )


class UsersOut(BaseModel):
    users: list[UserOut]


class TokenOut(BaseModel):
    """What may be shown of a token: never the token."""

    token_id: str
    user_id: str
    label: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None

    @classmethod
    def of(cls, info: TokenInfo) -> TokenOut:
        return cls(
            token_id=info.token_id,
            user_id=info.user_id,
            label=info.label,
            created_at=rfc3339(info.created_at),
            expires_at=time_or_none(info.expires_at),
            last_used_at=time_or_none(info.last_used_at),
            revoked_at=time_or_none(info.revoked_at),
        )


class TokensOut(BaseModel):
    tokens: list[TokenOut]


class IssuedTokenOut(BaseModel):
    """The one answer that carries the plain text of a token."""

    token_id: str
    user_id: str
    label: str
    created_at: Time
    expires_at: Time | None
    token: str = Field(repr=False, description="Shown once, and never again")

    @classmethod
    def of(cls, issued: IssuedToken) -> IssuedTokenOut:
        info = issued.info
        return cls(
            token_id=info.token_id,
            user_id=info.user_id,
            label=info.label,
            created_at=rfc3339(info.created_at),
            expires_at=time_or_none(info.expires_at),
            token=issued.token,
        )


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
    """One user, by id."""
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
