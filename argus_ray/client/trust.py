"""Which servers are this machine's own, which certificates are trusted, and whether the environment names a proxy.

One place for both ways of sending a request, so that they cannot differ.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from argus_ray.client.errors import BadArgument

if TYPE_CHECKING:
    import ssl

#: Where the systems keep their certificates, for a Python whose OpenSSL was built for another system.
_BUNDLES = (
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
)


def base(url: str) -> tuple[str, bool]:
    """The URL without a slash at its end, and whether it is this machine's. Raises BadArgument."""
    problem = "the server's URL must look like http://head:8000 or https://argus.example.org"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadArgument(problem) from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise BadArgument(problem)
    if parts.username is not None or parts.password is not None:
        raise BadArgument("the server's URL must not have a user or a password in it")
    return url.rstrip("/"), is_loopback(host)


def is_loopback(host: str) -> bool:
    if host in ("localhost", "127.0.0.1") or host.endswith(".localhost"):
        return True
    if not host[:1].isdigit() and ":" not in host:
        return False  # a name, for which ipaddress need not be imported
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_have_proxy(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the machine names a proxy at all. For which servers, httpx2 finds out."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    if any(value and name.lower() in names for name, value in environ.items()):
        return True
    if sys.platform in ("darwin", "win32"):
        # There the system's settings count, too.
        from urllib.request import getproxies

        return bool(getproxies())
    return False


def of_file(ca_file: str) -> ssl.SSLContext:
    """These certificates in the place of the system's. Raises BadArgument."""
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadArgument(f"{ca_file}: not a file of certificates ({error.strerror or error})") from None


def of_system(*, trust_env: bool) -> ssl.SSLContext:
    """As httpx2 makes it, without its import. `trust_env`: SSL_CERT_FILE and SSL_CERT_DIR count. Raises BadArgument."""
    import ssl

    if trust_env and (named := os.environ.get("SSL_CERT_FILE")):
        return of_file(named)
    if trust_env and (folder := os.environ.get("SSL_CERT_DIR")):
        return ssl.create_default_context(capath=folder)
    if sys.platform in ("darwin", "win32"):
        import truststore

        made: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return made
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if Path(paths.openssl_cafile).is_file() else None
    folder = paths.openssl_capath if _has_hashes(paths.openssl_capath) else None
    if file is None and folder is None:
        file = next((each for each in _BUNDLES if Path(each).is_file()), None)
    if file or folder:
        context.load_verify_locations(file, folder)
    return context


def _has_hashes(folder: str) -> bool:
    """Whether OpenSSL finds certificates there."""
    import re

    try:
        with os.scandir(folder) as entries:
            return any(re.fullmatch(r"[0-9a-fA-F]{8}\.[0-9]", each.name) for each in entries)
    except OSError:
        return False
