"""Taking an address for oneself, or a clear error that says why not and what to do.

No port is ever shared: `SO_REUSEADDR` only lets a restart have the address while connections
of the run before it time out; on Linux it does not let two listeners have it.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Final

from envd.core.errors import StartupError
from envd.settings.units import Address

_Info = tuple[socket.AddressFamily, str, int]
_WHY: Final = {
    errno.EADDRINUSE: "something listens there already",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "that takes rights this user does not have",
}


def bind(
    address: Address,
    what: str,
    flag: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> list[socket.socket]:
    """Bind every address that `address` stands for, all with one port; port 0 is any free one.

    Raises StartupError, with nothing left bound, where one of them can't be had. `what`
    listens there, `flag` the option or setting that moves it; both are for the message. A
    stream socket listens already.
    """
    with ExitStack() as undo:
        sockets: list[socket.socket] = []
        port = address.port
        infos = _resolve(address, what, flag, kind)
        for family, host, scope in infos:
            one = undo.enter_context(socket.socket(family, kind))
            one.setblocking(False)
            if kind is socket.SOCK_STREAM:  # Two datagram sockets could share a port by it.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6 and len(infos) > 1:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((host, port, 0, scope) if family is socket.AF_INET6 else (host, port))
                if kind is socket.SOCK_STREAM:
                    one.listen()
            except OSError as error:
                raise _refused(address, what, flag, kind, error) from error
            port = one.getsockname()[1]
            sockets.append(one)
        undo.pop_all()
    return sockets


def check_free(address: Address, what: str, flag: str) -> None:
    """Raise StartupError, as `bind` does, if the address can't be had now."""
    for one in bind(address, what, flag):
        one.close()


def _resolve(address: Address, what: str, flag: str, kind: socket.SocketKind) -> list[_Info]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartupError(
            f"{what} can't listen on {address}: the name does not resolve",
            hint=f"give an IP address: {flag} 127.0.0.1:{address.port}",
            reason="ADDRESS_UNUSABLE",
        ) from error
    infos: list[_Info] = []
    for family, _, _, _, place in found:
        scope = int(place[3]) if len(place) == 4 else 0
        info = (family, str(place[0]), scope)
        if info not in infos:
            infos.append(info)
    return infos


def _refused(
    address: Address, what: str, flag: str, kind: socket.SocketKind, error: OSError
) -> StartupError:
    number = error.errno or 0
    why = _WHY.get(number) or error.strerror or type(error).__name__
    place = f"address with {flag} HOST:PORT" if flag.startswith("-") else f"`{flag}`"
    other = f"or choose another {place}"
    protocol = "t" if kind is socket.SOCK_STREAM else "u"
    who = f"see who it is: ss -l{protocol}np 'sport = :{address.port}'"
    mends = {
        errno.EADDRINUSE: f"{who}; stop it, {other}",
        errno.EACCES: f"ports below 1024 take a privilege; {other.removeprefix('or ')}",
    }
    return StartupError(
        f"{what} can't listen on {address}: {why}",
        hint=mends.get(number, other.removeprefix("or ")),
        reason="ADDRESS_IN_USE" if number == errno.EADDRINUSE else "ADDRESS_UNUSABLE",
    )
