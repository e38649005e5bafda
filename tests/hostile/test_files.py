"""Ways out of a job root by the calls for its files, and what a run may leave there to harm who looks."""

from __future__ import annotations

import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from argus_ray.core.lifecycle import Admit
from tests.support.fuzz.wire import Answer, Wire
from tests.support.gateway import ADMIN, Api, Headers, log_of

SECRET = "SECRET-of-somebody-else"


@pytest.fixture
def run(api: Api, alice: Headers) -> Admit:
    """Of alice, with secrets all around it."""
    change = api.run(api.submit(alice))
    log_of(change).write_text("a line\n")
    root = Path(change.job_root)
    above = Path(api.world.shared_root)
    (root / "secrets").mkdir()
    (root / "secrets" / "wandb").write_text(SECRET)
    for folder in (above, above / "common", root.parent, root.parent.parent, root.parents[2]):
        (folder / "secret").write_text(SECRET)
    bob = root.parents[2] / "bob" / "jobs" / "argus-bob-sft-20260101-000000-abcd--a01"
    bob.mkdir(parents=True)
    (bob / "secret").write_text(SECRET)
    return change


def base_of(change: Admit) -> str:
    return f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/files"


def ways_out() -> list[str]:
    """As a client sends them: in an encoding, and not."""
    plain = [
        "..", "../secret", "../../secret", "logs/../../secret", "logs/..", ".", "./logs", "/etc/passwd", "//etc/passwd",
        "/proc/self/environ", "logs//driver.log", "logs/driver.log\0", "\0", "logs/driver.log\n", "../bob/jobs", "~/x",
        "..\\secret", "logs\\..\\..\\secret", "..;/secret", "....//secret", "..././secret", "file:///etc/passwd",
        "x" * 256, "x/" * 40, "x" * 5000, "$HOME/x", "{a,b}", "*", "secret ", " ../secret", "..\u200b/secret",
    ]  # fmt: skip
    for letter in "/.":
        # Every character that some normal form makes this one of.
        for code in range(0x80, 0x11000):
            if letter in unicodedata.normalize("NFKC", chr(code)) and not 0xD800 <= code < 0xE000:
                plain.append(f"{chr(code) * 2}/secret" if letter == "." else f"..{chr(code)}secret")
    raw = [
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "..%5csecret",
        "%252e%252e%252fsecret",
        "%c0%ae%c0%ae/secret",
    ]
    return [*(quote(each, safe="/") for each in plain), *raw, "%c0%af", "..%c0%afsecret", "%ff", "%u002e%u002e/secret"]


@pytest.fixture
def wire(api: Api) -> Iterator[Wire]:
    """It sends what stands there; the usual clients make another path of it first."""
    made = Wire(api.make_app())
    yield made
    made.close()


def ask(wire: Wire, target: str, who: Headers) -> Answer:
    return wire.ask("GET", target, [(name.lower().encode(), value.encode()) for name, value in who.items()], b"")


def test_no_path_leads_out_of_the_job_root(api: Api, alice: Headers, run: Admit, wire: Wire) -> None:
    sent = 0
    for who in (alice, ADMIN):
        for way in ways_out():
            for url in (f"{base_of(run)}/{way}", f"{base_of(run)}?path={way}"):
                answer = ask(wire, url, who)
                assert answer.status in (400, 404), (url, answer)
                assert SECRET.encode() not in answer.body and b"root:" not in answer.body, url
                found = json.loads(answer.body)
                if answer.status == 400:
                    assert found["errors"][0]["field"] == "path" and found["errors"][0]["rule"], url
                else:
                    assert found["code"] == "file_not_found", url
                sent += 1
    assert sent > 100


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_no_link_leads_out_of_the_job_root(api: Api, alice: Headers, run: Admit, link: str) -> None:
    root = Path(run.job_root)
    (root / "rollouts").mkdir()
    for name, target in {
        "a": root.parent / "secret",
        "b": root / "secrets" / "wandb",
        "c": root.parents[2] / "bob",
    }.items():
        if link == "symbolic":
            (root / name).symlink_to(target)
            (root / "rollouts" / f"{ord(name)}.jsonl").symlink_to(target)
        elif target.is_file():
            (root / name).hardlink_to(target)
            (root / "rollouts" / f"{ord(name)}.jsonl").hardlink_to(target)
    (root / "self").symlink_to("self")
    (root / "zero").symlink_to("/dev/zero")
    below = "c/jobs/argus-bob-sft-20260101-000000-abcd--a01"
    for way in ("a", "b", "c", below, f"{below}/secret", "self", "self/x", "zero", "rollouts/97.jsonl"):
        for url in (f"{base_of(run)}/{way}", f"{base_of(run)}?path={way}"):
            answer = api.client.get(url, headers=alice)
            assert answer.status_code == 404 and SECRET not in answer.text, (url, answer.text)
    task = base_of(run).removesuffix("/files")
    assert api.get(f"{task}/rollouts", alice)["steps"] == []
    assert SECRET not in api.client.get(f"{task}/rollouts?step=97", headers=alice).text
    shown = {entry["name"]: entry["kind"] for entry in api.get(base_of(run), alice)["entries"]}
    assert shown["a"] == ("link" if link == "symbolic" else "other")
    assert "secrets" not in shown


