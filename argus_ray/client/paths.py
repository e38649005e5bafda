"""The paths of the API, as its OpenAPI document has them: for the client and the command alike."""

from __future__ import annotations

from typing import Final

_API: Final = "/api/v2"

# Tasks.

TASKS: Final = _API + "/tasks"
COUNTS: Final = TASKS + ":counts"
VALIDATE: Final = TASKS + ":validate"
CANCEL_MANY: Final = TASKS + ":cancel"
TASK: Final = _API + "/tasks/{task_id}"
SPEC: Final = TASK + "/spec"
EVENTS: Final = TASK + "/events"
EXPLAIN: Final = TASK + "/explain"
CANCEL: Final = TASK + ":cancel"
RESUBMIT: Final = TASK + ":resubmit"
EXPORT: Final = TASK + ":export"
MANY_CURVES: Final = _API + "/curves"
SPARKLINES: Final = _API + "/sparklines"
QUEUE: Final = _API + "/queue"
QUEUE_COUNTS: Final = QUEUE + ":counts"
WHOLE_QUEUE: Final = _API + "/admin/queue"
ESTIMATES: Final = _API + "/estimates"
STREAM: Final = _API + "/stream"

# What a task leaves.

CURVES: Final = TASK + "/metrics"
ROLLOUTS: Final = TASK + "/rollouts"
FILES: Final = TASK + "/files"
FILE: Final = TASK + "/files/{path}"
LOGS: Final = TASK + "/logs"
LOG_DOWNLOAD: Final = TASK + "/logs/download"
LOG_SEARCH: Final = TASK + "/logs/search"
LOG_STREAM: Final = TASK + "/logs/stream"

# The server, and whose token it is.

ME: Final = _API + "/me"
PRESETS: Final = _API + "/presets"
SCHEMA: Final = _API + "/schema/taskspec"
VERSION: Final = _API + "/version"

# For admins.

USERS: Final = _API + "/users"
USER: Final = _API + "/users/{user_id}"
ENABLE_USER: Final = USER + ":enable"
DISABLE_USER: Final = USER + ":disable"
TOKENS: Final = USER + "/tokens"
TOKEN: Final = USER + "/tokens/{token_id}"
NODES: Final = _API + "/nodes"
#: What may be said to a node.
ORDERS: Final = {verb: NODES + "/{node}:" + verb for verb in ("cordon", "drain", "uncordon")}
CLUSTER: Final = _API + "/cluster"
MAINTENANCE: Final = _API + "/maintenance"
AUDIT: Final = _API + "/audit"
AUDIT_STREAM: Final = _API + "/audit/stream"
USAGE: Final = _API + "/usage"
