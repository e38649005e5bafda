"""Users and their tokens. For admins only; the caller has checked that."""

from __future__ import annotations

import math
import unicodedata

from argus_ray.core import ids
from argus_ray.core.actions import INTERNAL_USER, CreateUser, IssueToken, RevokeToken, SetUserEnabled
from argus_ray.core.errors import FieldError, InvalidRequest, TokenNotFound, UserExists, UserNotFound
from argus_ray.core.model import IssuedToken, TokenInfo, User, UserState
from argus_ray.service.unit_of_work import Turn
from argus_ray.store import tokens, users

_MAX_TEXT = 128
#: A hundred years, in seconds.
_MAX_TTL_S = 100 * 365 * 86_400.0


def ensure_internal_user(turn: Turn) -> None:
    """The owner of the tasks of the legacy single-tenant mode. It exists from the first start on."""
    users.add(turn.db, User(INTERNAL_USER, "single-tenant clients", UserState.ACTIVE, turn.now))


def create(turn: Turn, action: CreateUser) -> User:
    user_id = ids.check_user_id(action.user_id)
    user = User(user_id, _text("display_name", action.display_name), UserState.ACTIVE, turn.now)
    # The reserved user has a row, so it is a conflict like any other.
    if not users.add(turn.db, user):
        raise UserExists
    return user


def get(turn: Turn, user_id: str) -> User:
    """UserNotFound; the reserved user can be looked at."""
    user = users.find(turn.db, user_id)
    if user is None:
        raise UserNotFound
    return user


def list_all(turn: Turn) -> tuple[User, ...]:
    """By id. Without the reserved user, which nobody administers."""
    return users.all_but(turn.db, INTERNAL_USER)


def set_enabled(turn: Turn, action: SetUserEnabled) -> User:
    _administrable(turn, action.user_id)
    users.set_state(turn.db, action.user_id, UserState.ACTIVE if action.enabled else UserState.DISABLED)
    return get(turn, action.user_id)


def issue_token(turn: Turn, action: IssueToken) -> IssuedToken:
    """The plain text is in this answer and nowhere else."""
    user = _administrable(turn, action.user_id)
    label = _text("label", action.label)
    if action.ttl_s is not None and not (math.isfinite(action.ttl_s) and 0 < action.ttl_s <= _MAX_TTL_S):
        raise _invalid("ttl_s", "must be a number of seconds above 0, and at most a hundred years")
    limit = turn.ports.settings.limits.tokens_per_user
    if tokens.count_live(turn.db, user.user_id, turn.now) >= limit:
        raise InvalidRequest(f"the user has {limit} tokens that are valid, which is the limit: revoke one first")
    token = ids.make_token(turn.ports.entropy(32))
    info = TokenInfo(
        token_id=f"tok-{turn.ports.entropy(8).hex()}",
        user_id=user.user_id,
        label=label,
        created_at=turn.now,
        expires_at=None if action.ttl_s is None else turn.now + action.ttl_s,
        last_used_at=None,
        revoked_at=None,
    )
    tokens.add(turn.db, info, ids.token_digest(token))
    return IssuedToken(info, token)


def list_tokens(turn: Turn, user_id: str) -> tuple[TokenInfo, ...]:
    _administrable(turn, user_id)
    return tokens.of_user(turn.db, user_id)


def revoke_token(turn: Turn, action: RevokeToken) -> TokenInfo:
    """A token that is revoked already stays as it is."""
    _administrable(turn, action.user_id)
    if tokens.find(turn.db, action.user_id, action.token_id) is None:
        raise TokenNotFound
    tokens.revoke(turn.db, action.token_id, turn.now)
    info = tokens.find(turn.db, action.user_id, action.token_id)
    if info is None:
        raise TokenNotFound
    return info


def _administrable(turn: Turn, user_id: str) -> User:
    if user_id == INTERNAL_USER:
        raise _invalid("user_id", "is reserved: this user has no tokens and cannot be disabled")
    return get(turn, user_id)


def _text(field: str, value: str) -> str:
    if len(value) > _MAX_TEXT or any(unicodedata.category(char).startswith("C") for char in value):
        raise _invalid(field, f"at most {_MAX_TEXT} characters, without control characters")
    return value


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
