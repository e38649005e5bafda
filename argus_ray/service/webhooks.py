"""What webhooks are still to be told, and up to where they have been."""

from __future__ import annotations

from argus_ray.core.webhooks import Moves
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import webhooks


def settled(unit: UnitOfWork, name: str, place: int | None) -> int:
    """Notes that this receiver has been told all up to `place`, an event id (None: nothing new to note), and answers
    where it stands. One that nobody has seen before begins with what comes from now on."""
    known = webhooks.place_of(unit.db, name)
    if known is None:
        known = webhooks.newest_event(unit.db)
        webhooks.put_place(unit.db, name, known, unit.now)
    if place is not None and place > known:
        webhooks.put_place(unit.db, name, place, unit.now)
        return place
    return known


def moves(unit: UnitOfWork, place: int) -> Moves:
    """Of all users, what comes after this event id; a bounded part of it."""
    return webhooks.after(unit.db, place)
