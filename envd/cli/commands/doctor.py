"""`envctl doctor`: what is wrong with the node, this machine, and the way between them.

Each check answers ok, warn or fail, says what it saw, and what mends it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from envd import __version__
from envd.cli import contexts, exits
from envd.cli.commands import doctor_cluster, topology
from envd.cli.commands.doctor_cluster import Check
from envd.cli.grammar import Command
from envd.cli.invocation import Invocation
from envd.client.connection import Connection
from envd.core.answers import Status
from envd.core.errors import Denied, EnvdError, Unauthenticated, Unsupported
from envd.core.syncing import BindingsRequest

_LOW_DISK_BYTES = 1 << 30
_NO_DISK_BYTES = 64 << 20
_WELL = frozenset(("in step", "paused", "suspended", "waiting"))
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def _doctor(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    checks = [*_node_checks(invocation), *_machine_checks(invocation)]
    if invocation.shows_tables():
        for check in checks:
            _show(invocation, check)
    else:
        invocation.document({"checks": [check._asdict() for check in checks]})
    failed = any(check.status == "fail" for check in checks)
    return exits.FAILED if failed else exits.DONE


def _show(invocation: Invocation, check: Check) -> None:
    screen = invocation.screen
    screen.line(f"{check.status:<6}{check.name}: {check.detail}", _COLOURS[check.status])
    if check.mend:
        screen.line(f"      {check.mend}")


def _node_checks(invocation: Invocation) -> Iterator[Check]:
    try:
        connection = invocation.connection
    except EnvdError as error:
        yield Check("daemon", "fail", error.message, error.hint)
        return
    yield Check("daemon", "ok", f"answers at {connection.address}")
    try:
        status = connection.status()
    except (Unauthenticated, Denied) as error:
        mend = error.hint or "envctl login, or --token"
        yield Check("credential", "fail", error.message, mend)
        return
    except EnvdError as error:
        yield Check("status", "fail", error.message, error.hint)
        return
    yield Check("credential", "ok", f"{status.identity}, by {status.authenticated_by}")
    yield _version(status)
    yield _security(status)
    yield from _cluster_checks(connection, status, invocation.world.wall_ms())
    yield from _binding_checks(connection)
    if connection.address.startswith("unix:"):
        yield from _data_checks(Path(status.data_dir))


def _cluster_checks(connection: Connection, status: Status, now_ms: int) -> Iterator[Check]:
    try:
        membership = connection.members()
        voting = topology.known(connection)
    except Unsupported:
        return  # It is older than clusters are; the version tells.
    except EnvdError as error:
        yield Check("members", "fail", error.message, error.hint or "try again")
        return
    yield from doctor_cluster.checks(status, membership, voting, now_ms)


def _binding_checks(connection: Connection) -> Iterator[Check]:
    """Whether stores are in step, where there are any to be."""
    try:
        bindings = connection.sync.status(BindingsRequest()).bindings
    except Unsupported:
        return  # It keeps nothing in step, or is older than that.
    except EnvdError as error:
        yield Check("bindings", "fail", error.message, error.hint or "try again")
        return
    for each in bindings:
        if each.state not in _WELL:
            detail = f"{each.binding} is {each.state}" + (f": {each.detail}" if each.detail else "")
            yield Check("bindings", "warn", detail, each.hint or "envctl sync status")
    if bindings and all(each.state in _WELL for each in bindings):
        count = len(bindings)
        yield Check("bindings", "ok", f"{count} {'store is' if count == 1 else 'stores are'} well")


def _version(status: Status) -> Check:
    if status.version == __version__:
        return Check("version", "ok", f"{__version__} on both sides")
    return Check(
        "version",
        "warn",
        f"the node has {status.version}, envctl has {__version__}",
        "restart the daemon after an upgrade, or upgrade the older side",
    )


def _security(status: Status) -> Check:
    if not status.insecure:
        return Check("security", "ok", "the node checks credentials")
    return Check(
        "security",
        "warn",
        "the node is insecure: whoever reaches it may read and change everything",
        "start it without --insecure",
    )


def _data_checks(directory: Path) -> Iterator[Check]:
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        detail = f"{directory} can't be looked at: {error.strerror}"
        yield Check("data directory", "warn", detail, "run envctl doctor as the daemon's user")
        return
    if mode & 0o077:
        detail = f"{directory} is open to others (mode {mode:04o})"
        yield Check("data directory", "fail", detail, f"chmod 700 {directory}")
    else:
        yield Check("data directory", "ok", f"{directory} (mode {mode:04o})")
    yield from _token_check(directory / "admin.token")
    yield _disk(directory, free)


def _token_check(file: Path) -> Iterator[Check]:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # A joiner has none.
    if mode & 0o077:
        detail = f"{file} can be read by others (mode {mode:04o})"
        yield Check("admin token", "fail", detail, f"chmod 600 {file}, then change the token")
    else:
        yield Check("admin token", "ok", f"{file} (mode {mode:04o})")


def _disk(directory: Path, free: int) -> Check:
    detail = f"{free / (1 << 30):.1f} GiB free at {directory}"
    if free < _NO_DISK_BYTES:
        return Check("disk", "fail", detail, "make room: a full disk refuses every write")
    if free < _LOW_DISK_BYTES:
        return Check("disk", "warn", detail, "make room before it is full")
    return Check("disk", "ok", detail)


def _machine_checks(invocation: Invocation) -> Iterator[Check]:
    environ = invocation.world.environ
    file = contexts.path(environ)
    if file and Path(file).exists():
        if contexts.private(file):
            yield Check("contexts", "ok", f"{file} is readable by you alone")
        else:
            yield Check("contexts", "fail", f"{file} can be read by others", f"chmod 600 {file}")
    if "ENVD_TOKEN" in environ and os.geteuid() == 0:
        yield Check(
            "environment",
            "warn",
            "ENVD_TOKEN is set, and every program that root starts inherits it",
            "prefer envctl login",
        )


DOCTOR = Command(
    usage=("",),
    about="""
    Check whether the daemon answers, takes your credential and has envctl's version, whether
    its data directory and token are closed to others and its disk has room. Of a cluster it looks
    at who is down, whether enough voters can be reached, whether seeds answer and ports are open,
    how far the clocks are apart, what waits to be sent, what is held back, and for whom deletions
    are remembered; of bindings, whether their stores are in step. Each finding says what mends it.
    The exit code is 1 if a check fails.
    """,
    examples=(
        ("envctl doctor", "the node that is used here"),
        ("envctl doctor -o json | jq '.checks[] | select(.status != \"ok\")'", "for programs"),
    ),
    run=_doctor,
)
