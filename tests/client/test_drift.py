"""The client against the application's own OpenAPI document: every operation, parameter, body, field and code.

An operation that the server gains needs a method, a parameter an argument, a field a field. What the client has before
the server does stands in NOT_IN_YET, which must shrink.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx2
import pytest

from argus_ray.client import Client, errors, paths
from argus_ray.client.models import admin, base, results, tasks
from argus_ray.client.models.base import Model
from argus_ray.core.states import TaskState
from argus_ray.gateway.http.problems import PROBLEMS
from tests.support.gateway import Api

#: Operations that the client knows and this application does not have: they come with other work.
NOT_IN_YET: set[str] = set()
AT = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
FILTER: dict[str, Any] = {
    "state": ["RUNNING"],
    "workload": "sft",
    "since": AT,
    "until": "2h",
    "user_id": "u",
    "id_prefix": "a",
    "id_suffix": "b",
    "ids": ["c"],
}
#: What curl and Prometheus ask for.
NOT_FOR_PROGRAMS = {"GET /argus.pyz", "GET /metrics"}
#: Every method, with every argument.
USES: list[Callable[[Client, Path], object]] = [
    lambda c, _: c.submit("x", presets=["a", "b"], key="k"),
    lambda c, _: c.validate("x", presets="a"),
    lambda c, _: c.resubmit("t", resume=True, key="k"),
    lambda c, _: c.export("t", step=1, part="actor", key="k"),
    lambda c, _: c.cancel("t"),
    lambda c, _: c.task("t"),
    lambda c, _: c.spec("t"),
    lambda c, _: list(c.tasks(**FILTER)),
    lambda c, _: (c.counts(**FILTER), c.cancel_many(["t"], dry_run=True), c.cancel_many(state="RUNNING", since="2h")),
    lambda c, _: list(c.events("t")),
    lambda c, _: (c.queue(), c.queue(everyone=True)),
    lambda c, _: (c.explain("t"), c.queue_counts(), c.sparklines(["t", "u"], max_points=2), c.cluster()),
    lambda c, _: c.log("t", tail=1, attempt=1),
    lambda c, _: list(c.log_events("t", tail=1, attempt=1, after="1:0")),
    lambda c, _: c.log_range("t", 0, 3, attempt=1),
    lambda c, _: c.log_search("t", "a", regex=True, case=False, direction="forward", start=1, limit=2, attempt=1),
    lambda c, to: c.download_log("t", to / "log", attempt=1),
    lambda c, _: list(c.audit(user="u", actor="a", action="x", since="2h", until=AT)),
    lambda c, _: next(c.audit_events(user="u", actor="a", action="x", after=1)),
    lambda c, _: (c.many_curves(["t", "u"], names="a", max_points=2, since_step=1), c.estimates()),
    lambda c, _: next(c.stream(progress="t", log="t", log_tail=1, user_id="u", everyone=True, after="x")),
    lambda c, _: list(c.usage(by=["user"], since="30d", until=AT)),
    lambda c, _: c.curves("t", names="a", max_points=2, since_step=1),
    lambda c, _: list(c.rollout_steps("t", kind="train", attempt=1)),
    lambda c, _: list(c.rollouts("t", 1, kind="train", attempt=1, max_chars=1)),
    lambda c, _: list(c.files("t", "a", attempt=1)),
    lambda c, to: [c.download("t", "a", to, attempt=1) for _ in range(2)],
    lambda c, _: (c.me(), c.presets(), c.health(), c.ready(), c.version(), c.schema()),
    lambda c, _: (c.users(), c.user("u"), c.create_user("u", "U"), c.enable_user("u"), c.disable_user("u")),
    lambda c, _: (c.tokens("u"), c.issue_token("u", label="l", expires_in_s=1), c.revoke_token("u", "i")),
    lambda c, _: (c.nodes(), c.cordon("n", reason="r"), c.drain("n", reason="r", deadline_s=1)),
    lambda c, _: (c.uncordon("n", reason="r"), c.maintenance(), c.set_maintenance(True, reason="r")),
]


class Documented:
    """A server that answers each call as the document says, and notes what the calls used of it."""

    def __init__(self, document: dict[str, Any], *, nulls: bool) -> None:
        self.document, self.nulls = document, nulls
        self.used: dict[str, set[str]] = {}
        self.paths = {
            re.compile(re.sub(r"\\\{path\\\}", ".+", re.sub(r"\\\{(?!path)\w+\\\}", "[^/:]+", re.escape(path)))): path
            for path in document["paths"]
        }

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        (path,) = (path for pattern, path in self.paths.items() if pattern.fullmatch(request.url.path))
        operation = self.document["paths"][path][request.method.lower()]
        used = self.used.setdefault(f"{request.method} {path}", set())
        used |= {f"query {name}" for name in request.url.params}
        used |= {f"header {name}" for name in documented(operation, "header") if name.lower() in request.headers}
        if request.headers.get("content-type") == "application/json":
            used |= {f"body {name}" for name in json.loads(request.content)}
        status, answer = next((int(code), each) for code, each in operation["responses"].items() if code[0] == "2")
        content = answer.get("content", {})
        if "application/schema+json" in content:
            return httpx2.Response(status, json={})
        if "application/json" in content:
            return httpx2.Response(status, json=self.sample(content["application/json"]["schema"]))
        if "range" in request.headers:
            return httpx2.Response(206, content=b"abc", headers={"content-range": "bytes 0-2/3"})
        if path.endswith("audit/stream"):
            entry = {"$ref": "#/components/schemas/AuditEntryOut"}
            body = f"event: entry\ndata: {json.dumps(self.sample(entry))}\nid: 1\n\n"
            return httpx2.Response(status, content=body, headers={"content-type": "text/event-stream"})
        if "text/event-stream" in content:
            return httpx2.Response(
                status, content=b"event: end\ndata: {}\n\n", headers={"content-type": "text/event-stream"}
            )
        return httpx2.Response(status, content=b"abc", headers={"etag": '"e"', "x-argus-task-state": "RUNNING"})

    def sample(self, schema: dict[str, Any]) -> Any:
        """A value of this schema with every property, each null where it may be if that is wanted."""
        if "$ref" in schema:
            return self.sample(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
            return None if self.nulls and len(kinds) < len(schema["anyOf"]) else self.sample(kinds[0])
        if "enum" in schema or "const" in schema:
            return schema["const"] if "const" in schema else schema["enum"][0]
        match schema.get("type"):
            case "object":
                made = {name: self.sample(each) for name, each in schema.get("properties", {}).items()}
                more = schema.get("additionalProperties")
                return made | ({"more": self.sample(more)} if isinstance(more, dict) else {}) | self.no_more_pages(made)
            case "array":
                return [self.sample(schema["items"])]
            case "string":
                return "2026-01-31T12:00:00.000Z" if schema.get("format") == "date-time" else "text"
            case "integer" | "number":
                return 1
            case "boolean":
                return True
            case None:
                return {}
        return None

    @staticmethod
    def no_more_pages(made: dict[str, Any]) -> dict[str, Any]:
        return {"next_cursor": None} if "next_cursor" in made else {}


def documented(operation: dict[str, Any], where: str) -> list[str]:
    return [each["name"] for each in operation.get("parameters", []) if each["in"] == where]


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def models_in(value: object) -> Iterator[Model]:
    """Those of an answer, however deep."""
    if isinstance(value, Model):
        yield value
        for name in base.fields(type(value)):
            yield from models_in(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from models_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from models_in(each)


def use_all(document: dict[str, Any], tmp_path: Path, *, nulls: bool) -> tuple[Documented, list[Model]]:
    server = Documented(document, nulls=nulls)
    # A part that was left behind, so that a download goes on from it.
    with Client("http://argus", "t", http=httpx2.MockTransport(server), retry_s=0) as client:
        got = [use(client, tmp_path) for use in USES]
    return server, list(models_in(got))


@pytest.mark.parametrize("nulls", [False, True], ids=["full", "null where it may be"])
def test_every_answer_is_understood_whole(document: dict[str, Any], tmp_path: Path, nulls: bool) -> None:
    _, found = use_all(document, tmp_path, nulls=nulls)
    assert {type(each).__name__: each.extra_fields for each in found if each.extra_fields} == {}


def test_every_operation_parameter_and_body_is_used(document: dict[str, Any], tmp_path: Path) -> None:
    server, _ = use_all(document, tmp_path, nulls=False)
    unused, unknown = {}, {}
    for name, operation in operations(document):
        if name in NOT_FOR_PROGRAMS:
            continue
        used = server.used.get(name)
        if used is None:
            unused[name] = {"all of it"}
            continue
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        if "$ref" in body:
            body = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        has = {f"{where} {each}" for where in ("query", "header") for each in documented(operation, where)}
        has |= {f"body {each}" for each in body.get("properties", {})}
        # Pages are asked for one by one.
        has -= {"query cursor"}
        # A download that is resumed is tested by itself.
        resumed = {"header Range", "header If-Range"}
        has, used = has - resumed, used - resumed
        if has - used:
            unused[name] = has - used
        if used - has:
            unknown[name] = used - has
    assert (unused, unknown) == ({}, {})


def test_what_is_not_in_yet_is_named(document: dict[str, Any]) -> None:
    assert NOT_IN_YET & {name for name, _ in operations(document)} == set(), "they have come: take them off the list"


def all_models() -> list[type[Model]]:
    found = [each for module in (admin, results, tasks) for each in vars(module).values()]
    return [each for each in found if isinstance(each, type) and issubclass(each, Model) and each is not Model]


def test_every_field_of_a_model_is_in_its_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    missing = {}
    for model in all_models():
        fields = {field.removesuffix("_") for field in base.fields(model)}
        properties = {each for name in model.SCHEMAS for each in schemas.get(name, {}).get("properties", {})}
        if fields != properties:
            missing[model.__name__] = fields ^ properties
    assert missing == {}


def test_every_code_has_its_class() -> None:
    families = {4: (errors.Refused, errors.NotAllowed, errors.NotFound, errors.Conflict, errors.TryLater)}
    families[5] = (errors.ServerFault, errors.TryLater)  # type: ignore[assignment]
    assert set(PROBLEMS) == set(errors.BY_CODE)
    for code, (status, _) in PROBLEMS.items():
        kind = errors.BY_CODE[code]
        assert issubclass(kind, families[status // 100]), code
        assert issubclass(kind, errors.kind_of("of a newer server", status)) or status in (404, 410), code
    assert errors.kind_of("of a newer server", 404) is errors.NotFound


def test_states_are_those_of_the_server() -> None:
    assert set(tasks.STATES) == {state.value for state in TaskState}
    assert {state.value for state in TaskState if state.is_final} == tasks.FINAL_STATES
    assert {state.value for state in TaskState if state.is_waiting} == tasks.WAITING_STATES


def test_a_path_is_named_in_one_place(document: Any) -> None:
    """Of the client and of the command; and it is one that the service has."""
    root = Path(paths.__file__).parents[1]
    served = set(document["paths"])
    for file in sorted([*root.glob("client/**/*.py"), *root.glob("cli/**/*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and file.name != "paths.py":
                assert not node.value.startswith("/api/") and f"/api/v2{node.value}" not in served, (file, node.value)
    named = {value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
    assert {*named, *paths.ORDERS.values()} - {paths._API} <= served
