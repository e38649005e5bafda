"""argus.pyz: what is in it, how it starts where a home is odd, and that old Pythons are told so."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_pyz.py"
LOCK = ROOT / "requirements.lock"
START = (ROOT / "scripts" / "pyz_start.py").read_text()
#: A command that tells where it came from and what it has loaded.
APP = """
import sys
def main():
    import click, argus_ray.client
    if "--all" in sys.argv:
        import httpx2, argus_ray.client.client
    print(click.__file__, *sys.argv[1:])
    print(*sorted({name.partition(".")[0] for name in sys.modules} & {"ray", "pydantic", "fastapi", "yaml", "rich"}))
    sys.exit(3)
"""


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("make_pyz", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_pyz = _module()


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a command of the tests in the place of `argus`."""
    folder = tmp_path_factory.mktemp("pyz")
    package = folder / "argus_ray"
    shutil.copytree(ROOT / "argus_ray" / "client", package / "client", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "argus_ray" / "__init__.py", package)
    (package / "cli").mkdir()
    (package / "cli" / "__init__.py").touch()
    (package / "cli" / "app.py").write_text(APP)
    make_pyz.make(folder / "argus.pyz", LOCK, package)
    return folder / "argus.pyz"


def start(pyz: Path, home: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), **environ}
    return subprocess.Popen(
        # -s, and -S in effect: only what it brings along.
        [sys.executable, "-S", str(pyz), *words], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip


def ran(pyz: Path, home: Path, *words: str, **environ: str) -> str:
    """From where it took its packages."""
    process = start(pyz, home, *words, **environ)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (3, ""), (out, err)
    first, loaded = out.splitlines()
    assert loaded == "", "nothing of the server"
    path, _, rest = first.partition(" ")
    assert rest.split() == list(words)
    return path.removesuffix("/click/__init__.py")


def test_the_same_sources_make_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    make_pyz.make(tmp_path / "again", LOCK, pyz.parent / "argus_ray")
    assert (tmp_path / "again").read_bytes() == pyz.read_bytes()
    (pyz.parent / "argus_ray" / "cli" / "more.py").touch()
    try:
        make_pyz.make(tmp_path / "other", LOCK, pyz.parent / "argus_ray")
    finally:
        (pyz.parent / "argus_ray" / "cli" / "more.py").unlink()
    assert (tmp_path / "other").read_bytes() != pyz.read_bytes()
    assert pyz.stat().st_size < 3 * 1024 * 1024


def test_only_the_command_and_what_it_needs_is_in_it(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        *(
            "__main__.py",
            "argus_ray",
            "anyio",
            "click",
            "h11",
            "httpcore2",
            "httpx2",
            "idna",
            "truststore",
            "typing_extensions.py",
        )
    }
    rooms = {name.split("/")[1] for name in names if name.startswith("argus_ray/")}
    assert rooms == {"__init__.py", "cli", "client"}
    assert [name for name in names if name.endswith((".so", ".pyc")) or "__pycache__" in name] == []
    licences = {name.split("/")[0] for name in names if re.search(r"(?i)licen[sc]e", name)}
    assert licences == {top for top in tops if top.endswith(".dist-info")}, "each package's licence travels along"


def test_what_is_unpacked_is_compiled_once_whatever_the_environment_says(pyz: Path, tmp_path: Path) -> None:
    ran(pyz, tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert list((tmp_path / ".cache" / "argus").glob("*/click/__pycache__/core.*.pyc"))


def test_a_version_that_is_not_the_locks_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(LOCK.read_text().replace("httpx2==", "httpx2==0."))
    with pytest.raises(make_pyz.NotMade, match="httpx2"):
        make_pyz.make(tmp_path / "x", lock)
    assert list(tmp_path.iterdir()) == [lock]


def test_it_unpacks_once_for_its_user_alone(pyz: Path, tmp_path: Path) -> None:
    place = ran(pyz, tmp_path, "a", "--all")
    folder = tmp_path / ".cache" / "argus"
    assert Path(place).parent == folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    marked = Path(place) / "click" / "mark"
    marked.touch()
    os.utime(place, (0, 0))
    assert ran(pyz, tmp_path) == place and marked.exists()
    assert time.time() - Path(place).stat().st_mtime < 3600, "so that it is not taken for an old one"
    folder.chmod(0o755)
    assert ran(pyz, tmp_path) == place and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_that_start_at_once_do_not_spoil_each_other(pyz: Path, tmp_path: Path) -> None:
    processes = [start(pyz, tmp_path) for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (3, ""), out
    assert len(list((tmp_path / ".cache" / "argus").iterdir())) == 1, "and nothing is left of the slower ones"


def test_what_a_killed_start_has_left_and_old_versions_go(pyz: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "argus"
    for name, age in (("new-abc", 31), ("0123456789abcdef", 31), ("fedcba9876543210", 1)):
        (folder / name / "lib").mkdir(parents=True)
        os.utime(folder / name, (time.time() - age * 86400,) * 2)
    place = ran(pyz, tmp_path)
    assert {each.name for each in folder.iterdir()} == {Path(place).name, "fedcba9876543210"}


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "relative"])
def test_without_a_home_it_runs_from_the_file(pyz: Path, home: str) -> None:
    assert ran(pyz, Path(home), "--all") == str(pyz)


def test_a_folder_of_somebody_else_is_not_used(pyz: Path, tmp_path: Path) -> None:
    build = Path(ran(pyz, tmp_path)).name
    evil = tmp_path / "evil"
    (evil / build / "click").mkdir(parents=True)
    (evil / build / "click" / "__init__.py").write_text("raise SystemExit('evil')")
    cache = tmp_path / "home" / ".cache"
    cache.mkdir(parents=True)
    (cache / "argus").symlink_to(evil)
    assert ran(pyz, tmp_path / "home") == str(pyz), "a link"
    if os.getuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    (cache / "argus").unlink()
    evil.rename(cache / "argus")
    os.chown(cache / "argus", 12345, 12345)
    assert ran(pyz, tmp_path / "home") == str(pyz)
    os.chown(cache / "argus", 0, 0)
    os.chown(cache / "argus" / build, 12345, 12345)
    assert ran(pyz, tmp_path / "home") == str(pyz)


def test_packages_of_others_are_not_taken(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "click.py").write_text("raise SystemExit('not mine')")
    ran(pyz, tmp_path, PYTHONPATH=str(tmp_path / "others"))


def test_an_old_python_is_told_so_in_one_sentence() -> None:
    ast.parse(START, feature_version=(3, 4))
    code = f"import sys; sys.version_info = (3, 9, 1); exec(compile({START!r}, 'argus.pyz', 'exec'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"argus: needs Python 3.11 or newer, and this is 3.9 ({sys.executable})\n"


def test_the_real_one_starts(tmp_path: Path) -> None:
    make_pyz.make(tmp_path / "argus.pyz", LOCK)
    done = subprocess.run(
        [sys.executable, "-S", tmp_path / "argus.pyz", "--help"],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "") and "submit" in done.stdout
