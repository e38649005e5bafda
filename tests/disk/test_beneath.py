"""Opening below a root that a run can write to: what an error means, what is refused, and that each caller keeps to
it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.disk import attempt_files, beneath, checkpoints, logs, trash
from argus_ray.disk.atomic import NotAFile
from argus_ray.disk.beneath import Meaning
from tests.disk.test_checkpoints import save
from tests.support.descriptors import open_below

ABSENT, FOREIGN, CLOSED, UNANSWERED = Meaning

#: The whole table; `tests/disk/test_inputs.py` and the callers below say what is made of it.
TABLE = {
    ABSENT: [errno.ENOENT, errno.ENAMETOOLONG],
    FOREIGN: [errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO],
    CLOSED: [errno.EACCES, errno.EPERM],
}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_what_each_errno_means(number: int) -> None:
    listed = [what for what, numbers in TABLE.items() if number in numbers]
    assert beneath.meaning(OSError(number, os.strerror(number))) is (listed[0] if listed else UNANSWERED)


def test_what_an_error_without_a_number_means() -> None:
    assert beneath.meaning(OSError("no number")) is UNANSWERED
    assert beneath.meaning(TimeoutError("no answer within 3 s")) is UNANSWERED
    assert beneath.meaning(NotAFile("a pipe")) is FOREIGN


def test_only_errors_of_the_named_meanings_are_suppressed() -> None:
    with beneath.suppress(ABSENT, FOREIGN):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(PermissionError), beneath.suppress(ABSENT, FOREIGN):
        raise PermissionError(errno.EACCES, "closed")
    with pytest.raises(ValueError, match="a bug"), beneath.suppress(*Meaning):
        raise ValueError("a bug")


# --- what is refused, once for each caller ---


@dataclass(frozen=True)
class Caller:
    """A use of `beneath`: the file that it reads below the job root, and whether it has taken anything from there."""

    file: str
    takes: Callable[[str], bool]
    #: What it makes of an error: None for "nothing is there", or the exception.
    on: dict[Meaning, type[Exception] | None]


def _plain(root: str) -> bool:
    with beneath.plain_file(root, "logs", "driver.log") as fd:
        return bool(os.read(fd, 1))


_SILENT: dict[Meaning, type[Exception] | None] = {ABSENT: None, FOREIGN: None, CLOSED: None, UNANSWERED: OSError}
CALLERS = {
    "beneath itself": Caller(
        "logs/driver.log", _plain, {ABSENT: OSError, FOREIGN: OSError, CLOSED: OSError, UNANSWERED: OSError}
    ),
    "start marker": Caller("started.json", lambda root: attempt_files.look(root).started, _SILENT),
    "exit record": Caller("exit.json", lambda root: attempt_files.look(root).exit is not None, _SILENT),
    "end of the log": Caller("logs/driver.log", lambda root: attempt_files.look(root).log_tail != "", _SILENT),
    "metrics": Caller("metrics.jsonl", lambda root: attempt_files.metrics(root).size > 0, _SILENT),
    "log for its user": Caller(
        "logs/driver.log",
        lambda root: logs.read_tail(root, paths.driver_log(root), 10, 100).data != b"",
        {ABSENT: FileNotFoundError, FOREIGN: logs.NotReadable, CLOSED: logs.NotReadable, UNANSWERED: OSError},
    ),
    # To take "closed to us" for "not there" would throw away what may be days of training.
    "checkpoint": Caller(
        "checkpoints/global_step_5/data_0.pt",
        lambda root: checkpoints.newest_complete([root], "sft", 2) is not None,
        {ABSENT: None, FOREIGN: None, CLOSED: PermissionError, UNANSWERED: OSError},
    ),
}
EACH_CALLER = pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A job root with all that the callers read."""
    root = tmp_path / "job"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "driver.log").write_text("text\n")
    (root / "started.json").write_text("{}")
    (root / "exit.json").write_text('{"exit_code": 0}')
    (root / "metrics.jsonl").write_text("{}\n")
    save(root, 5)
    return root


def takes(caller: Caller, root: Path) -> bool:
    """Whether it takes anything; any refusal is none."""
    try:
        return caller.takes(str(root))
    except (logs.NotReadable, OSError) as error:
        assert isinstance(error, logs.NotReadable) or beneath.meaning(error) in beneath.NOT_THERE
        return False


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path must be short
    os.close(folder)


