"""Tasks of the caller; another user's task is answered like one that does not exist."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from argus_ray.core import taskspec
from argus_ray.core.actions import (
    CancelTask,
    ExplainTask,
    FindSubmission,
    GetTask,
    ReadResubmission,
    ResubmitTask,
    SubmitTask,
    Submitted,
    TaskEvents,
    TaskView,
)
from argus_ray.core.errors import (
    ArgusError,
    BodyTooLarge,
    InvalidSpec,
    Unauthenticated,
    Unavailable,
)
from argus_ray.core.taskspec import MAX_SPEC_BYTES, TaskSpec
from argus_ray.core.verl.command import gang_of
from argus_ray.gateway.caller import SECURITY, Caller, TheCaller, TheGateway, caller_of
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.http.body import NEWLINES_GONE, YAML_TYPES, lacks_newlines, read_json, read_spec, schema_of
from argus_ray.gateway.http.params import (
    PRESET_PARAMETER,
    EventsParams,
    NoQuery,
    TaskId,
    chosen_presets,
    decode_cursor,
    encode_cursor,
    header_parameters,
    possible_id,
    refuse_query,
)
from argus_ray.gateway.http.prefix import outer_prefix
from argus_ray.gateway.http.schemas import json_response
from argus_ray.gateway.tasks.schemas import (
    EventOut,
    EventsOut,
    ExplanationOut,
    Resubmission,
    ResubmittedOut,
    SubmittedOut,
    TaskOut,
)
from argus_ray.gateway.tasks.validation import ValidationOut, validated

router = APIRouter(prefix="/api/v2/tasks", tags=["tasks"])
#: Of all tasks: a path of the router above goes on with a slash.
verbs = APIRouter(tags=["tasks"])

KEY_HEADER = header_parameters({"Idempotency-Key": "The same key again returns the first task"}, maxLength=255)
_TASK_ID: dict[str, Any] = {
    "parameters": [{"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}]
}
#: As a value, which for YAML is what a schema is of.
_SPEC_SCHEMA = TaskSpec.model_json_schema()
_SPEC_BODY: dict[str, Any] = SECURITY | {
    "parameters": [PRESET_PARAMETER],
    "requestBody": {
        "required": True,
        "description": f"A TaskSpec, at most {MAX_SPEC_BYTES} bytes of UTF-8",
        "content": {kind: {"schema": _SPEC_SCHEMA} for kind in YAML_TYPES},
    },
}
LOCATION: dict[str, Any] = {"Location": {"required": True, "schema": {"type": "string"}}}
REPLAYED: dict[str, Any] = {
    "description": "The task that this Idempotency-Key created before",
    "headers": LOCATION | {"Idempotency-Replayed": {"required": True, "schema": {"type": "string", "enum": ["true"]}}},
}
_YAML_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/yaml": {"schema": {"type": "object"}}}, "description": "Byte for byte as submitted"}
}


@router.post(
    "",
    status_code=201,
    response_model=SubmittedOut,
    openapi_extra=_SPEC_BODY | {"parameters": [*KEY_HEADER["parameters"], *_SPEC_BODY["parameters"]]},
    responses={201: {"headers": LOCATION}, 200: REPLAYED | {"model": SubmittedOut}},
)
async def submit_task(request: Request) -> Response:
    """Submit a TaskSpec. Answered after the task is on disk."""
    caller = caller_of(request)
    gateway = caller.gateway
    presets = chosen_presets(request)
    key = idempotency_key(request)
    text = await _text_of(request, caller)
    try:
        own_user = await caller.own_user()
        spec = taskspec.parse(text, shared_root=gateway.settings.shared_root, own_user=own_user)
        user_id = await caller.user_id()  # nobody without a token has files looked at
        # An admin is no user: the state actor will say so.
        settings = None if user_id is None else gateway.recipes.text(spec, user_id, presets)
        warnings = await gateway.inputs.warnings_of(spec, own_user)
    except (InvalidSpec, BodyTooLarge, Unavailable) as error:
        # The key decides before the body does, and the token before both.
        replay = await caller.do(FindSubmission(text, key, presets))
        if replay is None:
            raise _with_a_hint(error, text) from None
        return _submitted(request, gateway, replay)
    action = SubmitTask(text, spec.workload, gang_of(spec), key, warnings, presets, settings)
    return _submitted(request, gateway, await caller.do(action))


@verbs.post("/api/v2/tasks:validate", response_model=ValidationOut, openapi_extra=_SPEC_BODY)
async def validate_task(request: Request) -> Response:
    """What a submission of this would be answered now, and what its first attempt would run. Nothing is stored."""
    caller = caller_of(request)
    presets = chosen_presets(request)
    text = await _text_of(request, caller)
    return json_response(await validated(caller, text, presets, lambda error: _with_a_hint(error, text)))


async def _text_of(request: Request, caller: Caller) -> str:
    try:
        return await read_spec(request)
    except Unauthenticated:
        raise
    except ArgusError:
        await caller.recognize()  # a stranger hears of the token first
        raise


def _with_a_hint(error: ArgusError, text: str) -> ArgusError:
    if isinstance(error, InvalidSpec) and lacks_newlines(text):
        return InvalidSpec(f"{error.detail}. {NEWLINES_GONE}", error.fields)
    return error


@router.post(
    "/{task_id}:resubmit",
    status_code=201,
    dependencies=[NoQuery],
    openapi_extra=KEY_HEADER | schema_of(Resubmission, required=False),
    responses={201: {"headers": LOCATION}, 200: REPLAYED | {"model": ResubmittedOut}},
)
async def resubmit_task(
    request: Request, response: Response, caller: TheCaller, gateway: TheGateway, task_id: TaskId
) -> ResubmittedOut:
    """A new task of the same owner with the TaskSpec and the presets of one that has ended; `resume` goes on from its
    newest checkpoint, with its settings. Answered after the task is on disk.
    """
    wish = await read_json(request, Resubmission, optional=True)
    action = ResubmitTask(task_id, wish.resume, idempotency_key(request))
    again = await caller.do(ReadResubmission(action))
    if again is not None:  # else the key has made a task already, whatever the inputs look like by now
        # An admin does it in the owner's name, with the owner's inputs.
        own_user = again.user_id if gateway.settings.inputs.own_folders else None
        spec = taskspec.parse_stored(again.spec_yaml, shared_root=gateway.settings.shared_root, own_user=own_user)
        # One that resumes goes on with what the old one had, whether or not that could be chosen today.
        settings = None if wish.resume else gateway.recipes.text(spec, again.user_id, again.presets)
        warnings = await gateway.inputs.warnings_of(spec, own_user)
        action = replace(action, settings=settings, warnings=warnings)
    submitted = await caller.do(action)
    answer_headers(request, response, gateway, submitted)
    return ResubmittedOut.of_copy(submitted, task_id, resume=wish.resume)


def _submitted(request: Request, gateway: GatewayParts, submitted: Submitted) -> Response:
    response = json_response(SubmittedOut.of(submitted), 201)
    answer_headers(request, response, gateway, submitted)
    return response


def answer_headers(request: Request, response: Response, gateway: GatewayParts, submitted: Submitted) -> None:
    prefix = outer_prefix(request.scope, gateway.trusted)
    response.headers["Location"] = f"{prefix}/api/v2/tasks/{submitted.task_id}"
    if submitted.created:
        gateway.notify_scheduler()
    else:
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"


def idempotency_key(request: Request) -> str | None:
    return request.headers.get("idempotency-key")


@router.post("/{task_id}:cancel", dependencies=[NoQuery])
async def cancel_task(caller: TheCaller, gateway: TheGateway, task_id: TaskId) -> TaskOut:
    """Cancel in any state; final at once. On a task that has ended it changes nothing."""
    view: TaskView = await caller.do(CancelTask(task_id))
    gateway.notify_scheduler()
    return await _render(gateway, view)


@router.get("/{task_id}", response_model=TaskOut, openapi_extra=SECURITY | _TASK_ID)
async def get_task(request: Request) -> Response:
    """State, reason, place in the queue, attempts and progress."""
    caller = caller_of(request)
    refuse_query(request)
    view = await caller.do(GetTask(possible_id(request.path_params["task_id"])))
    return json_response(await _render(caller.gateway, view))


async def _render(gateway: TheGateway, view: TaskView) -> TaskOut:
    progress = await gateway.progress_of([view.task])
    return TaskOut.of_view(view, progress.get(view.task.task_id))


@router.get("/{task_id}/spec", dependencies=[NoQuery], response_class=Response, responses=_YAML_ANSWER)
async def get_spec(caller: TheCaller, task_id: TaskId) -> Response:
    """The TaskSpec, byte for byte as it was submitted."""
    view: TaskView = await caller.do(GetTask(task_id))
    return Response(view.task.spec_yaml.encode(), media_type="text/yaml; charset=utf-8")


@router.get("/{task_id}/explain", dependencies=[NoQuery])
async def explain_task(caller: TheCaller, gateway: TheGateway, task_id: TaskId) -> ExplanationOut:
    """Why it waits: a stable code, one sentence, who is ahead, what is missing, and what would start now."""
    found = await caller.do(ExplainTask(task_id))
    pool = None
    if found.task.state.is_waiting:
        # The rest of the answer is worth having without it.
        with contextlib.suppress(Unavailable):
            pool = await gateway.look_at_pool()
    return ExplanationOut.of(found, pool)


@router.get("/{task_id}/events")
async def list_events(caller: TheCaller, task_id: TaskId, query: EventsParams) -> EventsOut:
    """Every change of the task and its reason, oldest first."""
    return await _events(caller, task_id, query.limit, decode_cursor("e", query.cursor) or 0)


async def _events(caller: Caller, task_id: str, limit: int, after: int) -> EventsOut:
    events = await caller.do(TaskEvents(task_id, after, limit))
    more = encode_cursor("e", events[-1].event_id) if len(events) == limit else None
    return EventsOut(events=[EventOut.of(event) for event in events], next_cursor=more)
