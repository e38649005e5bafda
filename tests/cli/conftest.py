"""People who type `argus` commands, against the real gateway behind a real server, over a real service.

The server is shared by the tests of a module, and each test has users of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from argus_ray.cli.app import cli
from argus_ray.discovery import head_json, sentinel
from tests.gateway.test_stream_server import served
from tests.support.gateway import ADMIN_TOKEN, Api, Headers, bearer_header, make_api

_NUMBERS = itertools.count(1)


@dataclass
class Ran:
    """What a command has done."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def documents(self) -> list[Any]:
        """One a line."""
        return [json.loads(line) for line in self.lines]


@dataclass
class Person:
    """Types commands: `alice("tasks", "--json")`."""

    api: Api
    url: str
    token: str | None
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, stdin: str | bytes | None = None, code: int = 0, **env: str) -> Ran:
        """The command must exit with `code`."""
        result = CliRunner().invoke(cli, words, input=stdin, env={**self.environ, **env})
        ran = Ran(result.exit_code, result.stdout, result.stderr)
        assert ran.code == code, (ran, result.exception)
        assert "Traceback" not in ran.err
        return ran

    @property
    def environ(self) -> dict[str, str | None]:
        return {
            "HOME": str(self.home),
            "ARGUS_URL": self.url,
            "ARGUS_TOKEN": self.token,
            "ARGUS_CONFIG": str(self.home / "config.yaml"),
            "ARGUS_CONTEXT": None,
            "ARGUS_CA_FILE": None,
            "NO_COLOR": None,
            "XDG_CONFIG_HOME": None,
            "COLUMNS": "120",
            **self.env,
        }

    @property
    def headers(self) -> Headers:
        assert self.token is not None
        return bearer_header(self.token)

    def submit(self, **overrides: Any) -> str:
        """Past the command, where a test is about another one."""
        return self.api.submit(self.headers, **overrides)

    def spec(self, **overrides: Any) -> str:
        """The path of a TaskSpec that is valid but for the overrides."""
        path = self.home / f"spec-{next(_NUMBERS)}.yaml"
        path.write_text(self.api.world.spec(**overrides))
        return str(path)


NewPerson = Callable[[], Person]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = make_api(tmp_path_factory.mktemp("root"))
    settings = made.world.settings
    sentinel.begin(head_json.folder(settings.shared_root, settings.cluster_name))
    with made.client:
        yield made
    made.world.close()


@pytest.fixture(scope="module")
def url(api: Api) -> Iterator[str]:
    with served(api.app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def person(api: Api, url: str, tmp_path: Path) -> NewPerson:
    """A new user each time."""

    def made() -> Person:
        name = f"u{next(_NUMBERS)}"
        home = tmp_path / name
        home.mkdir()
        return Person(api, url, api.user(name)["Authorization"].removeprefix("Bearer "), home)

    return made


@pytest.fixture
def alice(person: NewPerson) -> Person:
    return person()


@pytest.fixture
def admin(api: Api, url: str, tmp_path: Path) -> Person:
    home = tmp_path / "admin"
    home.mkdir()
    return Person(api, url, ADMIN_TOKEN, home)


@pytest.fixture
def nobody(api: Api, url: str, tmp_path: Path) -> Person:
    """Has no token and no configuration, and names no server."""
    home = tmp_path / "nobody"
    home.mkdir()
    return Person(api, url, None, home, {"ARGUS_URL": ""})
