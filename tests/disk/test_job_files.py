"""The files of a job root: what is listed, what is opened, and what never is."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from argus_ray.disk import job_files
from argus_ray.disk.job_files import EntryKind, FileChanged, JobFile, Listing, NoSuchFile, Opening
from tests.support.descriptors import open_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "users" / "ada" / "jobs" / "j--a01"
    path.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("SECRET")
    return path


def listing(root: Path, *names: str, after: bytes = b"", limit: int = 100) -> Listing:
    return job_files.list_folder(str(root), names, after, limit)


def content(root: Path, *names: str) -> bytes:
    file = Opening(str(root), names).open()
    try:
        return file.read(0, file.size)
    finally:
        file.close()


def odd_things(folder: Path, outside: Path) -> dict[str, str]:
    """Name -> kind, of one of each."""
    (folder / "file").write_text("abc")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(outside / "secret")
    (folder / "link-to-folder").symlink_to(outside)
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "hard").hardlink_to(outside / "secret")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    kinds = {"file": "file", "folder": "folder", "link": "link", "link-to-folder": "link", "dangling": "link"}
    return kinds | dict.fromkeys(("pipe", "hard", "socket"), "other")


def test_a_folder_is_listed_by_what_is_in_it(root: Path, tmp_path: Path) -> None:
    kinds = odd_things(root, tmp_path / "outside")
    found = listing(root)
    assert {entry.name.decode(): entry.kind.value for entry in found.entries} == kinds
    assert [entry.name for entry in found.entries] == sorted(name.encode() for name in kinds)
    sizes = {entry.name: entry.size for entry in found.entries if entry.size is not None}
    assert sizes == {b"file": 3}
    assert found.complete and not found.has_more


def test_only_plain_files_of_this_job_root_alone_are_opened(root: Path, tmp_path: Path) -> None:
    kinds = odd_things(root, tmp_path / "outside")
    (root / "folder" / "x").write_text("x")
    assert content(root, "file") == b"abc" and content(root, "folder", "x") == b"x"
    for name in kinds.keys() - {"file"}:
        with pytest.raises(NoSuchFile, match="it is a folder" if name == "folder" else "no plain file"):
            content(root, name)
    for names in (("none",), ("none", "x"), ("x" * 300,)):
        with pytest.raises(NoSuchFile, match="no such file"):
            content(root, *names)
    for names in (("link-to-folder", "secret"), ("file", "x"), ("pipe", "x")):
        with pytest.raises(NoSuchFile, match="links are not followed"):
            content(root, *names)
        with pytest.raises(NoSuchFile):
            listing(root, *names)
    with pytest.raises(NoSuchFile, match="a folder"):
        content(root)
    assert open_below(tmp_path) == []


def test_a_job_root_that_is_a_link_is_none(root: Path, tmp_path: Path) -> None:
    (root / "x").write_text("x")
    (root.parent / "k--a01").symlink_to(root)
    with pytest.raises(NoSuchFile):
        content(root.parent / "k--a01", "x")
    with pytest.raises(NoSuchFile):
        listing(root.parent / "k--a01")
    with pytest.raises(NoSuchFile, match="no such folder"):
        listing(root.parent / "none--a01")


@pytest.mark.parametrize("name", ["secrets", "Secrets"])
def test_secrets_are_not_there(root: Path, name: str) -> None:
    (root / name / "deep").mkdir(parents=True)
    (root / name / "key").write_text("KEY")
    (root / name / "deep" / "key").write_text("KEY")
    (root / "logs").mkdir()
    assert [entry.name for entry in listing(root).entries] == [b"logs"]
    for names in ((name,), (name, "key"), (name, "deep", "key")):
        with pytest.raises(NoSuchFile, match=r"^no such file$"):
            content(root, *names)
    for names in ((name,), (name, "deep")):
        with pytest.raises(NoSuchFile, match=r"^no such file$"):
            listing(root, *names)


def test_secrets_are_known_by_what_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a filesystem that takes another spelling for the same name: here one that our rule does not know."""
    (root / "secrets").mkdir()
    (root / "secrets" / "key").write_text("KEY")
    really_open, really_stat = os.open, os.stat

    def respelled(name: object) -> object:
        return "secrets" if name == "S3CRETS" else name

    monkeypatch.setattr(os, "open", lambda name, *a, **o: really_open(respelled(name), *a, **o))  # type: ignore[arg-type]
    monkeypatch.setattr(os, "stat", lambda name, *a, **o: really_stat(respelled(name), *a, **o))  # type: ignore[arg-type]
    with pytest.raises(NoSuchFile, match=r"^no such file$"):
        content(root, "S3CRETS", "key")
    with pytest.raises(NoSuchFile, match=r"^no such file$"):
        listing(root, "S3CRETS")


