"""Who asks: a bearer token becomes a Credential. Only the service can say whether a user's token is good.

Tokens are compared by digest in constant time, and none of them ever reaches a log, an error or a repr.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from argus_ray.config import ConfigError, TokenVariables
from argus_ray.core.actions import Credential, Role
from argus_ray.core.errors import Unauthenticated
from argus_ray.core.ids import TOKEN_RE, token_digest
from argus_ray.discovery import head_secrets

_log = logging.getLogger("argus.gateway")


@dataclass(frozen=True)
class Tokens:
    """Digests of the tokens that are not in the database. Empty: unset."""

    admin: tuple[bytes, ...] = field(default=(), repr=False)
    internal: bytes = field(default=b"", repr=False)
    #: What is wrong with them but not fatal; names of variables only.
    warnings: tuple[str, ...] = ()
    #: The variables that hold them: the admin's in their order, then the internal one's. Empty: not told.
    variables: tuple[str, ...] = field(default=(), compare=False)
    #: Of whoever may read /metrics, and do nothing else.
    metrics: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, admin: Sequence[str] = (), internal: str = "", metrics: str = "") -> Tokens:
        """Of plain tokens."""
        one, other = (head_secrets.digest(each) if each else b"" for each in (internal, metrics))
        return cls(tuple(map(head_secrets.digest, admin)), one, metrics=other)

    @classmethod
    def from_environment(cls, names: TokenVariables, environ: Mapping[str, str]) -> Tokens:
        """Read the variables that the settings name: the launcher's digests, or on a head that was started by hand the
        tokens themselves. Raises ConfigError with every broken rule."""
        problems: list[str] = []
        digests: dict[str, bytes] = {}
        warnings: list[str] = []
        try:
            digests, said = head_secrets.digests((*names.admin, names.internal, names.metrics), environ)
            warnings += said
        except head_secrets.BadToken as error:
            problems += error.rules
        internal = digests.get(names.internal, b"")
        problems += [
            f"{name}: must differ from {names.internal} (each stands for another role)"
            for name in names.admin
            if internal and digests.get(name) == internal
        ]
        metrics = digests.get(names.metrics, b"")
        problems += [
            f"{names.metrics}: must differ from {name} (it may read /metrics and nothing else)"
            for name in (*names.admin, names.internal)
            if metrics and digests.get(name) == metrics
        ]
        if problems:
            raise ConfigError("the tokens in the environment:\n" + "\n".join(f"  {rule}" for rule in problems))
        admin = tuple(digests[name] for name in names.admin if name in digests)
        if not admin and not internal:
            warnings.append(f"none of {', '.join((*names.admin, names.internal))} is set: nobody can administer Argus")
        held = tuple(name for name in names.admin if name in digests)
        return cls(admin, internal, tuple(warnings), (*held, names.internal), metrics)


class Authenticator:
    """Authorization header -> Credential."""

    def __init__(self, tokens: Tokens) -> None:
        for warning in tokens.warnings:
            _log.warning("%s", warning)
        named = dict(enumerate(tokens.variables))
        candidates = [(Role.ADMIN, value, named.get(place)) for place, value in enumerate(tokens.admin)]
        candidates.append((Role.INTERNAL, tokens.internal, named.get(len(tokens.admin))))
        self._candidates = [candidate for candidate in candidates if candidate[1]]
        self._metrics = tokens.metrics

    def __repr__(self) -> str:
        return f"Authenticator({len(self._candidates)} tokens)"

    def credential(self, authorization: Sequence[str], address: str | None = None) -> Credential:
        """From the values of all Authorization headers of a request, which came from `address`. Raises
        Unauthenticated."""
        token = bearer_token(authorization)
        if token is None:
            raise Unauthenticated("Send your token in the header 'Authorization: Bearer <token>'.")
        presented = head_secrets.digest(token)
        found = None
        # Every candidate is compared, whatever the first ones say: time tells nothing about which one is
        # near.
        for role, digest, variable in self._candidates:
            if hmac.compare_digest(digest, presented):
                found = Credential(role, None, address, variable)
        if found is not None:
            return found
        if not TOKEN_RE.fullmatch(token):
            raise Unauthenticated()
        return Credential(Role.USER, token_digest(token), address)

    def may_scrape(self, authorization: Sequence[str]) -> bool:
        """Whether a request presents the token of Prometheus, which is nobody's elsewhere. Raises Unauthenticated for
        headers that are malformed."""
        token = bearer_token(authorization)
        if token is None or not self._metrics:
            return False
        return hmac.compare_digest(self._metrics, head_secrets.digest(token))


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
    if not head_secrets.SENDABLE.fullmatch(token):
        raise Unauthenticated()
    return token


def challenge(authorization: Sequence[str]) -> str:
    """The WWW-Authenticate header of a 401: with an error code only if a token was presented (RFC 6750,
    3.1).
    """
    presented = any(value.strip().lower().startswith("bearer") for value in authorization)
    return 'Bearer realm="argus"' + (', error="invalid_token"' if presented else "")
