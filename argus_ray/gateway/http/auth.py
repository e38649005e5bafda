"""Who asks: a bearer token becomes a Credential. Only the service can say whether a user's token is good.

Tokens are compared by digest in constant time, and none of them ever reaches a log, an error or a repr.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from argus_ray.config import ConfigError, TokenVariables
from argus_ray.core.actions import Credential, Role
from argus_ray.core.errors import Unauthenticated
from argus_ray.core.ids import TOKEN_RE, token_digest

_log = logging.getLogger("argus.gateway")

#: Characters; shorter ones can be guessed by trying.
MIN_TOKEN_LENGTH = 16
#: The variables of the old single-tenant service. Its clients must go on working, so a short token there is a
#: warning; anywhere else it is an error.
_LEGACY_PREFIX = "MVP_"
#: What can travel in an Authorization header.
_SENDABLE = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True)
class Tokens:
    """The tokens that are not in the database. Empty: unset."""

    admin: tuple[str, ...] = field(default=(), repr=False)
    internal: str = field(default="", repr=False)
    #: What is wrong with them but not fatal; names of variables only.
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, names: TokenVariables, environ: Mapping[str, str]) -> Tokens:
        """Read the variables that the settings name. Raises ConfigError with every broken rule."""
        values = {name: environ.get(name, "") for name in (*names.admin, names.internal)}
        values = {name: value for name, value in values.items() if value}
        problems: list[str] = []
        warnings: list[str] = []
        for name, value in values.items():
            if not _SENDABLE.fullmatch(value):
                problems.append(f"{name}: must be 1 to 512 visible ASCII characters, without spaces or line ends")
            elif len(value) < MIN_TOKEN_LENGTH:
                rule = f"{name}: is shorter than {MIN_TOKEN_LENGTH} characters"
                (warnings if name.startswith(_LEGACY_PREFIX) else problems).append(rule)
        internal = values.get(names.internal, "")
        problems += [
            f"{name}: must differ from {names.internal} (each stands for another role)"
            for name in names.admin
            if internal and values.get(name) == internal
        ]
        if problems:
            raise ConfigError("the tokens in the environment:\n" + "\n".join(f"  {rule}" for rule in problems))
        admin = tuple(values[name] for name in names.admin if name in values)
        if not admin and not internal:
            warnings.append(f"none of {', '.join((*names.admin, names.internal))} is set: nobody can administer Argus")
        return cls(admin, internal, tuple(warnings))


class Authenticator:
    """Authorization header -> Credential."""

    def __init__(self, tokens: Tokens) -> None:
        for warning in tokens.warnings:
            _log.warning("%s", warning)
        candidates = [(Role.ADMIN, value) for value in tokens.admin]
        candidates.append((Role.INTERNAL, tokens.internal))
        self._candidates = [(role, _digest(value)) for role, value in candidates if value]

    def __repr__(self) -> str:
        return f"Authenticator({len(self._candidates)} tokens)"

    def credential(self, authorization: Sequence[str]) -> Credential:
        """From the values of all Authorization headers of a request. Raises Unauthenticated."""
        token = bearer_token(authorization)
        if token is None:
            raise Unauthenticated("Send your token in the header 'Authorization: Bearer <token>'.")
        presented = _digest(token)
        role = None
        # Every candidate is compared, whatever the first ones say: time tells nothing about which one is
        # near.
        for candidate, digest in self._candidates:
            if hmac.compare_digest(digest, presented):
                role = candidate
        if role is not None:
            return Credential(role)
        if not TOKEN_RE.fullmatch(token):
            raise Unauthenticated()
        return Credential(Role.USER, token_digest(token))


def bearer_token(authorization: Sequence[str]) -> str | None:
    """The token that these Authorization headers present; None if they present none for us.

    Raises Unauthenticated for a bearer header that is malformed, and for more than one header: a proxy and
    the service must not be able to disagree on which one counts.
    """
    if not authorization:
        return None
    if len(authorization) > 1:
        raise Unauthenticated("More than one Authorization header.")
    scheme, _, token = authorization[0].strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip(" ")
    if not _SENDABLE.fullmatch(token):
        raise Unauthenticated()
    return token


def challenge(authorization: Sequence[str]) -> str:
    """The WWW-Authenticate header of a 401: with an error code only if a token was presented (RFC 6750,
    3.1).
    """
    presented = any(value.strip().lower().startswith("bearer") for value in authorization)
    return 'Bearer realm="argus"' + (', error="invalid_token"' if presented else "")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
