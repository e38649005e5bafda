"""Whose address it is: what proxies of ours say is believed, and what a client says is not."""

from __future__ import annotations

from typing import Any

import pytest

from argus_ray.gateway.http.address import client_address
from argus_ray.gateway.http.prefix import TrustedProxies

LOOPBACK = "127.0.0.1,::1"
PROXY = "10.0.0.9"


def seen(
    peer: tuple[str, int] | None, *forwarded: str, trusted: str = LOOPBACK, haproxy: str | None = None
) -> str | None:
    headers: list[tuple[bytes, bytes]] = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    if haproxy is not None:
        headers.append((b"x-argus-peer", haproxy.encode()))
    scope: dict[str, Any] = {"client": peer, "headers": headers}
    return client_address(scope, TrustedProxies(trusted), haproxy=haproxy is not None)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        (("192.0.2.1", 5000), (), LOOPBACK, "192.0.2.1"),
        (("192.0.2.1", 5000), ("203.0.113.9",), LOOPBACK, "192.0.2.1"),  # a stranger is not believed
        (("127.0.0.1", 5000), ("203.0.113.9",), LOOPBACK, "203.0.113.9"),
        # What the client itself has sent stands before what the proxy appends.
        (("127.0.0.1", 5000), ("1.1.1.1, 203.0.113.9",), LOOPBACK, "203.0.113.9"),
        (("127.0.0.1", 5000), ("1.1.1.1", "203.0.113.9"), LOOPBACK, "203.0.113.9"),
        ((PROXY, 5000), ("203.0.113.9, 127.0.0.1",), f"{LOOPBACK},10.0.0.0/8", "203.0.113.9"),
        ((PROXY, 5000), (), f"{LOOPBACK},{PROXY}", PROXY),
        ((PROXY, 5000), ("10.0.0.1, 10.0.0.2",), "10.0.0.0/8", "10.0.0.1"),  # all are ours
        # uvicorn has done it already.
        (("203.0.113.9", 0), ("1.1.1.1, 203.0.113.9",), LOOPBACK, "203.0.113.9"),
        (("203.0.113.9", 4711), ("1.1.1.1, 203.0.113.9:4711",), LOOPBACK, "203.0.113.9"),
        (("127.0.0.1", 5000), ("203.0.113.9:4711",), LOOPBACK, "203.0.113.9"),
        (("::1", 5000), ("[2001:DB8::1]:4711",), LOOPBACK, "2001:db8::1"),
        (("127.0.0.1", 5000), ("203.0.113.9, unknown",), LOOPBACK, "127.0.0.1"),
        (("127.0.0.1", 5000), ("x" * 9000,), LOOPBACK, "127.0.0.1"),
        (("127.0.0.1", 5000), ("",), LOOPBACK, "127.0.0.1"),
        (("192.0.2.1", 5000), ("1.1.1.1, 2.2.2.2",), "*", "1.1.1.1"),
        (("testclient", 5000), (), LOOPBACK, None),
        (None, ("203.0.113.9",), LOOPBACK, None),
    ],
)
def test_the_last_address_that_is_no_proxys(
    peer: tuple[str, int] | None, forwarded: tuple[str, ...], trusted: str, expected: str | None
) -> None:
    assert seen(peer, *forwarded, trusted=trusted) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "haproxy", "expected"),
    [
        (("127.0.0.1", 5000), (), "192.0.2.1", "192.0.2.1"),
        (("127.0.0.1", 5000), ("203.0.113.9",), PROXY, "203.0.113.9"),
        (("203.0.113.9", 0), ("203.0.113.9",), PROXY, "203.0.113.9"),  # uvicorn has done it
        (("127.0.0.1", 5000), ("203.0.113.9",), "192.0.2.1", "192.0.2.1"),
        (("127.0.0.1", 5000), (), "127.0.0.1", "127.0.0.1"),
        (("192.0.2.1", 5000), (), "1.1.1.1", "192.0.2.1"),  # past HAProxy, to the port of a replica
    ],
)
def test_behind_haproxy_of_serve(
    peer: tuple[str, int], forwarded: tuple[str, ...], haproxy: str, expected: str
) -> None:
    assert seen(peer, *forwarded, trusted=f"{LOOPBACK},{PROXY}", haproxy=haproxy) == expected


def test_without_haproxy_nobody_is_believed_to_be_it() -> None:
    scope: dict[str, Any] = {"client": ("127.0.0.1", 5000), "headers": [(b"x-argus-peer", b"1.1.1.1")]}
    assert client_address(scope, TrustedProxies(), haproxy=False) == "127.0.0.1"
