"""Looking at the service again and again, through its restarts: what was seen stays, and it is said how old it is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from argus_ray.cli import draw, when

if TYPE_CHECKING:
    from argus_ray.cli.session import Session

T = TypeVar("T")


def beats(interval_s: float, until: float | None = None) -> Iterator[float]:
    """At once, and then each so many seconds, spread by a fifth. Ends at `until`, of the monotonic clock, if that is
    given."""
    while True:
        yield time.monotonic()
        wait_s = spread(interval_s)
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                return
            wait_s = min(wait_s, left)
        time.sleep(wait_s)


def spread(interval_s: float) -> float:
    return interval_s * (0.9 + random.random() / 5)  # noqa: S311 - to spread calls


def looks(session: Session, ask: Callable[[], T], interval_s: float, away: Callable[[str], None]) -> Iterator[T]:
    """What `ask` finds, at once and then each so many seconds, without an end.

    Where the service does not answer any more, `away` is given the words that say so, and it is asked again, with waits
    that grow, for as long as `logs -f` does it. Raises as `ask`, also where it has never answered.
    """
    from argus_ray.client.caller import FOLLOW_S
    from argus_ray.client.errors import ServerUnreachable, TryLater
    from argus_ray.client.patience import Patience

    patience = Patience(lambda: FOLLOW_S, time.monotonic, random.random)
    as_of = ""
    while True:
        try:
            # Once it was there, the screen is to say at once that it is not; the waiting is done here.
            with session.server.tried_for(0.0 if as_of else None):
                found = ask()
        except (ServerUnreachable, TryLater) as error:
            wait_s = patience.wait_s(getattr(error, "retry_after", None)) if as_of else None
            if wait_s is None:
                raise
            away(f"reconnecting, as of {as_of}")
        else:
            patience.renew()
            as_of = when.clock(session.out.now(), utc=session.out.flags.utc)
            yield found
            wait_s = spread(interval_s)
        time.sleep(wait_s)


def noted(session: Session) -> Callable[[str], None]:
    """For `looks` in a pipe: each time that it goes away is said once, on stderr."""
    said: set[str] = set()

    def away(words: str) -> None:
        if words not in said:
            session.out.note(words)
        said.add(words)

    return away


def below(session: Session, frame: draw.Frame) -> Callable[[str], None]:
    """For `looks` on a terminal: it is said below what was seen."""
    return lambda words: frame.draw_with(session.out.paint(words, "yellow"))


def redraw(session: Session, lines: Callable[[], Sequence[str]], interval_s: float) -> NoReturn:
    """A view on a terminal, over and over, until Ctrl-C."""
    import sys

    with draw.frame(sys.stdout) as frame:
        for shown in looks(
            session, lines, interval_s, lambda words: frame.draw_with(session.out.paint(words, "yellow"))
        ):
            frame.draw(shown)
    raise AssertionError("unreachable")  # there is no end to the looks
