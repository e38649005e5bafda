"""The server as the commands see it: the API's own documents, by its own paths, over the client.

The client does what takes care: retries, time-outs, streams that go on where they broke off.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from argus_ray.cli import safe
from argus_ray.client.caller import FOLLOW_S, Caller, new_key
from argus_ray.client.calls import Answer, Call, Encoded

if TYPE_CHECKING:
    from argus_ray.cli.config import Target
    from argus_ray.cli.output import Out
    from argus_ray.client.client import Client

Document = dict[str, Any]
#: Items of one call of a list.
PAGE = 200
_JSON = {"Content-Type": "application/json"}
_STREAM = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
_YAML = {"Content-Type": "application/yaml"}


class Server:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        #: Told why a call is tried again.
        self.on_retry: Callable[[str], None] = lambda why: None
        #: Seconds for which each call is tried; None: as the client does it.
        self.patience_s: float | None = None

    @functools.cached_property
    def client(self) -> Client:
        """Of the same connections, for what is more than a call. Its models take long to import."""
        from argus_ray.client.client import Client

        return Client.over(self._caller)

    def now(self) -> float:
        """Seconds since the epoch by the server's clock."""
        return self._caller.server_time()

    @classmethod
    def of(cls, target: Target, out: Out) -> Server:
        told = False

        def note(why: str) -> None:
            nonlocal told
            if not told:
                out.note(f"trying again: {safe.cell(why)}")
            told = True

        def on_retry(why: str, wait_s: float) -> None:
            made.on_retry(why)

        made = cls(Caller(target.url, target.token, ca_file=target.ca_file, on_retry=on_retry))
        made.on_retry = note
        return made

    @contextlib.contextmanager
    def tried_for(self, patience_s: float | None) -> Iterator[None]:
        """Each call within is tried for so many seconds; 0: once."""
        before, self.patience_s = self.patience_s, patience_s
        try:
            yield
        finally:
            self.patience_s = before

    def get(self, path: str, /, parts: Mapping[str, str] | None = None, **query: Any) -> Document:
        return self._document("GET", path, parts, query)

    def get_within(
        self, patience_s: float | None, path: str, /, parts: Mapping[str, str] | None = None, **query: Any
    ) -> Document:
        """The same; it is tried for so many seconds (None: as long as a log that is followed)."""
        found: Document = self._caller.send(
            Call("GET", path, Answer.json, parts or {}, query.items()),
            patience_s=FOLLOW_S if patience_s is None else min(FOLLOW_S, patience_s),
        )
        return found

    def post(
        self,
        path: str,
        /,
        parts: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        repeats: bool = True,
    ) -> Document:
        """`key`: the Idempotency-Key. `repeats`: it does no harm if it is done twice."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        content = None if body is None else json.dumps(body).encode()
        return self._document("POST", path, parts, {}, content, headers | (_JSON if body is not None else {}), repeats)

    def put(self, path: str, /, body: Mapping[str, Any]) -> Document:
        return self._document("PUT", path, None, {}, json.dumps(body).encode(), _JSON)

    def delete(self, path: str, /, parts: Mapping[str, str]) -> Document:
        return self._document("DELETE", path, parts, {})

    def post_spec(self, path: str, /, text: str, *, presets: tuple[str, ...], key: str | None = None) -> Document:
        headers = _YAML | ({"Idempotency-Key": key} if key is not None else {})
        return self._document("POST", path, None, {"preset": presets}, text.encode(), headers)

    def text(self, path: str, /, parts: Mapping[str, str], **query: Any) -> tuple[str, Mapping[str, str]]:
        """A text, and the headers of the answer by names in lower case."""
        answer = self.answer(path, parts, query)
        return answer.text(), answer.headers

    def answer(
        self,
        path: str,
        /,
        parts: Mapping[str, str],
        query: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self._caller.send(Call("GET", path, _as_it_is, parts, query.items(), headers or {}))

    def pages(
        self, path: str, /, field: str, limit: int | None, parts: Mapping[str, str] | None = None, **query: Any
    ) -> Iterator[Document]:
        """Page by page as they are taken: the API's documents, whose lists `field` have `limit` items in all."""
        cursor: str | None = None
        left = limit
        while True:
            size = PAGE if left is None else min(PAGE, left)
            page = self.get(path, parts, **query, limit=size, cursor=cursor)
            yield page
            before, cursor = cursor, page["next_cursor"]
            if left is not None:
                left -= len(page[field])
            # A server that told the same place again would hold us for ever.
            if cursor is None or cursor == before or (left is not None and left <= 0):
                return

    def events(self, path: str, /, **query: Any) -> Iterator[tuple[str, str]]:
        """The kind and the data of each event of a stream, from now on, through as many connections as it takes."""

        def open_at(last_id: str | None) -> Call[Answer]:
            headers = _STREAM | ({"Last-Event-ID": last_id} if last_id is not None else {})
            return Call("GET", path, _as_it_is, {}, query.items(), headers)

        for event in self._caller.stream_events(open_at):
            yield event.event, event.data

    def _document(
        self,
        method: str,
        path: str,
        parts: Mapping[str, str] | None,
        query: Mapping[str, Any],
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeats: bool = True,
    ) -> Document:
        call = Call(method, path, Answer.json, parts or {}, query.items(), headers or {}, content, repeats)
        found: Document = self._caller.send(call, patience_s=self.patience_s)
        return found

    def close(self) -> None:
        self._caller.close()


def _as_it_is(answer: Answer) -> Answer:
    return answer


__all__ = ["Document", "Encoded", "Server", "new_key"]
