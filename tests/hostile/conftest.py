"""Fixtures of the suite of a hostile user: the gateway over a real service, and real files."""

from __future__ import annotations

from tests.gateway.conftest import alice, api

__all__ = ["alice", "api"]
