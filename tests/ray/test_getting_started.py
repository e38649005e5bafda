"""README.md and docs/getting-started.md as a new user types them: every command, at a real terminal, on the service
that `scripts/quickstart --keep` leaves, with real verl. The operator's part goes on with the death of the head and a
damaged database, as docs/operations.md says. The screens are kept in build/screens/getting-started.

A command that one of the two pages gets from now on must be typed here, or be in `NOT_TYPED` with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from argus_ray.disk.lock import KernelLock
from argus_ray.node import processes
from argus_ray.store import backup
from tests.support import documented
from tests.support.at_backup import AtBackup, executions
from tests.support.documented import Documented
from tests.support.person import Person
from tests.support.quick import Kept, agent_option, scribble_over
from tests.support.raycluster import FOLDERS, PATIENCE_S, ROOT, Api, end_orphans
from tests.support.realverl import needs_verl

pytestmark = [pytest.mark.verl, pytest.mark.timeout(1500), needs_verl]

SCREENS = ROOT / "build" / "screens" / "getting-started"
STARTED = documented.commands(ROOT / "docs" / "getting-started.md")
README = documented.commands(ROOT / "README.md")
#: Which commands of the two pages nobody types here, and why.
NOT_TYPED = {
    "scripts/quickstart": "minutes: what --keep starts, and the trainings of tests/ray/test_real_verl.py",
    "scripts/test": "what runs this",
    "scripts/gpu-check": "needs a GPU; tests/scripts/test_gpu_check.py runs it without one",
    "HF_HOME=/private/common/hf hf download Qwen/Qwen2.5-0.5B-Instruct": "needs the Hub",
}
#: Seconds from the first command to the first curve, on two cores that nobody else uses.
TO_THE_CURVE_S = 120
CORES = os.cpu_count() or 1
CURVE = "[▁▂▃▄▅▆▇█]"


@dataclass
class Story:
    """`ada` is the new user, at home. `operator` is in the checkout."""

    kept: Kept
    home: Path
    ada: Person
    operator: Person
    begun: float
    #: Of the machine before, for each core.
    load: float
    http: httpx2.Client
    typed: set[str] = field(default_factory=set)
    #: Of tasks, by what they are for.
    ids: dict[str, str] = field(default_factory=dict)

    def words(self, command: Documented | str, task: str = "") -> str:
        """As a reader types it: with the addresses, the folder and the task that are meant. It counts as typed."""
        text = command if isinstance(command, str) else command.text
        self.typed.add(text)
        text = re.sub(r"http://head:8000", self.kept.url, text, flags=re.I)
        return re.sub(r"\bID\b", task, text.replace("/private", str(self.kept.shared)))

    def api(self, token: str = "") -> Api:
        return self.kept.api(self.http, token or self.kept.token)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """After `scripts/quickstart --keep`."""
    end_orphans()
    shutil.rmtree(SCREENS, ignore_errors=True)
    root, home = FOLDERS / f"argus-q-{os.getpid()}", tmp_path_factory.mktemp("home")
    operator = Person(home / "operator", SCREENS, at=ROOT)
    ada = Person(home / "ada", SCREENS)
    begun, load = time.monotonic(), os.getloadavg()[0] / CORES
    options = f" --dir {root}"
    try:
        shown = operator.run("scripts/quickstart --keep" + options, within_s=2 * PATIENCE_S)
        kept = Kept.shown(root, shown)
        with httpx2.Client(base_url=kept.url, timeout=60, trust_env=False) as http:
            made = Story(kept, home, ada, operator, begun, load, http)
            # The second one below, when all is over.
            made.typed |= {"scripts/quickstart --keep", "scripts/quickstart --stop"}
            yield made
    finally:
        ada.leaves()
        operator.leaves()
        again = Person(home / "operator", SCREENS, at=ROOT)
        stopped = again.run("scripts/quickstart --stop" + options, within_s=PATIENCE_S)
        again.leaves()
        shutil.rmtree(root, ignore_errors=True)
        Path(f"{root}.lock").unlink(missing_ok=True)
    assert "has been stopped" in stopped


def test_from_nothing_to_a_curve(story: Story) -> None:
    shown: dict[str, str] = {}
    for command in STARTED:
        if re.search(r"\bID\b", command.text):
            break
        if command.text in story.typed:
            continue
        words = story.words(command)
        if "validate" in words:
            # The template's paths are those of a real pool; the quickstart has made the reader a TaskSpec with its own.
            assert "code_path" in story.ada.run(words, code=3)
            story.ada.run(f"cp {story.kept.spec} .")
            shown[words] = story.ada.run(words)
        elif "--watch" in words:
            story.ada.begin(words)
            story.ada.sees(CURVE, PATIENCE_S)
            took, busy = time.monotonic() - story.begun, max(story.load, os.getloadavg()[0] / CORES)
            goal = f"the goal is {TO_THE_CURVE_S} s with a load of one"
            print(
                f"\nfrom the first command to the first curve: {took:.0f} s, with a load of {busy:.1f} a core; {goal}"
            )
            shown[words] = story.ada.ends(words, within_s=PATIENCE_S)
        else:
            shown[words] = story.ada.run(words, secret=story.kept.token if " login " in words else None)
    assert len(shown) >= 12, "else this reads the page wrongly"
    watched = shown["argus submit task.yaml --watch"]
    assert "SUCCEEDED" in watched and "50/50" in watched
    task = story.api().get("/api/v2/tasks")["tasks"][0]["task_id"]
    story.ids["trained"] = task
    assert task[-4:] in shown["argus tasks"]
    assert re.search("[⠁-⣿]", shown["argus metrics last --plot"])
    assert "train/loss" in shown["argus logs last -n 5"] or "step" in shown["argus logs last -n 5"]
    assert task in shown["argus show last"]
    assert (story.home / "ada" / ".config" / "argus" / "config.yaml").stat().st_mode & 0o777 == 0o600


def test_and_then(story: Story) -> None:
    """The rest of the page: by ID is meant the task that the sentence beside it speaks of."""
    spec = story.home / "ada" / "task.yaml"
    assert "total_training_steps: 50\n" in spec.read_text()
    # A reader who is in a hurry.
    spec.write_text(spec.read_text().replace("total_training_steps: 50\n", "total_training_steps: 2\n"))
    canceled: re.Match[str] | None = None
    trained, last = story.ids["trained"], story.api().get("/api/v2/tasks")["tasks"][0]["task_id"]
    for command in STARTED:
        if command.text in story.typed:
            continue
        if command.is_python:
            program = story.words(command)
            (story.home / "ada" / "train.py").write_text(f"token = {story.kept.token!r}\n{program}")
        elif command.text.startswith("argus cancel"):
            submitted = story.ada.run("argus -q submit task.yaml")
            canceled = re.search(r"argus-\S+", submitted)
            assert canceled, submitted
            story.ada.run(story.words(command, canceled[0]))
            assert story.api().wait_final(canceled[0])["state"] == "CANCELED"
        elif command.text.startswith("argus resubmit"):
            assert canceled is not None
            story.ada.run(story.words(command, canceled[0]))
        elif "train.py" in command.text:
            story.ada.run(story.words(command), within_s=PATIENCE_S)
        elif command.text.startswith("argus wait"):
            assert "well" in story.ada.run(story.words(command, last), within_s=PATIENCE_S)
        else:
            story.ada.run(story.words(command, trained))
            last = story.api().get("/api/v2/tasks")["tasks"][0]["task_id"]
            assert last != trained
    states = {task["task_id"]: task["state"] for task in story.api().get("/api/v2/tasks")["tasks"]}
    assert len(states) == 5 and states.pop(trained) == "SUCCEEDED"
    assert sorted(states.values()) == ["CANCELED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]


def test_the_operators_part_and_a_damaged_database(story: Story) -> None:
    """The README from "On real machines" on, in its order as far as a head allows; between its start and the rest
    docs/operations.md, "Backups"."""
    kept = story.kept
    tasks = AtBackup.submitted(story.api())
    story.operator.run(story.words("scripts/setup"))
    # A machine's own settings, as /etc/argus/argus.env has them.
    at_head = kept.settings("head")
    third = {
        "ARGUS_NODE_NAME": "worker-3",
        "ARGUS_NODE_IP": "127.0.0.13",
        "ARGUS_TEMP_DIR": str(kept.root / "worker-3"),
    }
    at_worker = kept.settings("worker-1", **third)
    kept.end("head", signal.SIGTERM)
    head = Person(story.home / "operator", SCREENS, at=ROOT, environ=at_head)
    worker = Person(story.home / "operator", SCREENS, at=ROOT, environ=at_worker)
    try:
        _operators_part(story, tasks, head, worker)
    finally:
        for gate in tasks.gates.values():
            gate.touch()
        head.leaves()
        worker.leaves()


def _operators_part(story: Story, tasks: AtBackup, head: Person, worker: Person) -> None:
    """`head` and `worker` are shells on these machines."""
    kept, user = story.kept, tasks.user
    drivers = drivers_of(tasks)
    assert len(drivers) == 3
    begun, used = time.monotonic(), cpu_s(drivers)
    assert "job roots without a task: none" in head.run("scripts/argus-admin check")
    head.run("scripts/argus-admin backup")
    newest = backup.list_in(kept.backups)[0]
    for command in README:
        if command.text == "scripts/argus-head":
            break
        if command.text.startswith(("export ARGUS_ADMIN_TOKEN", "scripts/argus-head")):
            head.run(story.words(command))
    launch = story.words("scripts/argus-head") + agent_option()
    head.begin(launch)
    head.sees(" serving: ", PATIENCE_S)
    away, used = time.monotonic() - begun, cpu_s(drivers) - used
    print(f"no head for {away:.0f} s: three runs that wait used {used:.1f} s of CPU")
    assert used < 0.5 * away, "what runs does not spin while its head is away"
    joins = story.words("scripts/argus-watchdog") + agent_option()
    worker.begin(joins)
    alice = _rest_of_the_readme(story, tasks.ids["ends"])
    worker.sees(" joined: ", PATIENCE_S)
    unknown = tasks.go_on_after_it()
    worker.interrupts(joins)

    kept.end("head", signal.SIGKILL)
    head.ends(launch, code=137)
    with KernelLock(f"{kept.database}.lock").held(60):  # its writer has ended, too
        scribble_over(kept.database)
    head.begin(launch)
    assert processes.wait_until(lambda: "is damaged" in said(story, "/readyz"), PATIENCE_S, 0.5), said(story, "/readyz")
    for answer in (said(story, "/readyz"), user.request("GET", "/api/v2/tasks").text):
        assert f"argus-admin restore {newest.path.name}" in answer
    for step in documented.block(ROOT / "docs" / "operations.md", "**To restore:**"):
        words = step.replace("/opt/argus/", "")
        if words.startswith("systemctl stop"):
            head.interrupts(launch)
        elif words.startswith("systemctl start"):
            head.begin(launch)
        elif words.endswith(" check"):
            shown = "".join(head.run(words, code=1).split())
            assert "jobrootswithoutatask:2" in shown and all(task in shown for task in unknown.values())
            assert "oftasksthatitknows:2" in shown, "what waited has begun since"
        else:
            assert newest.path.name in "".join(head.run(words).split())
    head.sees(" serving: ", PATIENCE_S)
    assert processes.wait_until(lambda: '"ready"' in said(story, "/readyz"), PATIENCE_S, 0.5)
    _as_it_was(story, tasks, unknown, alice)
    head.interrupts(launch)


def drivers_of(tasks: AtBackup) -> list[int]:
    """The processes of verl's own programs, below their runners."""
    names = [f"{task}--a01" for task in tasks.ids.values()]
    ours = [pid for name in names for pid in processes.with_variable("ARGUS_SUBMISSION_ID", name)]
    lines = {pid: " ".join(processes.commands([pid])) for pid in ours}
    return [pid for pid, line in lines.items() if "-m verl.trainer" in line and "argus_runner" not in line]


