"""The prefix that a proxy before us has stripped from the path: what we say of our own paths has it again.

It is believed of whom uvicorn believes forwarded addresses: the peers that FORWARDED_ALLOW_IPS names.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.types import Scope

#: uvicorn's variable, and what holds without it.
VARIABLE = "FORWARDED_ALLOW_IPS"
LOOPBACK = "127.0.0.1,::1"
#: Plain segments. It becomes part of a header and of a page, so nothing that needs an escape is taken.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_LONGEST = 256
_HEADER = b"x-forwarded-prefix"


class TrustedProxies:
    """Addresses and networks, by commas; `*`: everybody. What is neither is nobody."""

    def __init__(self, text: str = LOOPBACK) -> None:
        names = [name.strip() for name in text.split(",")]
        self._all = "*" in names
        self._names = {name for name in names if name}
        self._networks = [network for name in names if (network := _network(name)) is not None]

    def __contains__(self, host: str) -> bool:
        if self._all or not host:
            return self._all
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self._names
        return any(address in network for network in self._networks)


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name)
    except ValueError:
        return None


def outer_prefix(scope: Scope, trusted: TrustedProxies) -> str:
    """What stands before our own paths in the client's eyes; empty, or `/a/b`."""
    root: str = scope.get("root_path", "").rstrip("/")
    given = _forwarded(scope, trusted)
    # One that was told to us by both ways is one.
    return root if root == given or root.startswith(f"{given}/") else given + root


def _forwarded(scope: Scope, trusted: TrustedProxies) -> str:
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if len(values) != 1 or len(values[0]) > _LONGEST or not _is_from_a_proxy(scope, trusted):
        return ""
    prefix = values[0].decode("latin-1").removesuffix("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


def _is_from_a_proxy(scope: Scope, trusted: TrustedProxies) -> bool:
    host, port = scope.get("client") or ("", None)
    # Port 0: the server has put the address that a trusted proxy forwards in the place of the proxy's own.
    return port == 0 or host in trusted
