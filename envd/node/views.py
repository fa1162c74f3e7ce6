"""Core states and commits as callers see them: masked, with names instead of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from envd.core.answers import (
    ChangeView,
    CommitView,
    EnvironmentView,
    ExportedEnvironment,
    SalvagedView,
    VariableView,
)
from envd.core.commit import Commit, Kind
from envd.core.entries import columns_of, rows_of
from envd.core.environment import Environment
from envd.core.errors import NotFound
from envd.core.requests import Consistency
from envd.core.stamp import Stamp
from envd.core.times import iso_time
from envd.ports import StoredState

TOKEN_VERSION = 1
_SESSION = re.compile(r"1\.([0-9a-f]{1,3})\.([0-9a-f]{16})\.([0-9a-f]{1,16})")
_WATCH = re.compile(r"1\.([0-9a-f]{16})\.([0-9a-f]{1,16})(?:\.([0-9a-f]{1,8}))?")
_SPREAD = re.compile(r"2\.([0-9a-f]{16})\.([0-9a-f]{16})\.([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is: its uid orders stamps, its name and region are shown to people."""

    uid: int
    name: str
    region: str

    def names_of(self, uid: int) -> tuple[str, str]:
        """The (name, region) to show for the node that gave a stamp."""
        return (self.name, self.region) if uid == self.uid else (f"{uid:016x}", "")


def environment_view(
    state: StoredState,
    node: NodeIdentity,
    *,
    reveal: bool,
    now: Environment | None = None,
    variables: Iterable[str] = (),
    level: Consistency = Consistency.EVENTUAL,
) -> EnvironmentView:
    """The live content of `state`, limited to `variables` where some are named.

    Secret values are None unless `reveal`; with an earlier state so are those of variables
    that are secret `now`, or the past would tell what was made secret since. Raises NotFound
    for a named variable that has no value.
    """
    environment = state.environment
    shown: dict[str, VariableView] = {}
    named = tuple(variables)
    rows = rows_of(environment.variables)
    stamps: dict[Stamp, tuple[str, str, str]] = {}
    for name in named or sorted(rows):
        entry = rows.get(name)
        if entry is None or entry.value is None:
            if named:
                raise _no_variable(environment.name, name)
            continue
        stamp, _, value, secret = entry
        if now is not None and not secret:
            latest = now.variables.get(name)
            secret = latest is not None and latest.secret
        origin = stamps.get(stamp)
        if origin is None:
            by, region = node.names_of(stamp.node_uid)
            origin = stamps[stamp] = (stamp.hex(), region, by)
        masked = secret and not reveal
        shown[name] = VariableView(None if masked else value, entry.secret, masked, *origin)
    return EnvironmentView(
        environment.name,
        state.revision.hex(),
        environment.highest_stamp.hex(),
        _settings(environment),
        shown,
        level,
    )


def exported_view(state: StoredState, *, reveal: bool) -> ExportedEnvironment:
    """The live content of `state` in columns; secret values are "" unless `reveal`."""
    environment = state.environment
    columns = columns_of(environment.variables)
    rows = zip(columns.names, columns.values_or_none, columns.secrets, strict=True)
    live = sorted([(name, value, flag) for name, value, flag in rows if value is not None])
    secret = [at for at, row in enumerate(live) if row[2]]
    values = [value for _, value, _ in live]
    if not reveal:
        for at in secret:
            values[at] = ""
    return ExportedEnvironment(
        environment.name,
        state.revision.hex(),
        _settings(environment),
        [name for name, _, _ in live],
        values,
        secret,
        masked=bool(secret) and not reveal,
    )


def exported_from(view: EnvironmentView) -> ExportedEnvironment:
    """A view, for example of layers, as `exported_view` has it."""
    variables = view.variables.values()
    return ExportedEnvironment(
        view.environment,
        view.revision,
        view.metadata,
        list(view.variables),
        [variable.value or "" for variable in variables],
        [at for at, variable in enumerate(variables) if variable.secret],
        any(variable.masked for variable in variables),
        view.unresolved,
    )


