"""Where the node is, for a program that is not told: ENVD_ADDR, else the one of this machine.

The token is ENVD_TOKEN; for the node of this machine it is also what the daemon of this user
left in its data directory. Programs speak gRPC, so a Unix socket is no address for them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from envd.core.answers import MemberView
from envd.core.errors import InvalidRequest

DEFAULT_LISTEN: Final = "127.0.0.1:7420"
_LISTENING: Final = "0A"


def addresses_of(given: Sequence[str], environ: Mapping[str, str]) -> tuple[Sequence[str], bool]:
    """The addresses to use, and whether they were said by nobody.

    Each of `given` is HOST:PORT, or several with commas. Raises InvalidRequest for what is no
    address.
    """
    said = ",".join(given) if given else environ.get("ENVD_ADDR", "").strip()
    found = tuple(dict.fromkeys(part.strip() for part in said.split(",") if part.strip()))
    if not given:
        found = _without_sockets(found)
    for address in found:
        _check(address)
    if given and not found:
        raise InvalidRequest("there is no address to connect to", hint="name HOST:PORT")
    return found or (DEFAULT_LISTEN,), not found


def _without_sockets(said: Sequence[str]) -> tuple[str, ...]:
    """ENVD_ADDR without Unix sockets, which are for envctl; raises where nothing else is left."""
    left = tuple(address for address in said if not address.startswith("unix:"))
    if said and not left:
        raise InvalidRequest(
            "ENVD_ADDR names a Unix socket only: that is the way of envctl, programs use gRPC",
            hint="add the daemon's --listen to it, as in ENVD_ADDR=unix:PATH,127.0.0.1:7420, "
            'or say connect("127.0.0.1:7420")',
            reason="INVALID_ADDRESS",
        )
    return left


def _check(address: str) -> None:
    if address.startswith("unix:"):
        raise InvalidRequest(
            "a Unix socket is the way of envctl; programs reach envd over gRPC",
            hint="name HOST:PORT, as in the daemon's --listen (127.0.0.1:7420 by default)",
            reason="INVALID_ADDRESS",
        )
    host, _, port = address.rpartition(":")
    good = host and host.isprintable() and not set(host) & set("/ @")
    if not good or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidRequest(
            f"{address[:64]!a} is no address of a node",
            hint="use HOST:PORT, with IPv6 [::1]:7420",
            reason="INVALID_ADDRESS",
        )


def token_of_this_machine(environ: Mapping[str, str], *, is_root: bool) -> str:
    """What the daemon of this user left for its user, "" where there is none.

    It goes only to listeners that `may_have_token`; the offline snapshots are sealed by it
    while there is none, too.
    """
    directory = data_directory(environ, is_root=is_root)
    return token_in(f"{directory}/admin.token") if directory else ""


def data_directory(environ: Mapping[str, str], *, is_root: bool) -> str:
    """Where the daemon of this user keeps its data, "" where that is unknown."""
    named = environ.get("ENVD_DATA_DIR", "").strip()
    if named:
        return named
    if is_root:
        return "/var/lib/envd"
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if not state.startswith("/"):  # XDG: a relative path is to be ignored
        state = f"{home.rstrip('/')}/.local/state" if home.startswith("/") else ""
    return f"{state.rstrip('/')}/envd" if state else ""


def is_local(address: str) -> bool:
    """Whether HOST:PORT leads to whatever listens there on this very machine."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return found.is_loopback or found.is_unspecified


def usable_members(told: Sequence[MemberView], given: Collection[str]) -> list[MemberView]:
    """The members that are elsewhere known under the addresses that they tell of.

    One that tells a local address means its own machine. That is this one only where the node
    that answered was reached at the local address that it tells itself: else, behind a tunnel,
    another daemon of this machine would be taken for it.
    """
    here = any(each.answering and each.address in given for each in told)
    return [each for each in told if each.address and (here or not is_local(each.address))]


def may_have_token(address: str) -> bool:
    """A token from a file goes to loopback only where the listener is this user's or root's.

    While envd is down another user of the machine may listen on its port.
    """
    if not is_local(address):
        return True
    port = address.rpartition(":")[2]
    users = _listeners(int(port))
    return bool(users) and users <= {os.geteuid(), 0}


def _listeners(port: int) -> set[int]:
    """The users whose processes listen on a port of this machine (proc_net(5))."""
    users = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as opened:
                rows = [line.split() for line in opened][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port:
                users.add(int(row[7]))
    return users


def token_in(file: str) -> str:
    """The token in a file, "" where there is none that this user may read."""
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(4096).strip()
    except (OSError, ValueError):
        return ""