#: As they are sent.
TO_SECRETS = (
        "secrets/wandb", "secrets", "secrets/", "SECRETS/wandb", "Secrets/wandb", "%73ecrets/wandb", "secret%73/wandb",
        "secrets%2fwandb", "./secrets/wandb", "logs/../secrets/wandb", "secrets//wandb", "secrets./wandb",
        "secrets%20/wandb", "%C5%BFecrets/wandb", "%EF%BD%93ecrets/wandb", "secrets%00/wandb", "secrets/./wandb",
)  # fmt: skip


def test_secrets_are_never_given(alice: Headers, run: Admit, wire: Wire) -> None:
    for way, who in itertools.product(TO_SECRETS, (alice, ADMIN)):
        for url in (f"{base_of(run)}/{way}", f"{base_of(run)}?path={way}"):
            for headers in (who, {**who, "Range": "bytes=0-"}):
                answer = ask(wire, url, headers)
                assert answer.status in (400, 404) and SECRET.encode() not in answer.body, (url, answer)


def test_a_job_root_that_becomes_a_link_is_none(api: Api, alice: Headers, run: Admit) -> None:
    root = Path(run.job_root)
    elsewhere = root.parents[2] / "bob" / "jobs"
    root.rename(root.with_name("moved"))
    root.symlink_to(next(elsewhere.iterdir()))
    for way in ("/secret", "?path=x"):
        assert api.client.get(base_of(run) + way, headers=alice).status_code == 404
    assert api.get(base_of(run), alice)["entries"] == []


def test_pipes_hold_no_thread(api: Api, alice: Headers, run: Admit) -> None:
    root = Path(run.job_root)
    (root / "rollouts").mkdir()
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "rollouts" / "1.jsonl")
    os.mkfifo(root / "validation")
    for _ in range(20):
        assert api.client.get(f"{base_of(run)}/pipe", headers=alice).status_code == 404
        assert api.client.get(f"{base_of(run)}?path=pipe", headers=alice).status_code == 404
        task = base_of(run).removesuffix("/files")
        assert api.get(f"{task}/rollouts", alice)["steps"] == []
        assert api.get(f"{task}/rollouts?kind=validation", alice)["steps"] == []


def test_a_name_cannot_forge_a_header_or_markup(api: Api, alice: Headers, run: Admit) -> None:
    root = Path(run.job_root)
    names = ['a"; filename="b.html', "a\u202egpj.exe", "x\u0085y", "é\u2028", "a;b", "<script>", "a\\"]
    for name in names:
        (root / name).write_text("x")
        answer = api.client.get(f"{base_of(run)}/{quote(name)}", headers=alice)
        assert answer.status_code == 200, name
        said = answer.headers["content-disposition"]
        assert re.fullmatch(r"attachment; filename=\"[ !#-\[\]-~]*\"; filename\*=UTF-8''[A-Za-z0-9._~%-]+", said), said
    listed = api.client.get(base_of(run), headers=alice)
    assert listed.headers["content-type"] == "application/json" and set(names) <= {
        entry["name"] for entry in listed.json()["entries"]
    }
