"""docs/getting-started.md as a new user types it: at a real terminal, with the command that the service hands out, and
real verl. The screens are kept in build/screens."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raycluster import ROOT, Cluster
from tests.support.realverl import make_inputs, needs_verl
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.verl, pytest.mark.timeout(600), needs_verl]

SCREENS = ROOT / "build" / "screens" / "getting-started"
#: Of the shell: the exit code of the command before.
PROMPT = r"\[(\d+)\] %\s*$"


def commands() -> list[str]:
    """What the page lets a person type, from the mark on."""
    page = (ROOT / "docs" / "getting-started.md").read_text()
    typed, _ = page.split("<!-- a person types these")[1].split("## And then")
    blocks = re.findall(r"^```sh\n(.*?)^```$", typed, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


class Shell:
    """A person's, whose python3 is that of the tests and whose home is empty."""

    def __init__(self, home: Path, url: str) -> None:
        bin_folder = home / "bin"
        bin_folder.mkdir(parents=True)
        (bin_folder / "python3").symlink_to(sys.executable)
        environ = {
            "HOME": str(home),
            "ARGUS": url,
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "PS1": "[$?] % ",
            "NO_PROXY": "*",
        }
        self.terminal = Terminal(
            ["/bin/bash", "--noprofile", "--norc", "-i"], environ, columns=100, rows=40, cwd=str(home)
        )
        self.terminal.until(PROMPT)
        self._count = 0
        shutil.rmtree(SCREENS, ignore_errors=True)
        SCREENS.mkdir(parents=True)

    def run(self, command: str, typed: str | None = None, within_s: float = 60) -> str:
        """What the terminal shows of it; `typed`: what it asks for. Its exit code must be 0."""
        self.terminal.screen.reset()
        self.terminal.screen.history.top.clear()
        self.terminal.send(command + "\r")
        if typed is not None:
            self.terminal.until("Token for")
            self.terminal.send(typed + "\r")
        shown = self.terminal.until(PROMPT, within_s)
        self._count += 1
        name = re.sub(r"\W+", "-", command)[:40].strip("-")
        (SCREENS / f"{self._count:02}-{name}.txt").write_text(shown)
        code = re.search(PROMPT, shown)
        assert code is not None and code[1] == "0", shown
        return shown


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path / "home", cluster.machine.url)
    yield made
    made.terminal.close()


def test_from_nothing_to_a_curve(cluster: Cluster, shell: Shell, tmp_path: Path) -> None:
    make_inputs(cluster.shared)
    user = cluster.user()
    spec = (ROOT / "examples" / "cpu-sft.yaml").read_text().replace("/private/", f"{cluster.shared}/")
    (tmp_path / "home" / "task.yaml").write_text(spec)
    begun = time.monotonic()
    shown: dict[str, str] = {}
    for command in commands():
        is_login = " login " in command
        shown[command] = shell.run(command, user.token if is_login else None, within_s=200)
        if "--watch" in command:
            print(f"\nfrom nothing to the end of the first task: {time.monotonic() - begun:.0f} s")
    assert len(shown) >= 12, "else this reads the page wrongly"
    watched = shown["argus submit task.yaml --watch"]
    assert "SUCCEEDED" in watched and "50/50" in watched
    assert re.search("[▁▂▃▄▅▆▇█]", watched), "a curve was seen"
    task_id = user.request("GET", "/api/v2/tasks").json()["tasks"][0]["task_id"]
    assert task_id[-4:] in shown["argus tasks"]
    assert re.search("[⠁-⣿]", shown["argus metrics last --plot"])
    assert "train/loss" in shown["argus logs last -n 5"] or "step" in shown["argus logs last -n 5"]
    assert task_id in shown["argus show last"]
    everything = "".join(path.read_text() for path in SCREENS.iterdir())
    assert user.token not in everything and "Traceback" not in everything
    assert (tmp_path / "home" / ".config" / "argus" / "config.yaml").stat().st_mode & 0o777 == 0o600
