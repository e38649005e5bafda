"""`argus-admin`: backups of the database, what is wrong with it, and a backup in its place. Outside Ray, on any machine
that has the shared filesystem."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from argus_ray.admin import check
from argus_ray.admin.place import Place, Refused
from argus_ray.core.errors import ArgusError, DatabaseDamaged
from argus_ray.disk.lock import LockBusy
from argus_ray.node import cli
from argus_ray.store import Store, backup, health
from argus_ray.store.backup import Backup
from argus_ray.store.restore import restore

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    return cli.run("admin", lambda: _main(sys.argv[1:] if argv is None else argv, environ))


def _main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    arguments = _parser(environ).parse_args(list(argv))
    cli.check_root_and_cluster(arguments)
    place = Place(arguments.shared_root, arguments.cluster)
    try:
        code: int = arguments.run(place, arguments)
    except (Refused, ArgusError, OSError) as error:  # RootUnknown, NoLocks and a lock that is busy among them
        sys.stderr.write(f"argus-admin: {error}\n")
        return cli.BROKEN
    return code


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = cli.Parser(prog="argus-admin", description="The database of Argus, looked at and restored by an operator.")
    cli.add(parser, environ, "--shared-root", "ARGUS_SHARED_ROOT", "/private", "the shared filesystem, mounted here")
    cli.add(parser, environ, "--cluster", "ARGUS_CLUSTER", "argus", "the cluster's name")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, run, text, file in (
        ("backup-list", _list, "the backups there are, the newest first; a head may run", None),
        ("backup", _backup, "make a backup, while no head runs; a head makes them by itself", None),
        ("check", _check, "look for damage and for orphans", "a backup; the database itself, if none is named"),
        (
            "restore",
            _restore,
            "put a backup in the database's place",
            "which one; the newest good one, if none is named",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if file:
            command.add_argument("file", nargs="?", metavar="FILE", help=f"{file}: a path, or a name of backup-list")
        if name == "backup-list":
            command.add_argument("--verify", action="store_true", help="read each one, and say whether it is good")
    return parser


def _list(place: Place, arguments: argparse.Namespace) -> int:
    place.check_root()
    found, bad = backup.list_in(place.backups), 0
    for each in found:
        line = f"{each.path.name}  {each.when}  {_size(each.path.stat().st_size):>9}"
        if arguments.verify:
            try:
                backup.verify(each)
                line += "  good"
            except (DatabaseDamaged, health.SchemaError) as error:
                bad += 1
                line += f"  BAD: {error}"
        _say(line)
    if not found:
        _say(f"there are no backups in {place.backups}")
    return cli.BROKEN if bad else cli.OK


def _backup(place: Place, _arguments: argparse.Namespace) -> int:
    try:
        with place.without_head():
            store = Store.open(place.database, may_create=False, lock_timeout_s=0.0)
            try:
                made = backup.make(store, place.backups, check_root=place.check_root, stop=lambda seconds: False)
            finally:
                store.close()
    except Refused as error:
        raise Refused(f"{error}. A head that runs makes backups by itself (backup.every_s of its settings)") from None
    _say(f"made {made.path}")
    return cli.OK


def _check(place: Place, arguments: argparse.Namespace) -> int:
    if arguments.file:
        chosen = _file(place, arguments.file)
        place.check_root()
        _say(f"checking {chosen.path}")
        backup.verify(chosen)
        _say("content: as its name says")
        with health.reading(chosen.path) as db:
            wrong = check.soundness(db, _say) or check.orphans(db, place.shared_root, _say)
    else:
        try:
            with place.without_head(), health.owned(place.database) as db:
                _say(f"checking {place.database}")
                wrong = check.soundness(db, _say) or check.orphans(db, place.shared_root, _say)
        except (Refused, LockBusy) as error:
            raise Refused(f"{error}; or check a backup: `argus-admin check FILE`") from None
    return cli.BROKEN if wrong else cli.OK


def _restore(place: Place, arguments: argparse.Namespace) -> int:
    with place.without_head():
        chosen = _file(place, arguments.file) if arguments.file else backup.newest_good(place.backups)
        if chosen is None:
            raise Refused(f"there is no good backup in {place.backups}: name a file")
        _say(f"restoring {chosen.path}, of {chosen.when}")
        heads = place.raise_epoch()
        done = restore(place.database, chosen, now=time.time(), others=backup.list_in(place.backups))
        place.note_database()
    _say(f"the old database is {done.aside}, with its log" if done.aside else "there was no database")
    _say(f"{done.tasks} tasks; the next writer is number {done.epoch + 1}; {heads}")
    _say(f"what was accepted after {chosen.when} is not in it. Start the head")
    return cli.OK


def _file(place: Place, named: str) -> Backup:
    """Raises Refused."""
    path = Path(named) if "/" in named else place.backups / named
    found = backup.named(path.absolute())
    if found is None:
        raise Refused(f"{path.name} is no name of a backup: such as argus-20261127T034512Z-e12-0f1e2d3c4b5a6978.db")
    if not path.is_file():
        raise Refused(f"{path} is not there; `argus-admin backup-list` names those that are")
    return found


def _size(count: float) -> str:
    for unit in _SIZES[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_SIZES[-1]}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
