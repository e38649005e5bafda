"""Where the user's code stands in the processes of a run: after the standard library, before what is installed. Real
processes, those of Ray too, with the environment of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.verl import code
from argus_ray.disk import payload
from argus_ray.payload import argus_code_path, argus_sft_launcher
from tests.support import shadows

#: Ray's own, before it knows anything of the job but its environment.
WORKER = ("-m", "ray._private.workers.default_worker", "--help")
LIBRARY = str(Path(os.__file__).parent)
SUPERVISOR = ("-c", "import ray.dashboard.modules.job.job_supervisor, ray; print(ray.__file__)")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Of a run, whose code is in `code`."""
    (tmp_path / "code").mkdir()
    published = payload.publish(str(tmp_path / "shared"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VERL", "COV"))}
    return {**kept, "PYTHONPATH": published, "ARGUS_CODE_PATH": str(tmp_path / "code"), "HOME": str(tmp_path)}


def run(env: dict[str, str], *arguments: str, python: str = sys.executable, cwd: str = "/") -> str:
    done = subprocess.run([python, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sitecustomize" not in done.stderr, done.stderr
    return done.stdout


def origins(env: dict[str, str], *names: str, before: tuple[str, ...] = (), **options: Any) -> dict[str, str]:
    """Where a program finds these modules."""
    program = (
        "import importlib.util, json, sys\n"
        "found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}\n"
        "print(json.dumps({name: spec and str(spec.origin) for name, spec in found.items()}))"
    )
    found: dict[str, str] = json.loads(run(env, *before, "-c", program, *names, **options))
    return found


@pytest.mark.parametrize("name", [*shadows.NAMES, "ctypes", "msgpack", "sitecustomize", "usercustomize"])
def test_rays_own_worker_starts_whatever_lies_in_the_code(tmp_path: Path, env: dict[str, str], name: str) -> None:
    shadows.put(tmp_path / "code", name)
    assert "--node-ip-address" in run(env, *WORKER)


def test_rays_job_supervisor_and_the_tied_process_start_beside_all_of_them(tmp_path: Path, env: dict[str, str]) -> None:
    shadows.put(tmp_path / "code", *sys.stdlib_module_names, *code.RESERVED)
    assert run(env, *SUPERVISOR).strip().endswith("/site-packages/ray/__init__.py")
    # As the sft launcher starts a training process, in a folder that has them, too.
    tied = ("-I", "-S", "-c", argus_sft_launcher._TIED, str(os.getpid()), sys.executable, "-c", "print('runs')")
    assert run(env, *tied, cwd=str(tmp_path / "code")).strip() == "runs"


def test_a_verl_in_the_code_is_found_before_the_installed_one(tmp_path: Path, env: dict[str, str]) -> None:
    for name in ("verl", "httpx"):
        (tmp_path / "code" / name).mkdir()
        (tmp_path / "code" / name / "__init__.py").touch()
    shadows.put(tmp_path / "code", "queue", "only_mine")
    found = origins(env, "verl", "httpx", "only_mine", "queue", "ray", "argus_verl_tq")
    mine = str(tmp_path / "code")
    assert {name for name, origin in found.items() if origin.startswith(mine)} == {"verl", "httpx", "only_mine"}
    assert found["queue"] == f"{LIBRARY}/queue.py"
    assert found["argus_verl_tq"].startswith(env["PYTHONPATH"])


def test_processes_that_a_process_starts_find_the_same(tmp_path: Path, env: dict[str, str]) -> None:
    """By multiprocessing's spawn, as data loaders do, and by a shell."""
    (tmp_path / "code" / "mine.py").write_text("def where(_):\n    import queue\n    return queue.__file__\n")
    (tmp_path / "program.py").write_text(
        "import mine, multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(*pool.map(mine.where, [1]))\n"
    )
    shadows.put(tmp_path / "code", "queue", "json")
    assert run(env, str(tmp_path / "program.py")).strip() == f"{LIBRARY}/queue.py"
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import mine; print(mine.where(0))'])"
    assert run(env, "-c", nested).strip() == f"{LIBRARY}/queue.py"


def test_in_a_fresh_virtual_environment_too(tmp_path: Path, env: dict[str, str]) -> None:
    """Whose site-packages are no part of the path of the one that it was made from."""
    made = tmp_path / "venv"
    venv.create(made, with_pip=False, symlinks=True)
    (site,) = (made / "lib").glob("python3*/site-packages")
    for folder in (site, tmp_path / "code"):
        shadows.put(folder, "verl", "msgpack")
    shadows.put(tmp_path / "code", "secrets", "ray")
    found = origins(env, "verl", "msgpack", "secrets", "ray", python=str(made / "bin" / "python"))
    assert found["verl"] == str(tmp_path / "code" / "verl.py")
    assert found["msgpack"] == str(site / "msgpack.py")
    assert found["secrets"].startswith(LIBRARY)
    # Not installed there: nothing of Ray's can start, whoever has the name.
    assert found["ray"] == str(tmp_path / "code" / "ray.py")


def test_the_machines_own_sitecustomize_is_run_and_the_users_is_not(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "sitecustomize.py").write_text("print('machine')")
    env["PYTHONPATH"] += f":{tmp_path / 'machine'}"
    shadows.put(tmp_path / "code", "sitecustomize", "usercustomize")
    assert run(env, "-c", "print('program')").split() == ["machine", "program"]


def test_it_is_in_its_place_also_where_the_cluster_has_it_first(tmp_path: Path, env: dict[str, str]) -> None:
    shadows.put(tmp_path / "code", "queue", "mine")
    found = origins({**env, "PYTHONPATH": f"{env['PYTHONPATH']}:{tmp_path / 'code'}"}, "queue", "mine")
    assert found == {"queue": f"{LIBRARY}/queue.py", "mine": str(tmp_path / "code" / "mine.py")}


def test_without_code_and_where_it_is_gone_nothing_changes(tmp_path: Path, env: dict[str, str]) -> None:
    program = (
        "-c",
        "import sys; print(sys.path[1:], [getattr(each, '__name__', type(each)) for each in sys.meta_path])",
    )
    gone = {**env, "ARGUS_CODE_PATH": ""}
    bare = {name: value for name, value in env.items() if name != "ARGUS_CODE_PATH"}
    assert run(gone, *program) == run(bare, *program)
    (tmp_path / "code").rmdir()
    assert origins(env, "queue")["queue"].endswith("/queue.py")


def test_a_module_of_another_system_is_looked_for_in_vain_as_without_code(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "code" / "msvcrt.py").write_text("")
    assert origins(env, "winreg", "json") == {"winreg": None, "json": f"{LIBRARY}/json/__init__.py"}
    program = "try:\n    import msvcrt\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    assert run(env, "-c", program) == "msvcrt\n"


def test_a_python_that_does_not_know_its_own_modules_imports_them(tmp_path: Path, env: dict[str, str]) -> None:
    # Before 3.10, as /usr/bin/python3 of many a system is, whose programs a run may start.
    program = "import sys; del sys.stdlib_module_names; sys.path.insert(0, sys.argv[1]); import sitecustomize, wave"
    run(env, "-S", "-c", program, env["PYTHONPATH"])


def test_the_reserved_names_are_all_that_ray_imports_before_it_runs_anything(env: dict[str, str]) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['default_worker.py', '--help']\n"
        "try: runpy.run_module('ray._private.workers.default_worker')\n"
        "except SystemExit: pass\n"
        "import ray._private.workers.setup_worker, ray.dashboard.modules.job.job_supervisor\n"
        "import ray._private.serialization\n"
        "ours = sys.modules['ray'].__path__[0]\n"
        "for module in list(sys.modules.values()):\n"
        "    spec = getattr(module, '__spec__', None)\n"
        "    if spec and not (spec.origin or '').startswith(ours): print('=', module.__name__.partition('.')[0])\n"
    )
    names = {line[2:] for line in run(env, "-c", program).splitlines() if line.startswith("= ")}
    foreign = {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert "msgpack" in foreign
    assert foreign - code.RESERVED - {"argus_code_path"} == set()


def test_payload_and_preflight_have_the_same_names() -> None:
    assert argus_code_path.RESERVED == code.RESERVED
