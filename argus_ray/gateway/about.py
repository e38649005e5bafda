"""What this service is, for programs that adapt to it: its version, and the JSON schema of a TaskSpec. The wire, then
the routes. Open to everybody: it holds nothing of anybody."""

from __future__ import annotations

import functools
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

import argus_ray
from argus_ray.core.taskspec import TaskSpec
from argus_ray.gateway.http.params import refuse_query
from argus_ray.store import migrations

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_GIT_BYTES = 1024 * 1024
SCHEMA_TYPE = "application/schema+json"


class VersionOut(BaseModel):
    version: str = Field(description="Of the service, as in the header `X-Argus-Version`")
    api: Literal["v2"]
    #: Not `schema`, which is a name of pydantic's.
    schema_version: int = Field(alias="schema", description="Of the database, that this version of Argus works on")
    build: str | None = Field(description="The git commit that it was built from; null where nothing tells")


router = APIRouter(prefix="/api/v2", tags=["about"])


@router.get("/version", response_model=VersionOut)
async def get_version(request: Request) -> Response:
    """The version of the service, of this API and of the database."""
    refuse_query(request)
    found = _version()
    return Response(found.model_dump_json(by_alias=True), media_type="application/json")


@router.get(
    "/schema/taskspec",
    response_class=Response,
    responses={200: {"content": {SCHEMA_TYPE: {"schema": {"type": "object"}}}, "description": "A JSON Schema"}},
)
async def get_taskspec_schema(request: Request) -> Response:
    """The JSON Schema of a TaskSpec. The rules that a schema cannot tell are those of `tasks:validate`."""
    refuse_query(request)
    return Response(_taskspec_schema(), media_type=SCHEMA_TYPE)


@functools.cache
def _version() -> VersionOut:
    return VersionOut(
        version=argus_ray.__version__,
        api="v2",
        schema=len(migrations.known()),
        build=build_of(Path(__file__).parents[2]),
    )


@functools.cache
def _taskspec_schema() -> bytes:
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:argus:taskspec"}
    return json.dumps(schema | TaskSpec.model_json_schema()).encode()


def build_of(checkout: Path) -> str | None:
    """The commit of this checkout, or the one that pip has installed from; None if neither tells. Starts no program."""
    return _of_checkout(checkout) or _of_installation()


def _of_checkout(checkout: Path) -> str | None:
    try:
        git = checkout / ".git"
        if git.is_file():  # of a worktree
            git = checkout / _text(git).removeprefix("gitdir: ").strip()
        head = _text(git / "HEAD").strip()
        if not head.startswith("ref: "):
            return _sha(head)
        name = head.removeprefix("ref: ")
        common = git / _text(git / "commondir").strip() if (git / "commondir").exists() else git
        if (common / name).is_file():
            return _sha(_text(common / name).strip())
        packed = (
            line.split(" ", 1) for line in _text(common / "packed-refs").splitlines() if line.endswith(f" {name}")
        )
        return next((_sha(sha) for sha, _ in packed), None)
    except (OSError, ValueError):
        return None


def _of_installation() -> str | None:
    try:
        told = metadata.distribution("argus-ray").read_text("direct_url.json")
        return _sha(str(json.loads(told or "{}").get("vcs_info", {}).get("commit_id", "")))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_GIT_BYTES).decode("utf-8", "replace")


def _sha(text: str) -> str | None:
    return text if _SHA.fullmatch(text) else None
