"""The peer of POST /api/v2/tasks: plain uvicorn, FastAPI and SQLite in one process, as one would write it by hand.

It does what "accepted" needs and no more: look the token up, parse the same YAML by libyaml, check it by pydantic, and
answer once the row is on disk (WAL, synchronous=FULL). What waits at the same moment shares a transaction. It looks at
no inputs, has no limits and no scheduler, and nothing takes over when it dies.

  python -m benchmarks.peer --port 9000 --database FILE --tokens FILE
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import secrets
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    workload: Literal["ppo", "grpo", "sft"]
    code_path: str
    model_id: str
    train_file: str
    val_file: str
    nnodes: int = Field(ge=1, le=1024)
    n_gpus_per_node: int = Field(ge=1, le=64)
    total_epochs: int = Field(ge=1)
    total_training_steps: int | None = Field(default=None, ge=1)
    save_freq: int
    test_freq: int
    trainer_device: Literal["cuda", "cpu"] = "cuda"
    submission_id: str | None = Field(default=None, max_length=256)


_Row = tuple[str, str, str, float]


class Database:
    """One connection, in the event loop: a commit takes a fraction of a millisecond, which no thread hop is worth."""

    def __init__(self, path: Path, tokens: list[str]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE tokens (digest TEXT PRIMARY KEY, user_id TEXT NOT NULL)")
        columns = "seq INTEGER PRIMARY KEY, task_id TEXT UNIQUE, user_id TEXT, spec TEXT, created_at REAL"
        self._db.execute(f"CREATE TABLE tasks ({columns})")
        rows = [(_digest(token), f"user-{number}") for number, token in enumerate(tokens)]
        self._db.executemany("INSERT INTO tokens VALUES (?, ?)", rows)
        self._waiting: list[tuple[_Row, asyncio.Future[None]]] = []

    def user(self, authorization: str) -> str:
        token = authorization.removeprefix("Bearer ")
        row = self._db.execute("SELECT user_id FROM tokens WHERE digest = ?", (_digest(token),)).fetchone()
        if row is None:
            raise HTTPException(401)
        return str(row[0])

    def task(self, user_id: str, task_id: str) -> dict[str, Any]:
        query = "SELECT spec, created_at FROM tasks WHERE task_id = ? AND user_id = ?"
        row = self._db.execute(query, (task_id, user_id)).fetchone()
        if row is None:
            raise HTTPException(404)
        return {"task_id": task_id, "spec": row[0], "created_at": row[1]}

    async def add(self, row: _Row) -> None:
        """Returns when it is on disk."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._write)
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((row, done))
        await done

    def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT INTO tasks (task_id, user_id, spec, created_at) VALUES (?, ?, ?, ?)", [row for row, _ in batch]
        )
        self._db.execute("COMMIT")
        for _, done in batch:
            done.set_result(None)


def make_app(database: Database) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/v2/tasks/{task_id}")
    async def task(task_id: str, request: Request) -> dict[str, Any]:
        return database.task(database.user(request.headers.get("authorization", "")), task_id)

    @app.post("/api/v2/tasks", status_code=201)
    async def submit(request: Request) -> dict[str, Any]:
        user_id = database.user(request.headers.get("authorization", ""))
        text = (await request.body()).decode()
        try:
            spec = Spec.model_validate(yaml.load(text, Loader=yaml.CSafeLoader))
        except (yaml.YAMLError, ValidationError) as error:
            raise HTTPException(400, str(error)) from None
        task_id = f"argus-{user_id}-{spec.workload}-{secrets.token_hex(8)}"
        await database.add((task_id, user_id, text, time.time()))
        return {"task_id": task_id, "state": "QUEUED", "warnings": []}

    return app


@contextlib.contextmanager
def started(folder: Path, tokens: Path, port: int) -> Iterator[str]:
    """Its address, while a peer runs whose database lies in this folder."""
    options = ["--port", str(port), "--database", str(folder / "peer.db"), "--tokens", str(tokens)]
    with (folder / "peer.log").open("wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "benchmarks.peer", *options], stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), opener.open(f"{url}/healthz", timeout=1):
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"the peer did not start: {(folder / 'peer.log').read_text()[-1000:]}")
            time.sleep(0.1)
        yield url
    finally:
        child.terminate()
        child.wait(10)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True)
    options = parser.parse_args()
    database = Database(options.database, options.tokens.read_text().split())
    uvicorn.run(make_app(database), host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
