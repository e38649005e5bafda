"""The OpenAPI document says what is answered: beside what `test_fuzz.py` holds answers against."""

from __future__ import annotations

import re

from tests.support.gateway import Api


def test_each_operation_has_a_name_of_its_own_and_each_link_leads_to_one(api: Api) -> None:
    operations = [each for path in api.app.fastapi.openapi()["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z_]+", name) for name in names)
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
