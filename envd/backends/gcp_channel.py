"""A channel in plain text to an address of this machine, such as an emulator or a test's server.

The SDK makes channels with TLS only. This module is the one of the backends that may import grpc,
for the one line that makes the other sort; it gets no credentials, and leaves this machine nowhere.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from envd.backends.errors import StoreUnsupported


def is_plain(endpoint: str) -> bool:
    """Whether an endpoint is one in plain text: `http://127.0.0.1:9090`."""
    return endpoint.startswith("http://")


def host_of(endpoint: str) -> str:
    """`HOST:PORT` of an endpoint. Raises StoreUnsupported for what is none, or where plain text
    would leave this machine."""
    parts = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise StoreUnsupported("the endpoint is no address such as https://HOST:PORT")
    if is_plain(endpoint) and not _is_here(parts.hostname):
        raise StoreUnsupported(
            "an endpoint in plain text has to be on this machine", hint="use https"
        )
    return parts.netloc


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def plain_channel(target: str) -> Any:
    """A channel to HOST:PORT, without TLS and without credentials."""
    import grpc

    return grpc.aio.insecure_channel(target)
