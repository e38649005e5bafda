"""Just enough of an HTTP client for the programs of one machine, with the standard library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

#: Seconds for one call, and for two parts of a stream.
_CALL_S = 60
_STREAM_S = 1200
#: Never by a proxy: the service is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: The states in which a task has ended.
FINAL = ("SUCCEEDED", "FAILED", "CANCELED")


class ApiError(Exception):
    """The API refused a call, or did not answer it."""


class Api:
    """The API as the holder of this token sees it. Each call raises ApiError."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> dict[str, Any]:
        return self._json(self._request(path))

    def text(self, path: str) -> str:
        return self._send(self._request(path)).decode(errors="replace")

    def post(self, path: str, body: dict[str, Any] | str) -> dict[str, Any]:
        """A text is YAML."""
        kind = "application/yaml" if isinstance(body, str) else "application/json"
        raw = body if isinstance(body, str) else json.dumps(body)
        return self._json(self._request(path, raw.encode(), {"Content-Type": kind}))

    def stream(self, path: str) -> Iterator[str]:
        """Line by line, as they come. Raises OSError and http.client.HTTPException as well, when the stream breaks."""
        with _OPENER.open(self._request(path), timeout=_STREAM_S) as answer:
            for raw in answer:
                yield raw.decode(errors="replace")

    def new_user(self, user_id: str, display_name: str, label: str) -> str:
        """Create a user and issue a token with this label, which is returned; for the admin."""
        self.post("/api/v2/users", {"user_id": user_id, "display_name": display_name})
        return str(self.post(f"/api/v2/users/{user_id}/tokens", {"label": label})["token"])

    def _request(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> urllib.request.Request:
        return urllib.request.Request(self._url + path, body, {**self._headers, **(headers or {})})  # noqa: S310

    def _json(self, request: urllib.request.Request) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self._send(request))
        return body

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with _OPENER.open(request, timeout=_CALL_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise ApiError(f"{request.full_url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{request.full_url}: {error}") from None


def in_one_line(task: dict[str, Any]) -> str:
    """State, place, progress and reason of a task as the API shows it."""
    words = [task["state"]]
    if task.get("position"):
        words.append(f"position {task['position']}")
    progress = task.get("progress") or {}
    if progress.get("step") is not None:
        words.append(f"step {progress['step']} of {progress.get('total_steps') or '?'}")
    if task.get("reason"):
        words.append(str(task["reason"]))
    return ", ".join(words)