def _settings(environment: Environment) -> dict[str, str]:
    return {name: entry.value or "" for name, entry in sorted(environment.live(Kind.METADATA))}


def resolved_view(views: Sequence[EnvironmentView], variables: Iterable[str]) -> EnvironmentView:
    """The views of the layers, the lowest first, as one: the last one with what it extends.

    Raises NotFound for a named variable that no layer has.
    """
    top = views[-1]
    merged: dict[str, VariableView] = {}
    for view in views:
        for name, variable in view.variables.items():
            merged[name] = replace(variable, source=view.environment)
    named = tuple(variables)
    for name in named:
        if name not in merged:
            raise _no_variable(top.environment, name)
    shown = {name: merged[name] for name in named or sorted(merged)}
    bases = {view.environment: view.revision for view in views[:-1]}
    return replace(top, variables=shown, bases=bases)


def _no_variable(environment: str, name: str) -> NotFound:
    return NotFound(
        f"{environment} has no variable {name}",
        hint=f"see what it has with: envctl get {environment}",
        reason="VARIABLE_NOT_FOUND",
    )


def commit_view(commit: Commit) -> CommitView:
    """What a history or a watch tells of one commit."""
    return CommitView(
        id=f"{commit.environment}@{commit.stamp.hex()}",
        environment=commit.environment,
        revision=commit.revision.hex(),
        stamp=commit.stamp.hex(),
        time=iso_time(commit.time_ms),
        node=commit.node,
        region=commit.region,
        actor=commit.author,
        message=commit.message,
        changes=_change_views(commit),
        deleted=commit.deletes,
        resolves=commit.resolves,
        salvages=None if commit.salvages is None else _salvaged_view(commit.salvages),
    )


def _salvaged_view(late: Commit) -> SalvagedView:
    return SalvagedView(
        stamp=late.stamp.hex(),
        time=iso_time(late.time_ms),
        node=late.node,
        region=late.region,
        actor=late.author,
        changes=_change_views(late),
    )


def _change_views(commit: Commit) -> tuple[ChangeView, ...]:
    return tuple(
        ChangeView(
            change.name,
            "unset" if change.value is None else "set",
            change.kind is Kind.METADATA,
        )
        for change in commit.changes
    )


def session_token(partition: int, origin: int, seq: int) -> str:
    """The write `(partition, origin, seq)`, which means the same on every node."""
    return f"{TOKEN_VERSION}.{partition:x}.{origin:016x}.{seq:x}"


def read_session_token(token: str) -> tuple[int, int, int] | None:
    """The (partition, origin, seq) of a session token, None if it is none."""
    found = _SESSION.fullmatch(token)
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None


def watch_token(node_uid: int, lsn: int, commit: Commit | None = None) -> str:
    """A point in the order in which one node took commits in; `commit` is the one at that point.

    It is marked, for a log whose tail was lost numbers other commits as it numbered those.
    """
    point = f"{TOKEN_VERSION}.{node_uid:016x}.{lsn:x}"
    return point if commit is None else f"{point}.{watch_mark(commit):x}"


def watch_mark(commit: Commit) -> int:
    """32 bits that tell a commit from another one at its place in the log."""
    return crc32(commit.stamp.to_bytes())


def read_watch_token(token: str) -> tuple[int, int, int | None] | None:
    """The (node uid, lsn, mark if there is one) of a watch token, None if it is none."""
    found = _WATCH.fullmatch(token)
    if found is None:
        return None
    return int(found[1], 16), int(found[2], 16), int(found[3], 16) if found[3] else None


def spread_token(node_uid: int, start: bytes, place: int) -> str:
    """A point in the order in which one node was told by others, since a `start` of its own."""
    return f"2.{node_uid:016x}.{start.hex()}.{place:x}"


def read_spread_token(token: str) -> tuple[int, bytes, int] | None:
    """The (node uid, start, place) of such a token, None if it is none."""
    found = _SPREAD.fullmatch(token)
    if found is None:
        return None
    return int(found[1], 16), bytes.fromhex(found[2]), int(found[3], 16)
