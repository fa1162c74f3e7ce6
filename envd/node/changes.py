"""What a write means for the state it builds on: the changes that go into its commit."""

from __future__ import annotations

from collections.abc import Sequence

from envd.core.commit import Change, ChangeColumns, Kind
from envd.core.entries import Entry, EntryColumns, rows_of
from envd.core.environment import Environment
from envd.core.errors import Denied, NotFound
from envd.core.requests import Put, PutColumns, Seen, WriteRequest
from envd.core.stamp import ZERO, Stamp


def changes_of(
    environment: Environment, request: WriteRequest, may_reveal: bool
) -> Sequence[Change]:
    """The changes that a write means for the state it builds on."""
    changes = _meant(environment, request, may_reveal)
    return _as_seen(changes, request.seen) if request.seen else changes


def _as_seen(changes: Sequence[Change], seen: Sequence[Seen]) -> Sequence[Change]:
    """These changes, as of a writer that had seen no more than this of their variables."""
    known = {each.name: Stamp.from_hex(each.stamp) if each.stamp else ZERO for each in seen}
    return [
        change
        if change.kind
        else change._replace(
            overwrites=min(change.overwrites, known.get(change.name, change.overwrites))
        )
        for change in changes
    ]


def _meant(environment: Environment, request: WriteRequest, may_reveal: bool) -> Sequence[Change]:
    puts = request.puts
    simple = not request.unsets and not (request.replace and environment.variables)
    if type(puts) is PutColumns and simple:
        return _columns(environment, puts, may_reveal)
    changes = [_put(environment, put, may_reveal) for put in request.puts]
    for unset in request.unsets:
        entry = environment.entries(unset.kind).get(unset.name)
        if entry is None or entry.value is None:
            raise NotFound(
                f"{environment.name} has no {_kind_word(unset.kind)} {unset.name}; "
                "nothing was changed",
                hint=f"see what it has with: envctl get {environment.name}",
                reason="VARIABLE_NOT_FOUND",
            )
        changes.append(Change(unset.kind, unset.name, None, entry.secret, entry.stamp))
    if request.replace:
        put_names = {put.name for put in request.puts if put.kind is Kind.VARIABLE}
        changes += [
            Change(Kind.VARIABLE, name, None, entry.secret, entry.stamp)
            for name, entry in environment.live(Kind.VARIABLE)
            if name not in put_names
        ]
    return changes


def _columns(environment: Environment, puts: PutColumns, may_reveal: bool) -> ChangeColumns:
    """What `_put` says of each put, for all at once."""
    names, entries = puts.names, environment.variables
    if not entries:
        secrets, overwrites = bytearray(len(names)), [environment.deleted_at] * len(names)
    elif type(entries) is EntryColumns and entries.names == names:
        secrets, overwrites = bytearray(entries.secrets), list(entries.stamps)
    else:
        known = [rows_of(entries).get(name) for name in names]
        secrets = bytearray([entry is not None and entry.secret for entry in known])
        overwrites = [entry.stamp if entry else environment.deleted_at for entry in known]
    for at, secret in puts.secret.items():
        if secrets[at] and not secret and not may_reveal:
            raise _may_not_lower(names[at])
        secrets[at] = secret
    return ChangeColumns(names, puts.values, bytes(secrets), overwrites)


def _put(environment: Environment, put: Put, may_reveal: bool) -> Change:
    entry = environment.entries(put.kind).get(put.name)
    was_secret = entry is not None and entry.secret
    secret = was_secret if put.secret is None else put.secret
    if was_secret and not secret and not may_reveal:
        raise _may_not_lower(put.name)
    overwrites = environment.deleted_at if entry is None else entry.stamp
    return Change(put.kind, put.name, put.value, secret, overwrites)


def differences(
    current: Environment, target: Environment, variables: tuple[str, ...], may_reveal: bool
) -> list[Change]:
    """The changes that make the live content of `current` that of `target`."""
    if variables:
        known = current.variables.keys() | target.variables.keys()
        for name in variables:
            if name not in known:
                raise NotFound(
                    f"{current.name} has and had no variable {name}", reason="VARIABLE_NOT_FOUND"
                )
    wanted_names = frozenset(variables)
    changes: list[Change] = []
    for kind in Kind:
        before, after = dict(current.live(kind)), dict(target.live(kind))
        for name in sorted(before.keys() | after.keys()):
            if variables and (kind is Kind.METADATA or name not in wanted_names):
                continue
            wanted = after.get(name)
            if not _same_content(before.get(name), wanted):
                changes.append(restored(current, kind, name, wanted, may_reveal))
    return changes


def restated(current: Environment, changes: Sequence[Change]) -> Sequence[Change]:
    """These changes, and all that goes on as it is set once more: what begins an era says all."""
    touched = {(change.kind, change.name) for change in changes}
    again = [
        Change(kind, name, entry.value, entry.secret, entry.stamp)
        for kind in Kind
        for name, entry in current.live(kind)
        if (kind, name) not in touched
    ]
    return (*changes, *again)


def restored(
    current: Environment, kind: Kind, name: str, wanted: Entry | None, may_reveal: bool
) -> Change:
    """The change that gives a name its earlier content again, None for an unset.

    Raises Denied where that makes a secret plain, without the right to reveal.
    """
    overwrites = current.overwritten_by(kind, name)
    now = current.entries(kind).get(name)
    if wanted is None:
        return Change(kind, name, None, now is not None and now.secret, overwrites)
    if now is not None and now.secret and not wanted.secret and not may_reveal:
        raise _may_not_lower(name)
    return Change(kind, name, wanted.value, wanted.secret, overwrites)


def _same_content(left: Entry | None, right: Entry | None) -> bool:
    if left is None or right is None:
        return left is right
    return (left.value, left.secret) == (right.value, right.secret)


def _may_not_lower(name: str) -> Denied:
    return Denied(
        f"{name} is secret, and to make it plain takes the right to reveal; nothing was changed",
        reason="REVEAL_NEEDED",
    )


def _kind_word(kind: Kind) -> str:
    return "variable" if kind is Kind.VARIABLE else "setting"
