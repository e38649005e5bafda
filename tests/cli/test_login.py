"""login, logout, whoami, context, version, completion."""

from __future__ import annotations

import json
import stat

import pytest

import argus_ray
from argus_ray.cli import exits
from tests.cli.conftest import NewPerson, Person
from tests.cli.schema import check


def log_in(nobody: Person, token: str, *words: str, code: int = 0) -> str:
    ran = nobody("login", nobody.url, "--token-stdin", *words, stdin=token + "\n", code=code)
    return ran.err


def test_from_nothing_to_the_first_answer(nobody: Person, alice: Person) -> None:
    assert nobody("whoami", code=exits.USAGE).err.startswith("error: no server is known\n  next: argus login URL")
    assert alice.token is not None
    words = log_in(nobody, alice.token)
    path = nobody.home / "config.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "logged in to" in words and "127.0.0.1" in words and alice.token not in words
    ran = nobody("whoami")
    assert ran.lines[0].split() == ["user", alice.home.name]
    assert ran.err == ""
    assert nobody("whoami", "-q").out == f"{alice.home.name}\n"
    check(nobody.api, "/me", nobody("whoami", "--json").json)
    assert alice.token not in ran.out


def test_a_bad_token_is_not_stored(nobody: Person) -> None:
    words = log_in(nobody, "argus_u_" + "0" * 64, code=exits.TOKEN)
    assert "(unauthenticated)" in words and "request " in words
    assert not (nobody.home / "config.yaml").exists()
    assert "no token came from stdin" in log_in(nobody, "", code=exits.TOKEN)
    assert "has blanks" in log_in(nobody, "two words", code=exits.USAGE)
    ran = nobody("login", nobody.url, code=exits.USAGE)
    assert "--token-stdin" in ran.err


def test_what_is_stored_of_a_server_stays_when_another_comes(nobody: Person, person: NewPerson) -> None:
    first, second = person(), person()
    assert first.token and second.token
    log_in(nobody, first.token, "--name", "one")
    log_in(nobody, second.token, "--name", "two")
    assert nobody("whoami", "-q").out == f"{second.home.name}\n"
    assert nobody("--context", "one", "whoami", "-q").out == f"{first.home.name}\n"
    assert nobody("whoami", "-q", "--context", "one").out == f"{first.home.name}\n"
    assert nobody("whoami", "-q", ARGUS_CONTEXT="one").out == f"{first.home.name}\n"
    listed = nobody("context", "ls").lines
    assert [line.split()[:2] for line in listed] == [["IN", "USE"], ["-", "one"], ["*", "two"]]
    assert nobody("context", "ls", "-q").lines == ["one", "two"]
    contexts = nobody("context", "ls", "--json").json["contexts"]
    assert [each["name"] for each in contexts if each["current"]] == ["two"]
    assert first.token not in json.dumps(contexts)
    nobody("context", "use", "one")
    assert nobody("whoami", "-q").out == f"{first.home.name}\n"
    nobody("logout")
    assert "no token for" in nobody("whoami", code=exits.TOKEN).err
    assert nobody("--context", "two", "whoami", "-q").out == f"{second.home.name}\n"
    nobody("context", "rm", "one")
    assert nobody("context", "ls", "-q").lines == ["two"]
    for words in (("context", "use", "x"), ("context", "rm", "x"), ("logout", "x")):
        assert "there is no context x" in nobody(*words, code=exits.NOT_FOUND).err


def test_a_name_of_another_server_is_not_taken_over(nobody: Person, alice: Person) -> None:
    assert alice.token
    (nobody.home / "config.yaml").touch(0o600)
    (nobody.home / "config.yaml").write_text(
        "contexts:\n  lab:\n    url: https://lab.example\n    token: secret-of-lab\n"
    )
    log_in(nobody, alice.token, "--name", "lab")
    assert "secret-of-lab" not in (nobody.home / "config.yaml").read_text()


def test_plain_http_is_warned_of_once(alice: Person) -> None:
    far = alice("whoami", code=exits.UNREACHABLE, ARGUS_URL="http://argus.invalid:1")
    assert far.err.count("warning: http://argus.invalid:1 is plain http") == 1
    assert "(unreachable)" in far.err
    assert "warning" not in alice("whoami").err


def test_a_file_that_others_can_read_is_refused(nobody: Person, alice: Person) -> None:
    assert alice.token
    log_in(nobody, alice.token)
    (nobody.home / "config.yaml").chmod(0o644)
    ran = nobody("whoami", code=exits.USAGE)
    assert "others can read or change it" in ran.err and "chmod 600" in ran.err


def test_an_error_is_json_where_json_is_asked_for(alice: Person) -> None:
    ran = alice("show", "argus-x-sft-20260101-000000-0000", "--json", code=exits.NOT_FOUND)
    problem = json.loads(ran.err)
    assert (problem["code"], problem["exit_code"]) == ("task_not_found", 5)
    assert len(problem["request_id"]) >= 8
    assert ran.out == ""
    for words in (("--json", "tasks", "--state", "BAD"), ("tasks", "--nonsense", "--json")):
        usage = json.loads(alice(*words, code=exits.USAGE).err)
        assert (usage["code"], usage["exit_code"]) == ("usage", 2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(nobody: Person, shell: str) -> None:
    assert "_ARGUS_COMPLETE" in nobody("completion", shell).out


def test_usage_errors_exit_with_two(nobody: Person) -> None:
    for words in (("nonsense",), ("tasks", "--nonsense"), ("submit",), ("--json",), ("tasks", "--state", "BAD")):
        assert nobody(*words, code=exits.USAGE, ARGUS_URL=nobody.url, ARGUS_TOKEN="x" * 20).err
    assert "Did you mean 'tasks'?" in nobody("taks", code=exits.USAGE).err


def test_the_version_is_told_without_a_server(nobody: Person) -> None:
    assert nobody("--version").out == f"argus {argus_ray.__version__}\n"
    assert nobody("version").out == f"argus {argus_ray.__version__}\n"
