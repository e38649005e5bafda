"""SQLite persistence: one writer, rows and transactions. It knows no rules."""

from __future__ import annotations

from argus_ray.store.store import Store

__all__ = ["Store"]