def test_pages_follow_each_other_while_the_folder_changes(root: Path) -> None:
    for number in range(25):
        (root / f"{number:03}").touch()
    (root / os.fsdecode(b"\xff\xfe")).touch()
    seen: list[bytes] = []
    while True:
        page = listing(root, after=seen[-1] if seen else b"", limit=10)
        seen += [entry.name for entry in page.entries]
        (root / "0005").touch()  # behind us
        (root / "024").unlink(missing_ok=True)  # before us
        if not page.has_more:
            break
    assert seen == [b"%03d" % number for number in range(24)] + [b"\xff\xfe"]


def test_a_folder_of_very_many_entries_is_listed_in_part_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "MAX_ENTRIES", 10)
    for number in range(10):
        (root / str(number)).touch()
    assert listing(root, limit=5).complete
    (root / "10").touch()
    found = listing(root)
    assert len(found.entries) == 10 and not found.complete


class TestChanges:
    def opened(self, root: Path) -> JobFile:
        (root / "file").write_bytes(b"a" * 1000)
        return Opening(str(root), ("file",)).open()

    def test_what_grows_is_what_it_was(self, root: Path) -> None:
        file = self.opened(root)
        with (root / "file").open("ab") as more:
            more.write(b"b" * 1000)
        assert file.read(0, 1000) == b"a" * 1000
        file.close()

    @pytest.mark.parametrize("new", [b"a" * 999, b"", b"b" * 1000])
    def test_what_is_written_anew_is_noticed(self, root: Path, new: bytes) -> None:
        file = self.opened(root)
        version = file.version
        os.utime(root / "file", ns=(1, 1))  # some other time than now, whatever the clock's steps
        (root / "file").write_bytes(new)
        with pytest.raises(FileChanged):
            file.read(0, 1000)
        with pytest.raises(FileChanged):
            file.read(0, 10)
        again = Opening(str(root), ("file",)).open()
        assert again.version != version
        again.close()
        file.close()

    def test_what_takes_its_place_is_another_file(self, root: Path) -> None:
        file = self.opened(root)
        (root / "new").write_bytes(b"b" * 1000)
        (root / "new").rename(root / "file")
        assert file.read(0, 1000) == b"a" * 1000, "it is still there for those who have it open"
        again = Opening(str(root), ("file",)).open()
        assert again.version != file.version and again.read(0, 3) == b"bbb"
        again.close()
        file.close()

    def test_a_time_that_is_set_back_hides_no_change(self, root: Path) -> None:
        file = self.opened(root)
        times = (root / "file").stat()
        (root / "file").write_bytes(b"b" * 1000)
        os.utime(root / "file", ns=(times.st_atime_ns, times.st_mtime_ns))
        again = Opening(str(root), ("file",)).open()
        assert again.version[2] == file.version[2] and again.version != file.version
        again.close()
        file.close()


def test_an_opening_that_is_given_up_leaves_nothing_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").touch()
    may_open, hangs = threading.Event(), threading.Event()
    really = os.open

    def slowly(name: object, *args: object, **options: object) -> int:
        hangs.set()
        assert may_open.wait(30)
        return really(name, *args, **options)  # type: ignore[arg-type]

    opening = Opening(str(root), ("file",))
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", slowly)
        thread = threading.Thread(target=opening.open)
        thread.start()
        assert hangs.wait(30)
        opening.leave()
        may_open.set()
        thread.join(30)
    assert not thread.is_alive() and open_below(root) == []
    opening.leave()


def test_kinds_are_words_of_the_wire() -> None:
    assert [kind.value for kind in EntryKind] == ["file", "folder", "link", "other"]
