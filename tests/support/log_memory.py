"""A gateway in a process of its own that serves a large log: what its memory grows by, in bytes. Prints it as JSON.

python -m tests.support.log_memory FOLDER MIB sparse|written
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from argus_ray.core.lifecycle import Admit
from tests.support.gateway import Api, Headers, log_of, make_api
from tests.support.stream import Stream, run

MIB = 1024 * 1024
END = b"".join(b"%06d the needle\r" % number for number in range(20)) + b"\n"
_LINE = b"step:%09d - actor/loss:0.4213 - critic/score/mean:0.73 - timing_s/step:12.1\n"
#: As the runner makes them.
_PIECES = 8


def make_sparse(log: Path, size: int) -> None:
    """One line of zeros, of which the disk holds nothing, and then the end."""
    with log.open("wb") as file:
        file.truncate(size - len(END))
        file.seek(0, 2)
        file.write(END)


def make_written(log: Path, size: int) -> None:
    """Lines, in the files of a log that has reached its bound."""
    block = b"".join(_LINE % number for number in range(12_000))
    _fill(log, block, size // 2)
    at = size
    for _ in range(_PIECES):
        piece = log.with_name(f"{log.name}.{at:015d}")
        at += _fill(piece, block, size // 2 // _PIECES)
    with piece.open("ab") as file:
        file.write(END)


def _fill(path: Path, block: bytes, size: int) -> int:
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)
        return file.tell()


def use(api: Api, alice: Headers, change: Admit, most_calls: int) -> dict[str, Any]:
    """Open, tail, read and search it in every way; what was found. One search goes from end to end, the others take so
    many calls at most."""
    url = f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/logs"

    def get(path: str, **headers: str) -> Any:
        answer = api.client.get(url + path, headers={**alice, **headers})
        assert answer.status_code in (200, 206), answer.text
        return answer

    tail = get("?tail=2").text
    assert len(get("?tail=1000000").content) > MIB
    size = int(get("", Range="bytes=-1").headers["content-range"].rpartition("/")[2])
    for start in (0, size // 3, size - 5 * MIB):
        assert len(get("", Range=f"bytes={start}-").content) == 4 * MIB
    get("/download", Range="bytes=-100")
    found: list[Any] = []
    calls = 0
    for query in ("q=the needle", "q=THE NEEDLE&case=false", "q=[a-z]* needle&regex=true"):
        for direction in ("forward", "backward"):
            place, more = "", 10_000 if calls == 0 else most_calls
            while more:
                page = get(f"/search?{query}&direction={direction}{place}").json()
                found += page["matches"]
                calls, more = calls + 1, more - 1
                if page["complete"]:
                    break
                place = f"&from={page['next']}"

    async def opened() -> None:
        async with Stream(api.app, f"{url}/stream?tail=2", alice) as stream:
            assert (await stream.event())["event"] == "attempt"
            assert "needle" in (await stream.event())["data"]

    run(opened)
    return {"tail": tail, "matches": len(found), "calls": calls, "size": size}


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since it was set back."""
    match = re.search(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def main(folder: str, mib: str, kind: str) -> None:
    api = make_api(Path(folder))
    with api.client:
        alice = api.user("alice")
        make = make_sparse if kind == "sparse" else make_written
        small = api.run(api.submit(alice))
        make(log_of(small), 20 * MIB)
        large = api.run(api.submit(alice))
        make(log_of(large), int(mib) * MIB)
        # What is loaded once and kept counts for no log.
        api.client.get(f"/api/v2/tasks/{small.submission_id.partition('--')[0]}/logs?tail=1", headers=alice)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        facts = use(api, alice, large, 3 if kind == "sparse" else 10_000)
        print(json.dumps({"grown": memory("VmHWM") - before, "before": before, "cpu_s": time.process_time(), **facts}))
    api.world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
