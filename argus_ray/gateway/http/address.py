"""The address of a client, as far as those before us can be believed.

Each proxy appends the address that it was asked from to X-Forwarded-For. So the list is read from its end: the first
address that is no trusted proxy's is the client's, and what stands before it is the client's own invention.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from argus_ray.gateway.http.prefix import TrustedProxies

_FORWARDED = b"x-forwarded-for"
#: HAProxy of Serve says here who has asked it (node/haproxy_start.py). It cannot append to X-Forwarded-For: uvicorn
#: would take the client for the peer, and nobody could look at the send queue of the connection any more.
PEER = b"x-argus-peer"


def client_address(scope: Scope, trusted: TrustedProxies, *, haproxy: bool) -> str | None:
    """None where nobody tells. `haproxy`: all requests come through the one of Serve."""
    host, port = scope.get("client") or ("", None)
    forwarded: list[str] = []
    peer = None
    for name, value in scope["headers"]:
        if name == _FORWARDED:
            forwarded += value.decode("latin-1").split(",")
        elif name == PEER and haproxy:
            peer = value.decode("latin-1")
    # Port 0: uvicorn has put an address that a trusted proxy forwards in the place of the proxy's own.
    if port != 0 and host not in trusted:
        return _plain(host)
    hops = [*forwarded, peer or ("" if port == 0 else host)]
    found = None
    for hop in reversed(hops):
        address = _plain(hop)
        if address is None and hop:
            break  # no address: what stands before it cannot be told from an invention
        found = address or found
        if address is not None and address not in trusted:
            break
    return found


@lru_cache(1024)
def _plain(text: str) -> str | None:
    """`1.2.3.4`, `1.2.3.4:5`, `::1` or `[::1]:5`, as an address in its one spelling."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text)) if len(text) <= 64 else None
    except ValueError:
        return None
