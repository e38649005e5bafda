"""Write the types of the console from the API's own document; tests/console/test_build.py compares them.

.venv/bin/python scripts/make_console_types.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from console_node import node

from argus_ray.config import Settings
from argus_ray.gateway.app import create_app
from argus_ray.gateway.http.auth import Tokens

CONSOLE = Path(__file__).parent.parent / "argus_ray" / "console"
TYPES = CONSOLE / "src" / "api" / "openapi.d.ts"


def document() -> str:
    """The API's document, made without a service."""
    nothing = lambda *_: None  # noqa: E731
    app = create_app(
        control=nothing,  # type: ignore[arg-type]
        settings=Settings(shared_root="/private"),
        tokens=Tokens.of(("x" * 32,), "", ""),
        nodes=nothing,  # type: ignore[arg-type]
        readiness=nothing,  # type: ignore[arg-type]
        wake=nothing,
    )
    return json.dumps(app.fastapi.openapi())


def types() -> str:
    """TypeScript's, by openapi-typescript. Raises CalledProcessError if it refuses the document."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "openapi.json"), Path(folder, "openapi.d.ts")
        source.write_text(document())
        command = [node(), "node_modules/openapi-typescript/bin/cli.js", str(source), "-o", str(made), "--alphabetize"]
        subprocess.run(command, cwd=CONSOLE, check=True, capture_output=True, timeout=120)
        return made.read_text()


if __name__ == "__main__":
    made = types()
    if "--check" in sys.argv[1:]:
        sys.exit(
            None if made == TYPES.read_text() else f"{TYPES} is not of this API: run scripts/make_console_types.py"
        )
    TYPES.write_text(made)
