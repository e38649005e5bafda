"""A stand-in for a W&B server: as much of its GraphQL and of its file stream as the real client (wandb 0.31) asks for.
What it has is what the client has sent."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_FILE_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
ENTITY = "own-team"


@dataclass
class Run:
    entity: str
    project: str
    name: str
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    #: Rows by their place in the file that the client streams.
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: Exit code; None: it has not been told of an end.
    exit_code: int | None = None

    def rows(self, *keys: str) -> list[tuple[Any, ...]]:
        """Of those that hold all the keys, in the order of the file."""
        ordered = [row for _, row in sorted(self.history.items())]
        return [tuple(row[key] for key in keys) for row in ordered if all(key in row for key in keys)]


class Server:
    """`with Server() as server`: listens on a free port of this machine."""

    def __init__(self, *, takes_history: bool = True) -> None:
        """`takes_history`: False, and it never answers who sends some."""
        self.takes_history = takes_history
        self.closes = threading.Event()
        self.runs: dict[tuple[str, str], Run] = {}
        #: Keys that calls have carried.
        self.keys: set[str] = set()
        self.operations: list[str] = []
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.closes.set()
        self._http.shutdown()
        self._http.server_close()

    def run(self, project: str, name: str) -> Run:
        return self.runs[project, name]

    # --- in a thread of a call, with the lock ----------------------------------------------------------------------

    def graphql(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = found[1] if found else query[:200]
        self.operations.append(operation)
        answer = getattr(self, f"_{operation}", None)
        return {"data": answer(values)} if answer else {"errors": [{"message": f"{operation} is not known here"}]}

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": ENTITY, "username": "own", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}}}

    def _RunResumeStatus(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get((values["project"], values["name"]))
        bucket = None if run is None else _resume_status(run)
        return {
            "model": {"id": "p", "name": values["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": bucket}
        }

    def _UpsertBucket(self, values: dict[str, Any]) -> dict[str, Any]:
        entity, key = values.get("entity") or ENTITY, (values["project"], values["name"])
        inserted = key not in self.runs
        run = self.runs.setdefault(key, Run(entity, *key))
        run.display_name = values.get("displayName") or run.display_name
        if config := values.get("config"):
            run.config.update(json.loads(config))
        project = {"id": "p", "name": run.project, "entity": {"id": "e", "name": entity}}
        bucket = {"id": f"id-{run.name}", "name": run.name, "displayName": run.display_name, "project": project}
        more = {
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": {**bucket, **more}, "inserted": inserted}}

    def stream(self, project: str, name: str, body: dict[str, Any]) -> None:
        run = self.runs.get((project, name))
        if run is None:
            return
        for file, chunk in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk["content"]] if file.endswith((".jsonl", ".json")) else []
            if file == "wandb-history.jsonl":
                run.history.update(enumerate(lines, chunk["offset"]))
            elif file == "wandb-summary.json" and lines:
                run.summary = lines[-1]
        if body.get("complete"):
            run.exit_code = body.get("exitcode")


def _resume_status(run: Run) -> dict[str, Any]:
    rows = [row for _, row in sorted(run.history.items())]
    return {
        "id": f"id-{run.name}",
        "name": run.name,
        "displayName": run.display_name,
        "summaryMetrics": json.dumps(run.summary or (rows[-1] if rows else {})),
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
        "eventsTail": "[]",
        "config": json.dumps(run.config),
        "tags": [],
        "wandbConfig": json.dumps({"t": 1}),
    }


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Content-Encoding") == "gzip":
                raw = gzip.decompress(raw)
            if _FILE_STREAM.fullmatch(self.path) and not server.takes_history:
                server.closes.wait()
                return
            with server.lock:
                self._note_key()
                if found := _FILE_STREAM.fullmatch(self.path):
                    server.stream(found[2], found[3], json.loads(raw))
                    self._answer({"exitcode": None, "limits": {}})
                elif self.path == "/graphql":
                    body = json.loads(raw)
                    self._answer(server.graphql(body["query"], body.get("variables") or {}))
                else:  # the client's telemetry
                    server.operations.append(f"POST {self.path}")
                    self._answer({})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._answer({})

        def _note_key(self) -> None:
            kind, _, value = self.headers.get("Authorization", "").partition(" ")
            if kind == "Basic":
                server.keys.add(base64.b64decode(value).decode().removeprefix("api:"))

        def _answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
