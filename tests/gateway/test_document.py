"""The OpenAPI document says what is answered: beside what `test_fuzz.py` holds answers against."""

from __future__ import annotations

import json
import re

from tests.support.gateway import Api

#: Generated clients call these so. One that has gone, or has another name, breaks them.
NAMES = {
    "GET /api/v2/tasks": "listTasks", "POST /api/v2/tasks": "submitTask", "GET /api/v2/tasks:counts": "countTasks",
    "POST /api/v2/tasks:cancel": "cancelTasks", "POST /api/v2/tasks:validate": "validateTask",
    "GET /api/v2/tasks/{task_id}": "getTask", "POST /api/v2/tasks/{task_id}:cancel": "cancelTask",
    "POST /api/v2/tasks/{task_id}:resubmit": "resubmitTask", "POST /api/v2/tasks/{task_id}:export": "exportTask",
    "GET /api/v2/tasks/{task_id}/spec": "getSpec", "GET /api/v2/tasks/{task_id}/explain": "explainTask",
    "GET /api/v2/tasks/{task_id}/events": "listEvents", "GET /api/v2/tasks/{task_id}/logs": "getLog",
    "GET /api/v2/tasks/{task_id}/logs/stream": "streamLog", "GET /api/v2/tasks/{task_id}/metrics": "getMetrics",
    "GET /api/v2/curves": "compareCurves",
    "GET /api/v2/tasks/{task_id}/rollouts": "getRollouts", "GET /api/v2/tasks/{task_id}/files": "listFiles",
    "GET /api/v2/tasks/{task_id}/files/{path}": "downloadFile", "GET /api/v2/me": "getMe",
    "GET /api/v2/queue": "getQueue", "GET /api/v2/admin/queue": "getWholeQueue", "GET /api/v2/nodes": "listNodes",
    "POST /api/v2/nodes/{node}:cordon": "cordonNode", "POST /api/v2/nodes/{node}:drain": "drainNode",
    "POST /api/v2/nodes/{node}:uncordon": "uncordonNode", "GET /api/v2/maintenance": "getMaintenance",
    "PUT /api/v2/maintenance": "setMaintenance", "GET /api/v2/presets": "listPresets",
    "GET /api/v2/users": "listUsers", "POST /api/v2/users": "createUser", "GET /api/v2/users/{user_id}": "getUser",
    "POST /api/v2/users/{user_id}:disable": "disableUser", "POST /api/v2/users/{user_id}:enable": "enableUser",
    "GET /api/v2/users/{user_id}/tokens": "listTokens", "POST /api/v2/users/{user_id}/tokens": "issueToken",
    "DELETE /api/v2/users/{user_id}/tokens/{token_id}": "revokeToken", "GET /healthz": "getHealth",
    "GET /readyz": "getReadiness", "GET /api/v2/version": "getVersion",
    "GET /api/v2/schema/taskspec": "getTaskspecSchema", "GET /api/v2/sparklines": "listSparklines",
    "GET /api/v2/queue:counts": "countQueue", "GET /api/v2/cluster": "getCluster",
}  # fmt: skip


def test_the_names_that_generated_clients_call_stay(api: Api) -> None:
    paths = api.app.fastapi.openapi()["paths"]
    named = {f"{method.upper()} {path}": each["operationId"] for path in paths for method, each in paths[path].items()}
    assert named | NAMES == named


def test_each_operation_says_what_it_does(api: Api) -> None:
    for path, operations in api.app.fastapi.openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"] and len(operation["description"]) > 9 and operation["tags"], (method, path)


def test_each_reference_leads_somewhere(api: Api) -> None:
    document = api.app.fastapi.openapi()
    found = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert found and found <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert "$defs" not in json.dumps(document["paths"])


def test_each_operation_has_a_name_of_its_own_and_each_link_leads_to_one(api: Api) -> None:
    operations = [each for path in api.app.fastapi.openapi()["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", name) for name in names)
    links = [
        link
        for each in operations
        for answer in each["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert len(links) > 40 and {link["operationId"] for link in links} < set(names)


def test_each_operation_tells_its_errors_with_their_headers(api: Api) -> None:
    for path in api.app.fastapi.openapi()["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            assert {"4XX", "5XX"} <= set(answers)
            assert ("401" in answers) == bool(operation.get("security")), operation["operationId"]
            for status, answer in answers.items():
                assert "X-Request-Id" in answer["headers"]
                if status[0] in "45":
                    assert list(answer["content"]) == ["application/problem+json"]
                    assert "Retry-After" in answer["headers"]
            assert answers["503"]["headers"]["Retry-After"]["required"]
            if "401" in answers:
                assert answers["401"]["headers"]["WWW-Authenticate"]["required"]


def test_not_ready_is_a_problem_with_its_parts(api: Api) -> None:
    document = api.app.fastapi.openapi()
    schema = document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/problem+json"]["schema"]
    named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    api.ready["scheduler"] = "it does not answer"
    answer = api.client.get("/readyz")
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(named["required"]) <= set(answer.json()) and "parts" in named["required"]
