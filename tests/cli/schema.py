"""Documents that a command prints, held against the service's own /openapi.json."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from tests.support.gateway import Api


def check(api: Api, path: str, document: Any, method: str = "get", status: str = "200") -> None:
    """Raises AssertionError unless this is what this operation answers."""
    described = api.app.fastapi.openapi()
    answer = described["paths"][f"/api/v2{path}"][method]["responses"][status]
    schema = {**answer["content"]["application/json"]["schema"], "components": described["components"]}
    found = [
        f"{error.instance_path}: {error.message}" for error in jsonschema_rs.validator_for(schema).iter_errors(document)
    ]
    assert not found, found
    assert document, "an empty document fits anything"
