"""Tokens from the environment, and what becomes of them."""

from __future__ import annotations

import hmac
import logging
from typing import Any

import pytest

from argus_ray.config import ConfigError, TokenVariables
from argus_ray.core.actions import Role
from argus_ray.core.errors import Unauthenticated
from argus_ray.core.ids import make_token, token_digest
from argus_ray.discovery.head_secrets import digest
from argus_ray.gateway.http.auth import Authenticator, Tokens
from tests.support.gateway import ADMIN_TOKEN, INTERNAL_TOKEN

NAMES = TokenVariables()
LONG = "0123456789abcdef"
OTHER = "fedcba9876543210"


def test_all_variables_are_read() -> None:
    environ = {"ARGUS_ADMIN_TOKEN": LONG, "MVP_ADMIN_TOKEN": OTHER, "MVP_INTERNAL_TOKEN": LONG + "x"}
    tokens = Tokens.from_environment(NAMES, environ | {"ARGUS_METRICS_TOKEN": LONG + "y"})
    assert tokens == Tokens.of((LONG, OTHER), LONG + "x", LONG + "y")
    assert tokens.warnings == ()


def test_an_empty_variable_is_unset() -> None:
    tokens = Tokens.from_environment(NAMES, {"ARGUS_ADMIN_TOKEN": LONG, "MVP_INTERNAL_TOKEN": ""})
    assert tokens == Tokens.of((LONG,))
    with pytest.raises(Unauthenticated):
        Authenticator(tokens).credential(["Bearer "])


def test_the_launchers_digests_stand_for_the_tokens() -> None:
    environ = {"ARGUS_ADMIN_TOKEN_SHA256": digest(LONG).hex(), "MVP_INTERNAL_TOKEN_SHA256": digest(OTHER).hex()}
    tokens = Tokens.from_environment(NAMES, environ)
    assert tokens == Tokens.of((LONG,), OTHER)
    authenticator = Authenticator(tokens)
    assert authenticator.credential([f"Bearer {LONG}"]).role is Role.ADMIN
    assert authenticator.credential([f"Bearer {OTHER}"]).role is Role.INTERNAL
    with pytest.raises(Unauthenticated):
        authenticator.credential([f"Bearer {digest(LONG).hex()}"])


@pytest.mark.parametrize(
    ("environ", "rule"),
    [
        ({"ARGUS_ADMIN_TOKEN": LONG, "MVP_INTERNAL_TOKEN": LONG}, "ARGUS_ADMIN_TOKEN: must differ"),
        ({"ARGUS_ADMIN_TOKEN": LONG, "ARGUS_METRICS_TOKEN": LONG}, "ARGUS_METRICS_TOKEN: must differ from ARGUS_ADMIN"),
        ({"MVP_INTERNAL_TOKEN": LONG, "ARGUS_METRICS_TOKEN": LONG}, "ARGUS_METRICS_TOKEN: must differ from MVP_INTER"),
        ({"ARGUS_METRICS_TOKEN": "tiny-one"}, "ARGUS_METRICS_TOKEN: is shorter than 16"),
        ({"ARGUS_ADMIN_TOKEN": "tiny-one"}, "ARGUS_ADMIN_TOKEN: is shorter than 16"),
        ({"ARGUS_ADMIN_TOKEN": LONG + "\n"}, "ARGUS_ADMIN_TOKEN: must be 1 to 512 visible"),
        ({"ARGUS_ADMIN_TOKEN": LONG + " x"}, "visible ASCII"),
        ({"ARGUS_ADMIN_TOKEN": LONG + "\u00e9"}, "visible ASCII"),
        ({"ARGUS_ADMIN_TOKEN_SHA256": LONG}, "ARGUS_ADMIN_TOKEN_SHA256: must be 64 hexadecimal digits"),
        (
            {"ARGUS_ADMIN_TOKEN_SHA256": digest(LONG).hex(), "MVP_INTERNAL_TOKEN": LONG},
            "ARGUS_ADMIN_TOKEN: must differ",
        ),
    ],
)
def test_bad_tokens_are_refused_at_start(environ: dict[str, str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        Tokens.from_environment(NAMES, environ)
    for value in environ.values():
        assert value not in str(caught.value)


def test_short_tokens_of_old_clients_go_on_working_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens.from_environment(NAMES, {"MVP_INTERNAL_TOKEN": "mvp-tok", "MVP_ADMIN_TOKEN": "mvp-adm"})
    with caplog.at_level(logging.WARNING):
        authenticator = Authenticator(tokens)
    assert "MVP_INTERNAL_TOKEN: is shorter" in caplog.text
    assert "mvp-tok" not in caplog.text
    assert authenticator.credential(["Bearer mvp-tok"]).role is Role.INTERNAL
    assert authenticator.credential(["Bearer mvp-adm"]).role is Role.ADMIN


def test_no_token_at_all_is_a_warning() -> None:
    [warning] = Tokens.from_environment(NAMES, {}).warnings
    assert "nobody can administer" in warning


def test_a_user_token_becomes_its_digest() -> None:
    token = make_token(b"x" * 32)
    credential = Authenticator(Tokens.of((ADMIN_TOKEN,), INTERNAL_TOKEN)).credential([f"Bearer {token}"])
    assert (credential.role, credential.digest) == (Role.USER, token_digest(token))
    assert token_digest(token) not in repr(credential)


def test_every_candidate_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def counting(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr("argus_ray.gateway.http.auth.hmac.compare_digest", counting)
    authenticator = Authenticator(Tokens.of((LONG, OTHER), INTERNAL_TOKEN))
    for header in (f"Bearer {LONG}", f"Bearer {INTERNAL_TOKEN}", "Bearer argus_u_" + "0" * 64):
        compared.clear()
        authenticator.credential([header])
        assert len(compared) == 3
        assert {len(value) for pair in compared for value in pair} == {32}


def test_nothing_shows_a_token() -> None:
    tokens = Tokens.of((ADMIN_TOKEN,), INTERNAL_TOKEN)
    for shown in (repr(tokens), str(tokens), repr(Authenticator(tokens)), str(vars(Authenticator(tokens)))):
        assert ADMIN_TOKEN not in shown
        assert INTERNAL_TOKEN not in shown


def test_the_variable_of_an_admins_token_is_known_for_the_audit() -> None:
    """Also where only the second one is set."""
    for name in NAMES.admin:
        auth = Authenticator(Tokens.from_environment(NAMES, {name: LONG, NAMES.internal: OTHER}))
        found = [auth.credential([f"Bearer {token}"], "192.0.2.1") for token in (LONG, OTHER, "argus_u_" + "0" * 64)]
        assert [who.variable for who in found] == [name, NAMES.internal, None]
        assert {who.address for who in found} == {"192.0.2.1"}
