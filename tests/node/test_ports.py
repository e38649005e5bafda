"""Who has a port of this machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from argus_ray.node import ports


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_free_port_and_one_that_is_taken(listener: socket.socket) -> None:
    with listener:
        port = listener.getsockname()[1]
        words = rf"port {port} is taken by \S+ \(process {os.getpid()}\)"
        assert re.fullmatch(words, ports.why_not("127.0.0.1", port))
        assert re.fullmatch(words, ports.why_not("0.0.0.0", port)), "everywhere is there, too"  # noqa: S104
        assert ports.why_not("127.0.0.2", port) == "", "at another address it is free"
        assert ports.listeners(port) == [os.getpid()]
    assert ports.why_not("127.0.0.1", port) == ""
    assert ports.listeners(port) == []


def test_one_that_would_share_it_counts_as_taken() -> None:
    with socket.socket() as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("127.0.0.1", 0))
        shared.listen()
        assert "is taken by" in ports.why_not("127.0.0.1", shared.getsockname()[1])


def test_a_connection_that_has_ended_takes_nothing(listener: socket.socket) -> None:
    """The server has closed first, so its end waits for a minute in the kernel."""
    with listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = listener.accept()
            served.close()
            assert client.recv(1) == b""
    assert ports.why_not("127.0.0.1", port) == ""


def test_the_process_of_another_one_and_an_address_that_is_not_ours() -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    with subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert f"(process {other.pid})" in ports.why_not("127.0.0.1", port)
        other.kill()
    assert (
        ports.why_not("203.0.113.9", port)
        == f"port {port} of 203.0.113.9 cannot be used: Cannot assign requested address"
    )


#: It listens, says where, and opens and closes files all the time that are listed before its listener.
_CHURNS = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 200)
print(listener.getsockname()[1], flush=True)
listener.close()
while True:
    for fd in [os.dup(0) for _ in range(20)]:
        os.close(fd)
"""


def test_who_listens_is_found_while_it_closes_other_files() -> None:
    process = subprocess.Popen([sys.executable, "-c", _CHURNS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert [ports.listeners(port) for _ in range(40)] == [[process.pid]] * 40
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
