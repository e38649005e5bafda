"""The folder of a one-machine cluster: whose folder is emptied, and that one at a time uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from argus_ray.local import folder
from argus_ray.local.folder import Refused
from argus_ray.node import processes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "quick"


def test_a_folder_that_holds_something_else_is_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("years")
    for use in (lambda: folder.usable_root(str(root)), lambda: folder.claim(root)):
        with pytest.raises(Refused, match="holds something else"):
            use()
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]
    assert [path.name for path in root.parent.iterdir()] == ["quick"]


def test_another_users_folder_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.claim(root)
    own = os.getuid()
    monkeypatch.setattr(folder.os, "getuid", lambda: own + 1)  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="belongs to another user"):
        folder.usable_root(str(root))


def test_a_link_and_a_file_are_refused(root: Path, tmp_path: Path) -> None:
    root.symlink_to(tmp_path)
    with pytest.raises(Refused, match="is a link"):
        folder.usable_root(str(root))
    root.unlink()
    root.touch()
    with pytest.raises(Refused, match="is not a folder"):
        folder.usable_root(str(root))


def test_a_marker_that_is_a_link_makes_no_folder_ours(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "marker").write_text("quickstart-1")
    (root / folder.MARKER).symlink_to(tmp_path / "marker")
    with pytest.raises(Refused, match="holds something else"):
        folder.claim(root)
    assert folder.mark_in(root) == ""


def test_our_folder_is_emptied_and_marked_anew(root: Path, tmp_path: Path) -> None:
    first = folder.claim(root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (root / "logs").mkdir()
    (root / "logs" / "head.log").touch()
    (root / "link").symlink_to(elsewhere)
    root.chmod(0o755)
    second = folder.claim(root)
    assert [path.name for path in root.iterdir()] == [folder.MARKER]
    assert first != second == folder.mark_in(root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert (elsewhere / "file").exists()


def test_an_empty_folder_is_taken(root: Path) -> None:
    root.mkdir()
    assert folder.claim(root) == folder.mark_in(root)


def test_it_is_held_by_one_at_a_time(root: Path) -> None:
    with folder.held(root):
        with pytest.raises(Refused, match="another one is running"), folder.held(root):
            pass
        with pytest.raises(Refused, match="another one is running"), folder.held(root):
            pass
    with folder.held(root):
        pass


def test_there_is_nothing_to_end(root: Path) -> None:
    assert not folder.end(root)
    assert list(root.parent.iterdir()) == []
    with folder.held(root):
        folder.claim(root)
    assert not folder.end(root), "nobody holds it, and nothing runs"


def test_one_whose_owner_lives_is_refused_though_its_lock_is_gone(root: Path) -> None:
    """Its processes are those of another pool, and would be ended."""
    code = "import sys; from pathlib import Path; from argus_ray.local import folder;"
    code += "print(folder.claim(Path(sys.argv[1])), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        mark = owner.stdout.readline().strip()
        left = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.MARK: mark})
        with pytest.raises(Refused, match=f"process {owner.pid} uses"):
            folder.claim(root)
        assert left.poll() is None and folder.mark_in(root) == mark
        owner.kill()
        owner.wait(30)
        assert folder.claim(root) != mark
        assert left.wait(30) < 0, "the owner is dead: what it has left is ended"


def test_a_folder_that_others_can_write_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(Refused, match="chmod go-w"):
        folder.usable_root(str(root))


def test_a_lock_that_is_no_file_of_ours_alone_is_refused_and_keeps_its_content(root: Path, tmp_path: Path) -> None:
    lock, victim = tmp_path / "quick.lock", tmp_path / "victim"
    victim.write_text("years of work")
    plants: list[Callable[[], None]] = [
        lambda: lock.symlink_to(victim),
        lambda: os.link(victim, lock),
        lambda: os.mkfifo(lock),
    ]
    for plant in plants:
        plant()
        with pytest.raises(Refused, match=r"quick\.lock"), folder.held(root):
            pass
        with pytest.raises(Refused, match=r"quick\.lock"):
            folder.end(root)
        lock.unlink()
    assert victim.read_text() == "years of work"
