"""What follows when an actor is told to stop: it is killed, or it ends itself, so that Ray starts it anew.

A deployment tells the old actor to stop and kills it right after. If the deployment dies between the two, nobody else
would: the actor would live on, found by its name, and do nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds from the call to the end: longer than a goodbye may take (handover.py), and within a minute.
END_AFTER_S = 50.0

End = Callable[[], object]


def end_process() -> None:
    """At once, since what hangs in a thread would keep a process that ends in order. Ray starts the actor again, as it
    was deployed."""
    os._exit(1)


def end_unless_killed(what: str, end: End) -> threading.Timer:
    """Begin to wait. A stop has no way back, so neither has this."""

    def too_late() -> None:
        log.error("%s was told to stop %g s ago and still lives: it ends, to be started anew", what, END_AFTER_S)
        end()

    timer = threading.Timer(END_AFTER_S, too_late)
    timer.daemon = True
    timer.start()
    return timer
