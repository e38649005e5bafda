"""Users and their tokens. For admins only; the caller has checked that."""

from __future__ import annotations

import math
import unicodedata

from argus_ray.core import ids
from argus_ray.core.actions import INTERNAL_USER, CreateUser, IssueToken, RevokeToken, SetUserEnabled
from argus_ray.core.errors import FieldError, InvalidRequest, TokenNotFound, UserExists, UserNotFound
from argus_ray.core.model import IssuedToken, TokenInfo, User, UserState
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import tokens, users

_MAX_TEXT = 128
#: A hundred years, in seconds.
_MAX_TTL_S = 100 * 365 * 86_400.0


def ensure_internal_user(unit: UnitOfWork) -> None:
    """The owner of the tasks of the legacy single-tenant mode. It exists from the first start on."""
    users.add(unit.db, User(INTERNAL_USER, "single-tenant clients", UserState.ACTIVE, unit.now))


def create(unit: UnitOfWork, action: CreateUser) -> User:
    user_id = ids.check_user_id(action.user_id)
    user = User(user_id, _text("display_name", action.display_name), UserState.ACTIVE, unit.now)
    # The reserved user has a row, so it is a conflict like any other.
    if not users.add(unit.db, user):
        raise UserExists
    return user


def get(unit: UnitOfWork, user_id: str) -> User:
    """UserNotFound; the reserved user can be looked at."""
    user = users.find(unit.db, user_id)
    if user is None:
        raise UserNotFound
    return user


def list_all(unit: UnitOfWork) -> tuple[User, ...]:
    """By id. Without the reserved user, which nobody administers."""
    return users.all_but(unit.db, INTERNAL_USER)


def set_enabled(unit: UnitOfWork, action: SetUserEnabled) -> User:
    _administrable(unit, action.user_id)
    users.set_state(unit.db, action.user_id, UserState.ACTIVE if action.enabled else UserState.DISABLED)
    return get(unit, action.user_id)


def issue_token(unit: UnitOfWork, action: IssueToken) -> IssuedToken:
    """The plain text is in this answer and nowhere else."""
    user = _administrable(unit, action.user_id)
    label = _text("label", action.label)
    if action.ttl_s is not None and not (math.isfinite(action.ttl_s) and 0 < action.ttl_s <= _MAX_TTL_S):
        raise _invalid("ttl_s", "must be a number of seconds above 0, and at most a hundred years")
    limit = unit.ports.settings.limits.tokens_per_user
    if tokens.count_live(unit.db, user.user_id, unit.now) >= limit:
        raise InvalidRequest(f"the user has {limit} tokens that are valid, which is the limit: revoke one first")
    token = ids.make_token(unit.ports.entropy(32))
    info = TokenInfo(
        token_id=f"tok-{unit.ports.entropy(8).hex()}",
        user_id=user.user_id,
        label=label,
        created_at=unit.now,
        expires_at=None if action.ttl_s is None else unit.now + action.ttl_s,
        last_used_at=None,
        revoked_at=None,
    )
    tokens.add(unit.db, info, ids.token_digest(token))
    return IssuedToken(info, token)


def list_tokens(unit: UnitOfWork, user_id: str) -> tuple[TokenInfo, ...]:
    _administrable(unit, user_id)
    return tokens.of_user(unit.db, user_id)


def revoke_token(unit: UnitOfWork, action: RevokeToken) -> TokenInfo:
    """A token that is revoked already stays as it is."""
    _administrable(unit, action.user_id)
    if tokens.find(unit.db, action.user_id, action.token_id) is None:
        raise TokenNotFound
    tokens.revoke(unit.db, action.token_id, unit.now)
    info = tokens.find(unit.db, action.user_id, action.token_id)
    if info is None:
        raise TokenNotFound
    return info


def _administrable(unit: UnitOfWork, user_id: str) -> User:
    if user_id == INTERNAL_USER:
        raise _invalid("user_id", "is reserved: this user has no tokens and cannot be disabled")
    return get(unit, user_id)


def _text(field: str, value: str) -> str:
    if len(value) > _MAX_TEXT or any(unicodedata.category(char).startswith("C") for char in value):
        raise _invalid(field, f"at most {_MAX_TEXT} characters, without control characters")
    return value


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