def _device(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero


HOSTILE: dict[str, Callable[[Path, Path], object]] = {
    "a link to the same elsewhere": lambda path, victim: path.symlink_to(victim),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to nothing": lambda path, _: path.symlink_to("nowhere"),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: _socket(path),
    "a device": lambda path, _: _device(path),
    "nothing": lambda path, _: None,
}


@EACH_CALLER
def test_what_is_there_is_taken(root: Path, caller: Caller) -> None:
    assert takes(caller, root)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@EACH_CALLER
def test_nothing_but_a_plain_file_is_taken(
    tmp_path: Path, root: Path, caller: Caller, make: Callable[[Path, Path], object]
) -> None:
    path = root / caller.file
    victim = path.rename(tmp_path / "victim")
    make(path, victim)
    found: list[bool] = []
    reading = threading.Thread(target=lambda: found.append(takes(caller, root)), daemon=True)
    reading.start()
    reading.join(30)
    assert found == [False], "it hangs on what never answers" if not found else "it was taken"


@EACH_CALLER
def test_a_file_and_a_folder_are_not_taken_for_each_other(root: Path, caller: Caller) -> None:
    path = root / caller.file
    path.unlink()
    path.mkdir()
    assert not takes(caller, root)
    above = path.parent
    shutil.rmtree(above)
    above.write_text("a file in the place of a folder")
    assert not takes(caller, root)


def folders_above(root: Path, caller: Caller) -> list[Path]:
    return [root, *(root / above for above in Path(caller.file).parents if above != Path())]


@EACH_CALLER
def test_no_link_above_the_file_is_followed(tmp_path: Path, root: Path, caller: Caller) -> None:
    for above in folders_above(root, caller):
        victim = above.rename(tmp_path / "victim")
        above.symlink_to(victim)
        assert not takes(caller, root), above
        above.unlink()
        victim.rename(above)
    assert takes(caller, root)


@EACH_CALLER
def test_a_folder_that_becomes_a_link_just_before_it_is_opened(
    tmp_path: Path, root: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open
    for above in folders_above(root, caller):
        victim = tmp_path / "victim"

        def swap(name: str, *args: int, above: Path = above, victim: Path = victim, **options: int | None) -> int:
            if Path(name).name == above.name and not victim.exists():
                above.rename(victim)
                above.symlink_to(victim)
            return really(name, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", swap)
        assert not takes(caller, root), above
        assert victim.exists(), "the swap has taken place"
        above.unlink()
        victim.rename(above)


def test_a_folder_that_is_swapped_while_it_is_open_stays_what_it_was(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name leads elsewhere by then, and whoever opened by path would take what lies there."""
    really, opened = os.open, list[str]()

    def swap(name: str, *args: int, **options: int | None) -> int:
        fd = really(name, *args, **options)  # type: ignore[arg-type]
        if name == "logs" and not opened:
            (root / "logs").rename(tmp_path / "moved")
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "driver.log").write_text("another user's log")
            (root / "logs").symlink_to(tmp_path / "elsewhere")
        opened.append(name)
        return fd

    monkeypatch.setattr(os, "open", swap)
    with beneath.plain_file(str(root), "logs", "driver.log") as fd:
        assert os.read(fd, 100) == b"text\n"
    assert opened == [str(root), "logs", "driver.log"]


CODES = [*((what, number) for what, numbers in TABLE.items() for number in numbers)] + [
    (UNANSWERED, number) for number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOTCONN)
]


@pytest.mark.parametrize(("what", "number"), CODES, ids=[errno.errorcode[number] for _, number in CODES])
@EACH_CALLER
def test_what_each_caller_makes_of_an_error(
    root: Path, caller: Caller, what: Meaning, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open, really_stat = os.open, os.stat

    def fail(name: object) -> None:
        if name == Path(caller.file).name:
            raise OSError(number, os.strerror(number), name)

    def open_(name: str, *args: int, **options: int | None) -> int:
        fail(name)
        return really_open(name, *args, **options)  # type: ignore[arg-type]

    def stat_(name: str, **options: int | None) -> os.stat_result:
        fail(name)
        return really_stat(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "stat", stat_)
    expected = caller.on[what]
    if expected is None:
        assert not caller.takes(str(root))
        return
    with pytest.raises(expected) as caught:
        caller.takes(str(root))
    if what is UNANSWERED:
        assert isinstance(caught.value, OSError) and not isinstance(caught.value, logs.NotReadable)


# --- the trash works on folders ---


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_a_size_that_the_disk_does_not_tell_is_no_size(
    root: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open

    def fail(name: str, *args: int, **options: int | None) -> int:
        if Path(name).name == "logs":
            raise OSError(number, os.strerror(number), name)
        return really(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        trash.disk_bytes(str(root), trash.Budget(1000, float("inf")), 1000)


def test_only_a_root_that_may_be_a_link_is_followed(tmp_path: Path, root: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    with beneath.folder(str(link), "logs", root_may_be_link=True) as folder:
        assert beneath.status(folder, "driver.log").st_size == 5
    with pytest.raises(NotADirectoryError), beneath.folder(str(link), "logs"):
        pass
    (root / "logs").rename(root / "real")
    (root / "logs").symlink_to("real")
    with pytest.raises(NotADirectoryError), beneath.folder(str(link), "logs", root_may_be_link=True):
        pass


def test_no_descriptor_is_left_open(tmp_path: Path, root: Path) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "file")
    with beneath.folder(str(root), "checkpoints", "global_step_5") as folder:
        with beneath.plain_file(folder, "data_0.pt"):
            pass
        assert beneath.status(folder, "data_0.pt").st_size > 0, "a folder that was given stays open"
        assert f"{root}/checkpoints/global_step_5" in open_below(root)
        for names in (("none",), ("none", "none"), ("data_0.pt", "x")):
            with pytest.raises(OSError), beneath.plain_file(folder, *names):
                pass
    with pytest.raises(NotAFile), beneath.plain_file(str(tmp_path), "pipe", "file"):
        pass
    assert open_below(tmp_path) == [] == open_below(root)
