"""A small server as a process of its own that writes down each request: a proxy that lets nothing through, or a
dashboard that says yes.

As a script: `recorder.py proxy|dashboard FILE [PORT]`; it prints its port when it listens.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Recorder:
    port: int
    file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """In order: `line` and `headers` (names in lower case)."""
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def variables(self) -> dict[str, str]:
        """All by which programs learn of a proxy."""
        kinds = ("http", "https", "all", "ftp", "grpc")
        return {spelt: self.url for kind in kinds for spelt in (f"{kind}_proxy", f"{kind.upper()}_PROXY")}


@contextmanager
def recorder(role: str, file: Path, port: int = 0) -> Iterator[Recorder]:
    command = [sys.executable, "-I", "-S", __file__, role, str(file), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={}) as child:
        assert child.stdout is not None
        try:
            yield Recorder(int(child.stdout.readline()), file)
        finally:
            child.kill()


def main(role: str, file: str, port: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with Path(file).open("a") as out:
                out.write(json.dumps({"line": self.requestline, "headers": headers}) + "\n")
            body = b'{"ray_version": "2.60.0", "version": "4"}'
            self.send_response(200 if role == "dashboard" else 502)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