def cpu_s(pids: list[int]) -> float:
    """Seconds that they have used so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def kept_job_roots(story: Story, task: str) -> list[Path]:
    return list((story.kept.shared / "users").glob(f"*/jobs/{task}--a*"))


def said(story: Story, path: str) -> str:
    """What a caller without a token is answered."""
    try:
        return story.http.get(path).text
    except httpx2.TransportError as error:
        return str(error)


def _rest_of_the_readme(story: Story, task: str) -> str:
    """A user's and the admin's, while the head runs. The token of alice."""
    kept, issued = story.kept, ""
    token = processes.variable(kept.pid("head"), "ARGUS_ADMIN_TOKEN")
    assert token and token != kept.admin_token
    assert processes.wait_until(lambda: '"ready"' in said(story, "/readyz"), PATIENCE_S, 0.5)
    admin = Person(story.home / "operator", SCREENS, environ={"ARGUS_ADMIN_TOKEN": token})
    try:
        for command in README:
            # Of the head's and the worker's shells, and of the new user's.
            if command.text in NOT_TYPED or command.text.startswith(("scripts/", "export ", "argus submit ")):
                continue
            is_login = " login " in command.text and "stdin" not in command.text
            shown = admin.run(story.words(command, task), secret=token if is_login else None)
            if "token new" in command.text:
                issued = shown
        alice = re.search(r"^argus_\S+", issued, re.M)
        assert alice, issued
        assert story.api(alice[0]).get("/api/v2/me")["user_id"] == "alice"
        return alice[0]
    finally:
        admin.leaves()


def _as_it_was(story: Story, tasks: AtBackup, unknown: dict[str, str], alice: str) -> None:
    """After the restore: everything is as the disk and Ray say it is, and nothing has run twice."""
    user, ids = tasks.user, tasks.ids
    assert story.ids["trained"] in story.ada.run("argus -q tasks --all")
    assert story.http.get("/api/v2/me", headers={"Authorization": f"Bearer {alice}"}).status_code == 401
    assert user.task(story.ids["trained"])["state"] == "SUCCEEDED"
    for task in unknown.values():
        assert user.request("GET", f"/api/v2/tasks/{task}").status_code == 404
    assert (user.task(ids["goes on"])["state"], len(user.task(ids["goes on"])["attempts"])) == ("RUNNING", 1)
    tasks.gates["goes on"].touch()
    # It waits for the room that its own run, which the backup does not know, still holds.
    assert user.task(ids["starts"])["state"] in ("PENDING_RESOURCES", "RUNNING")
    tasks.gates["starts"].touch()
    for name in ("goes on", "ends", "waits", "starts"):
        view = user.wait_final(ids[name])
        assert (view["state"], executions(view)) == ("SUCCEEDED", [1]), (name, view)
    # Its cancel is forgotten: by what Ray still tells it failed, or it was lost with Ray's processes and goes on.
    tasks.gates["is canceled"].touch()
    view = user.wait_final(ids["is canceled"])
    started = (view["state"], executions(view))
    assert started in (("FAILED", [1]), ("SUCCEEDED", [1, 1])), view
    # Nobody knows it, and it runs: its marker ends it.
    (stray,) = kept_job_roots(story, unknown["runs on unknown"])
    assert not (stray / "exit.json").exists()
    story.operator.run(f"touch {stray}/canceled")
    assert processes.wait_until((stray / "exit.json").exists, PATIENCE_S)
    after = user.wait_final(user.submit(n_gpus_per_node=1))
    assert after["state"] == "SUCCEEDED"


def test_every_command_of_the_two_pages_was_typed(story: Story) -> None:
    known = {command.text for command in (*STARTED, *README)}
    assert len(known) > 30
    assert sorted(known - story.typed - NOT_TYPED.keys()) == []
    assert sorted(NOT_TYPED.keys() - known) == [], "stands on no page any more"
    assert sorted(NOT_TYPED.keys() & story.typed) == []


def test_no_screen_has_a_token_but_where_it_was_issued(story: Story) -> None:
    shown = {path.name: path.read_text() for path in SCREENS.iterdir()}
    assert [name for name, text in shown.items() if story.kept.token in text] == [min(shown)]
    assert [name for name, text in shown.items() if story.kept.admin_token in text or "Traceback" in text] == []
