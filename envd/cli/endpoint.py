"""Which node a command talks to, and the way there.

In this order: `--server`, `--context`, `ENVD_ADDR`, the current context, and where none is
said, the node of this user on this machine: its Unix socket, else 127.0.0.1:7420 with the token
that the daemon left in its data directory. A context's token goes to that context's server
only, never to one that was named otherwise.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from envd.cli import contexts, remembered
from envd.cli.exits import Failed, UsageError
from envd.client.connection import Connection
from envd.client.discovery import DEFAULT_LISTEN, data_directory, may_have_token, token_in
from envd.core.errors import Unavailable

if TYPE_CHECKING:
    from envd.cli.grammar import Arguments

DEFAULT_TIMEOUT_S = 30.0
STORE_TIMEOUT_S = 600.0
"""Where the node asks stores outside, as fast as they allow, which may take minutes."""
_ASKING_STORES = frozenset({"sync", "backend"})
_PROBE_S = 3.0
_START = "start one with: envd   (to try it out: envctl dev)"


class Endpoint(NamedTuple):
    """Addresses that are tried in turn, and the credential for them.

    `token_file` is read if there is no token and the way is not a Unix socket; `mend` is what
    to do if nobody answers. `memory` is the file with further members of the cluster, "" where
    none are remembered for these addresses.
    """

    addresses: tuple[str, ...]
    token: str = ""
    token_file: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    mend: str = _START
    memory: str = ""

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"Endpoint({', '.join(self.addresses)})"


def chosen_context(
    arguments: Arguments, environ: Mapping[str, str]
) -> tuple[str, contexts.Context] | None:
    """The context that decides, None where the server is said otherwise or nowhere."""
    if arguments.text("--server"):
        return None
    wanted = arguments.text("--context")
    if not wanted and environ.get("ENVD_ADDR"):
        return None
    return contexts.load(environ).chosen(wanted)


def choose(arguments: Arguments, environ: Mapping[str, str]) -> Endpoint:
    """Decide where to go; raises UsageError for an address that is none."""
    _refuse_tls(arguments)
    timeout_ms = arguments.milliseconds("--timeout")
    timeout_s = _patience_s(arguments) if timeout_ms is None else timeout_ms / 1000
    token = _clean(arguments.text("--token") or environ.get("ENVD_TOKEN", ""))
    context = chosen_context(arguments, environ)
    if context and context[1].server:
        name, chosen = context
        found = addresses(chosen.server, f"the context {name}")
        return Endpoint(
            found,
            token or chosen.token,
            chosen.token_file,
            timeout_s,
            _mend_of_context(name),
            _memory(found, environ),
        )
    for origin, said in (
        ("--server", arguments.text("--server")),
        ("ENVD_ADDR", environ.get("ENVD_ADDR", "")),
    ):
        if said and not (origin == "ENVD_ADDR" and arguments.text("--context")):
            mend = f"{origin} names it; see that envd runs there, or name another"
            found = addresses(said, origin)
            return Endpoint(found, token, "", timeout_s, mend, _memory(found, environ))
    return _of_this_machine(environ, token, timeout_s)


def _patience_s(arguments: Arguments) -> float:
    asks = arguments.command in _ASKING_STORES or bool(arguments.text("--from"))
    return STORE_TIMEOUT_S if asks else DEFAULT_TIMEOUT_S


def _memory(found: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Members of a cluster are remembered for nodes that are reached over the network."""
    local = any(address.startswith("unix:") for address in found)
    return "" if local else remembered.file_of(environ)


def addresses(text: str, origin: str) -> tuple[str, ...]:
    """Read `HOST:PORT[,...]` or `unix:PATH`."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in found:
        if address.startswith("unix:"):
            good = len(address) > len("unix:") and address.isprintable()
        else:
            good = _is_host_and_port(address)
        if not good:
            raise UsageError(
                f"{address[:64]!a} in {origin} is no address of a node",
                hint="use HOST:PORT[,HOST:PORT...] or unix:PATH",
            )
    if not found:
        raise UsageError(f"{origin} names no node", hint="use HOST:PORT or unix:PATH")
    return found


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    good = host and host.isprintable() and not set(host) & set("/ @")
    return bool(good) and port.isdigit() and 0 < int(port) < 65536


def connect(endpoint: Endpoint) -> Connection:
    """Connect to the first address that answers; raises Unavailable where none does."""
    refusals: list[str] = []
    hosts: list[str] = []
    for address in endpoint.addresses:
        if not address.startswith("unix:"):
            hosts.append(address)
            continue
        from envd.client.unix import UnixConnection

        path = address.removeprefix("unix:")
        try:
            return UnixConnection(path, token=endpoint.token, timeout_s=endpoint.timeout_s)
        except Unavailable as error:
            refusals.append(f"{address} ({_reason(error.__cause__)})")
    answering = [host for host in hosts if _answers(host, endpoint.timeout_s, refusals)]
    if not answering and endpoint.memory:
        further = remembered.members(endpoint.memory, endpoint.addresses)
        hosts = [host for host in further if _is_host_and_port(host)]
        answering = [host for host in hosts if _answers(host, endpoint.timeout_s, refusals)]
    if not answering:
        raise Unavailable(
            f"no envd answers at {', nor at '.join(refusals)}",
            hint=endpoint.mend,
            reason="NO_DAEMON",
        )
    from envd.client.rpc import GrpcConnection

    token = endpoint.token
    if not token and all(map(may_have_token, answering)):
        token = token_in(endpoint.token_file)
    return GrpcConnection(tuple(answering), token=token, timeout_s=endpoint.timeout_s)


def _answers(address: str, timeout_s: float, refusals: list[str]) -> bool:
    """Knock first: the import of grpc takes longer than every other way to fail."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), min(timeout_s, _PROBE_S)).close()
    except OSError as error:
        refusals.append(f"{address} ({_reason(error)})")
        return False
    return True


def _reason(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not reachable"


def _of_this_machine(environ: Mapping[str, str], token: str, timeout_s: float) -> Endpoint:
    directory = data_directory(environ, is_root=os.geteuid() == 0)
    path = environ.get("ENVD_SOCKET", "").strip() or (directory and f"{directory}/envd.sock")
    found = (f"unix:{path}", DEFAULT_LISTEN) if path else (DEFAULT_LISTEN,)
    token_file = f"{directory}/admin.token" if directory else ""
    return Endpoint(found, token, token_file, timeout_s)


def _clean(token: str) -> str:
    if token and not (token.isascii() and token.isprintable()):
        raise UsageError("the token holds characters that no token has", hint="copy it again")
    return token


def _refuse_tls(arguments: Arguments) -> None:
    for flag in ("--ca", "--cert", "--key"):
        if arguments.text(flag):
            raise UsageError(
                f"{flag}: this version has no TLS",
                hint="use the Unix socket, or a loopback address through a tunnel (ssh -L)",
            )


def _mend_of_context(name: str) -> str:
    if name == "dev":
        return "start it again with: envctl dev   (or choose another: envctl context)"
    return f"the context {name} names it; choose another with: envctl context"


def require_home(environ: Mapping[str, str]) -> str:
    """`$XDG_STATE_HOME`, or what stands for it; raises Failed where there is no home."""
    state = contexts.home(environ, "XDG_STATE_HOME", ".local/state")
    if not state:
        raise Failed("neither XDG_STATE_HOME nor HOME is set", hint="name a directory: --data DIR")
    return state
