"""Makes a Hugging Face folder of the model in one of verl's FSDP checkpoints: all of it or nothing.

`argus_export.py --checkpoint FOLDER --target FOLDER [--value-model] [--trust-remote-code]`. The checkpoint's files are
linked first, since a run that goes on deletes its old ones. What is made bears another name until it is whole and on
the disk. Standard library only; the work is done by `argus_merge`, in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import argus_folders  # type: ignore[import-not-found]

#: Of the folder beside the shards.
_CONFIG = "config.json"
_HUGGING_FACE = "huggingface"
#: What a checkpoint holds beside the model, and much of it.
_NOT_NEEDED = ("optim_", "extra_state_", "data")
#: Weights that verl may have saved as a whole too; the merger makes them of the shards.
_WEIGHTS = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")


class Gone(Exception):
    """The checkpoint, or a part of it, is not there."""


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    umask = argus_folders.umask_of()
    os.umask(umask)
    target = Path(options.target)
    making, source = (target.with_name(f"{target.name}.{end}") for end in ("part", "source"))
    if target.exists():
        print(f"{target} is there already")
        return 1
    # Through the blocks below, which leave no bytes of what is not whole.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for folder in (making, source):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            collect(Path(options.checkpoint), source, value_model=options.value_model)
        except Gone as gone:
            print(f"{gone}: its run, or an operator's setting, has deleted this checkpoint since it was chosen")
            return 1
        code = _merge(source, making, trusts_code=options.trust_remote_code)
        if code:
            return code
        settle(making, umask)
        making.rename(target)
        _sync(target.parent)
    finally:
        for folder in (making, source):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"the export is whole: {target}")
    return 0


def collect(checkpoint: Path, source: Path, *, value_model: bool) -> None:
    """`source`: a new folder with what the merger reads. By hard links: they outlive the checkpoint, and cost nothing.
    Where the filesystem has none, by symbolic ones. Raises Gone."""
    shards_and_more = [name for name in _plain_files(checkpoint) if not name.startswith(_NOT_NEEDED)]
    settings = [name for name in _plain_files(checkpoint / _HUGGING_FACE) if not name.endswith(_WEIGHTS)]
    for way, names in (("", shards_and_more), (_HUGGING_FACE, settings)):
        (source / way).mkdir()
        for name in names:
            _link(checkpoint / way / name, source / way / name)
    # Only now: what was linked stays, and what was deleted meanwhile is missing.
    try:
        raw = json.loads((source / "fsdp_config.json").read_text())
        shards = [f"model_world_size_{raw['world_size']}_rank_{rank}.pt" for rank in range(raw["world_size"])]
        config = json.loads((source / _HUGGING_FACE / _CONFIG).read_text())
    except FileNotFoundError as error:
        raise Gone(f"{checkpoint} lacks {Path(error.filename).name}") from None
    if missing := [name for name in shards if not (source / name).exists()]:
        raise Gone(f"{checkpoint} lacks {missing[0]}")
    if value_model:
        # verl's critic has a head of its own, and saves the configuration of the model that it began with.
        of_critic = [str(name).replace("ForCausalLM", "ForTokenClassification") for name in config["architectures"]]
        _replace(source / _HUGGING_FACE / _CONFIG, json.dumps({**config, "architectures": of_critic}))


def settle(folder: Path, umask: int) -> None:
    """Modes as this site wants them, and all of it on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            path.chmod(0o666 & ~umask)
            _sync(path)
        Path(parent).chmod(0o777 & ~umask)
        _sync(Path(parent))


def _merge(source: Path, making: Path, *, trusts_code: bool) -> int:
    command = [
        *(sys.executable, "-P", "-u", str(Path(__file__).with_name("argus_merge.py"))),
        *("merge", "--backend", "fsdp", "--local_dir", str(source), "--target_dir", str(making)),
        *(("--trust-remote-code",) if trusts_code else ()),
    ]
    # It loads to the CPU; a GPU of this node belongs to somebody else.
    done = subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _plain_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        raise Gone(f"{folder} is not there") from None


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except FileNotFoundError:
        return  # the look at all of them tells
    except OSError:
        new.symlink_to(old)


def _replace(path: Path, text: str) -> None:
    """Its old content is the checkpoint's own, too."""
    path.unlink()
    path.write_text(text)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        if not path.is_dir():  # of a folder, where the filesystem knows no such thing
            raise
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A Hugging Face folder of a verl checkpoint")
    parser.add_argument("--checkpoint", required=True, help="the folder with the shards of the model")
    parser.add_argument("--target", required=True, help="the folder to make")
    parser.add_argument("--value-model", action="store_true", help="it is a critic")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
