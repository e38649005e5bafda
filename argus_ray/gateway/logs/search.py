"""Searching an attempt's log."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from argus_ray.core import paths
from argus_ray.core.actions import FindAttempt
from argus_ray.core.errors import FieldError, InvalidRequest, LogNotFound
from argus_ray.core.search_patterns import BrokenPattern, Pattern, TooSlow
from argus_ray.disk import log_search, logs
from argus_ray.disk.log_search import Found, Match, Wish
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.http.from_disk import from_disk
from argus_ray.gateway.http.params import Direction, SearchParams, SearchQuery, TaskId
from argus_ray.gateway.logs.parts import require_log

#: None: there is no log.
SearchedText = bytes | None
_NOTHING = Found((), None, 0, None)

router = APIRouter(prefix="/api/v2/tasks", tags=["logs"])


class MatchOut(BaseModel):
    offset: int = Field(description="Its first byte in the log")
    length: int = Field(description="Bytes")
    line_start: int | None = Field(description="The first byte of its line; null if that is more than 2 MiB back")
    text: str = Field(description="Its line, or about 2 KiB of it around the match")
    start: int = Field(description="Where the match begins in `text`, in characters (code points)")
    end: int = Field(description="Where it ends there")
    truncated: bool = Field(description="`text` is not the whole line")

    @classmethod
    def of(cls, match: Match) -> MatchOut:
        before, matched, behind = match.shown
        return cls(
            offset=match.offset,
            length=match.length,
            line_start=match.line_start,
            text=before + matched + behind,
            start=len(before),
            end=len(before) + len(matched),
            truncated=match.is_cut,
        )


class GapOut(BaseModel):
    from_: int = Field(alias="from", description="The first byte that is gone")
    to: int = Field(description="Where the log goes on")


class SearchOut(BaseModel):
    task_id: str
    attempt: int | None
    matches: list[MatchOut] = Field(description="In the order of the search")
    complete: bool = Field(description="false: there is more to look at, from `next` on")
    next: int | None = Field(description="`from` of the call that goes on")
    size: int = Field(description="Bytes of the log; what comes later begins here")
    gap: GapOut | None = Field(description="What the log has lost in its middle, which is not searched")

    @classmethod
    def of(cls, task_id: str, attempt: int | None, found: Found) -> SearchOut:
        return cls(
            task_id=task_id,
            attempt=attempt,
            matches=[MatchOut.of(match) for match in found.matches],
            complete=found.next is None,
            next=found.next,
            size=found.size,
            gap=None if found.gap is None else GapOut(**{"from": found.gap[0], "to": found.gap[1]}),
        )


@router.get("/{task_id}/logs/search", response_model=SearchOut)
async def search_log(caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: SearchParams) -> Response:
    """Where a text or a regular expression stands in an attempt's log. One call looks at a bounded part of it, and the
    next one goes on there."""
    # Both go in one batch.
    (_, attempt), principal = await caller.do_as(FindAttempt(task_id, query.number))
    searches = gateway.searches

    def look() -> SearchedText:
        pattern = _pattern(query)
        if attempt is None:
            return _text(task_id, None, _NOTHING)
        root = attempt.job_root
        wish = Wish(pattern, query.limit, query.start, query.direction is Direction.BACKWARD)
        try:
            found = log_search.search(root, paths.driver_log(root), wish, searches.budget())
        except FileNotFoundError:
            return None
        except (logs.NotReadable, ValueError):
            raise LogNotFound() from None
        except TooSlow:
            rule = "takes too long on this log: make it simpler"
            raise InvalidRequest("The search breaks a rule.", [FieldError("q", rule)]) from None
        return _text(task_id, attempt.number, found)

    text = await searches.turns.run(holder_of(principal), lambda: from_disk(searches.threads, look, searches.timeout_s))
    if text is None:
        await require_log(caller, task_id)
        text = _text(task_id, attempt.number if attempt else None, _NOTHING)
    return Response(text, media_type="application/json")


def _pattern(query: SearchQuery) -> Pattern:
    try:
        return Pattern(query.q, is_expression=query.regex, is_case_sensitive=query.case)
    except BrokenPattern as broken:
        raise InvalidRequest("The search breaks a rule.", [FieldError("q", str(broken))]) from None


def _text(task_id: str, attempt: int | None, found: Found) -> bytes:
    """As it goes out. Not on the loop: an answer of a megabyte would hold it up."""
    return SearchOut.of(task_id, attempt, found).model_dump_json(by_alias=True).encode()
