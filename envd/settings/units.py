"""The values that settings are made of and TOML has no type for: addresses and durations.

Both are written as strings, both refuse what is ambiguous (`:7420`, `1.5s`) rather than
guess, and both print the way they are written. Their errors never quote the text, since it
may be a credential that was pasted into the wrong line.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

# RFC 1123 labels, with the underscore that Docker and DNS-SD use; 253 is the longest name.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_MAX_HOST_BYTES: Final = 253
_MAX_PORT: Final = 65_535

_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def check_host(host: str) -> str:
    """Return `host` if it is an IP address or a host name, else raise ValueError.

    A name whose last label is a number (`127.0.0.256`, `127.1`) is a mistyped address and
    refused, so nothing is left for a resolver to interpret.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if len(host) > _MAX_HOST_BYTES or not _HOST_NAME.fullmatch(host):
            raise ValueError("this is neither an IP address nor a host name") from None
        if host.rstrip(".").rsplit(".", 1)[-1].isdigit():
            raise ValueError("this is not a complete IP address") from None
    return host


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port: `127.0.0.1:7420`, `[::1]:7420`, `node-1.example.com:7420`.

    `host` carries no brackets. Port 0 stands for any free port.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        check_host(self.host)
        if not 0 <= self.port <= _MAX_PORT:
            raise ValueError(f"ports go from 0 to {_MAX_PORT}")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT; raise ValueError, saying what is missing, for anything else."""
        if text.startswith("["):
            host, bracket, port = text[1:].partition("]:")
            if not bracket:
                raise ValueError("after '[' comes an IPv6 address, then ']:' and the port")
            if ":" not in host:
                raise ValueError("only an IPv6 address goes in brackets")
        else:
            host, colon, port = text.rpartition(":")
            if not colon:
                raise ValueError("the port is missing")
            if ":" in host:
                raise ValueError("an IPv6 address goes in brackets: [::1]:7420")
        if not host:
            raise ValueError(
                "the host is missing: 127.0.0.1 is this machine only, 0.0.0.0 every interface"
            )
        if not (port.isascii() and port.isdigit() and len(port) <= 5):
            raise ValueError(f"the port is no number from 0 to {_MAX_PORT}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach the address.

        Of host names only `localhost` and names below it count (RFC 6761, section 6.3): what
        another name resolves to can change after this was asked.
        """
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            name = self.host.rstrip(".").lower()
            return name == "localhost" or name.endswith(".localhost")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time in whole milliseconds, written `200ms`, `1s`, `5m`, `3h` or `7d`."""

    ms: int

    def __post_init__(self) -> None:
        if self.ms < 0:
            raise ValueError("a duration is not negative")

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read a whole number and one unit; raise ValueError for anything else."""
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError("write a whole number and one of the units ms, s, m, h, d")
        return cls(int(match[1]) * _UNIT_MS[match[2]])

    @property
    def seconds(self) -> float:
        return self.ms / 1_000

    def __str__(self) -> str:
        """Return the shortest spelling that `parse` reads back: 60,000 ms is `1m`."""
        for unit in ("d", "h", "m", "s"):
            if self.ms and self.ms % _UNIT_MS[unit] == 0:
                return f"{self.ms // _UNIT_MS[unit]}{unit}"
        return f"{self.ms}ms"
