"""Use cases: submit, look, cancel, administer, and what the scheduler found out. Knows core and store
only."""

from __future__ import annotations

from argus_ray.service.service import Service

__all__ = ["Service"]
