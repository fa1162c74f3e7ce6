"""Conflicts as callers see them, and how one is settled.

Two writes of one name conflict where neither had seen the other (`core.history`). The one with
the higher stamp is kept, on every node; the other one is lost, but it stays in the history, and
the conflict is listed until a commit settles it. That is one commit like any other: it may write
the lost side again, and it names the ids of all conflicts of that name, which are listed no more.

Names of the past stay secret: where a side is secret, or the name is by now, both sides are masked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from envd.core.answers import ConflictPage, ConflictSide, ConflictView
from envd.core.commit import Change, Kind
from envd.core.entries import Entry
from envd.core.environment import Environment
from envd.core.errors import Conflict, InvalidRequest, NotFound
from envd.core.history import ConflictRecord, Side
from envd.core.metadata import CREATED
from envd.core.names import (
    check_environment,
    check_metadata_name,
    check_prefix,
    check_variable,
)
from envd.core.requests import ConflictsRequest, ResolveRequest
from envd.core.stamp import STAMP_BYTES, ZERO
from envd.core.times import iso_time
from envd.node.changes import restored
from envd.node.checks import check_operation
from envd.node.views import NodeIdentity
from envd.ports import Store

KEPT = "kept"
LOST = "lost"
ID_DIGITS = 32
MIN_PREFIX = 4
MAX_CONFLICT_PAGE = 1_000
MAX_PAGE_CHARACTERS = 1 << 20
"""What the values of one page may come to, but for one conflict: most clients take 4 MiB."""

_PAGE = 256
_ID = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},{ID_DIGITS}}}")
_STAMP = re.compile(rf"[0-9a-f]{{{2 * STAMP_BYTES}}}")
_AFTER = re.compile(rf"([^#]+)(?:#([0-9a-f]{{{ID_DIGITS}}}))?")


# -- listing ---------------------------------------------------------------------------


def page(
    store: Store,
    node: NodeIdentity,
    request: ConflictsRequest,
    counts: Callable[[str], bool] = lambda _: True,
) -> ConflictPage:
    """A page of conflicts, in order of environment, kind and name; of those that `counts`.

    It ends early where values are large. Raises InvalidRequest, and NotFound for an environment
    of which nothing is known.
    """
    if request.limit < 0:
        raise InvalidRequest("a limit can't be negative")
    limit = min(request.limit or MAX_CONFLICT_PAGE, MAX_CONFLICT_PAGE)
    shown: list[ConflictView] = []
    characters = 0
    for record in _asked_for(store, request):
        if not counts(record.environment):
            continue
        characters += _characters(record)
        if shown and (len(shown) == limit or characters > MAX_PAGE_CHARACTERS):
            last = shown[-1]
            return ConflictPage(tuple(shown), f"{last.environment}#{last.id}")
        shown.append(_view(record, store, node, reveal=request.reveal))
    return ConflictPage(tuple(shown))


def _asked_for(store: Store, request: ConflictsRequest) -> Iterator[ConflictRecord]:
    """The conflicts of a request, from its `after` on."""
    after, seen = _after(request.after)
    if request.environment:
        name = check_environment(request.environment)
        if store.visible(name) is None:
            raise NotFound(
                f"there is no environment {name}",
                hint="see what there is with: envctl list",
                reason="ENVIRONMENT_NOT_FOUND",
            )
        yield from _following(of(store, name), seen)
        return
    prefix = check_prefix(request.prefix)
    if after:
        yield from _following(of(store, check_environment(after)), seen)
    while found := store.conflicts(prefix, after, _PAGE):
        yield from _ordered(found)
        after = found[-1].environment


def _after(token: str) -> tuple[str, str]:
    """The environment and the id of the last conflict seen; "" where there was none."""
    if not token:
        return "", ""
    found = _AFTER.fullmatch(token)
    if found is None:
        raise InvalidRequest(
            "the page token is none",
            hint="continue with `next` of the page before",
            reason="INVALID_TOKEN",
        )
    return found[1], found[2] or ""


def of(store: Store, environment: str) -> list[ConflictRecord]:
    """The conflicts of one environment, in order."""
    found = store.conflicts(environment, "", 1)
    return _ordered([record for record in found if record.environment == environment])


def _ordered(records: Sequence[ConflictRecord]) -> list[ConflictRecord]:
    """In order, without those of the time of creation: nobody wrote it, and nobody can."""
    return sorted(
        (each for each in records if (each.kind, each.name) != (Kind.METADATA, CREATED)),
        key=lambda each: (each.environment, each.kind, each.name, each.kept.stamp),
    )


def _following(records: list[ConflictRecord], seen: str) -> list[ConflictRecord]:
    """Those after the one with the id `seen`; all of them where it was settled meanwhile."""
    ids = [record.id for record in records]
    return records[ids.index(seen) + 1 :] if seen in ids else records


def _characters(conflict: ConflictRecord | ConflictView) -> int:
    return len(conflict.kept.value or "") + len(conflict.lost.value or "")


def shortened(found: Sequence[ConflictView], limit: int, *, more: bool) -> ConflictPage:
    """A page of the first of these, as `page` bounds it; `more`: there are others after them."""
    limit = min(limit or MAX_CONFLICT_PAGE, MAX_CONFLICT_PAGE)
    characters, count = 0, 0
    for view in found:
        characters += _characters(view)
        if count and (count == limit or characters > MAX_PAGE_CHARACTERS):
            more = True
            break
        count += 1
    last = found[count - 1] if count else None
    following = f"{last.environment}#{last.id}" if last is not None and more else ""
    return ConflictPage(tuple(found[:count]), following)


def _view(
    record: ConflictRecord, store: Store, node: NodeIdentity, *, reveal: bool
) -> ConflictView:
    secret = record.kept.secret or record.lost.secret or _is_secret_now(record, store)
    masked = secret and not reveal
    return ConflictView(
        record.id,
        record.environment,
        record.name,
        _side(record.kept, node, masked=masked),
        _side(record.lost, node, masked=masked),
        record.kind is Kind.METADATA,
    )


def _is_secret_now(record: ConflictRecord, store: Store) -> bool:
    state = store.visible(record.environment)
    entry = state.environment.entries(record.kind).get(record.name) if state else None
    return entry is not None and entry.secret


def _side(side: Side, node: NodeIdentity, *, masked: bool) -> ConflictSide:
    masked = masked and side.value is not None
    by, region = node.names_of(side.stamp.node_uid)
    return ConflictSide(
        kind="unset" if side.value is None else "set",
        value=None if masked else side.value,
        secret=side.secret,
        masked=masked,
        stamp=side.stamp.hex(),
        time=iso_time(side.stamp.time_ms),
        actor=side.author,
        node=side.node or by,
        region=side.region or region,
    )


# -- settling --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """What the commit that settles conflicts does: changes, if any, and which ids it settles."""

    changes: tuple[Change, ...]
    ids: tuple[str, ...]


def check_resolve(request: ResolveRequest) -> None:
    """Check the words of a request; raises InvalidRequest."""
    check_environment(request.environment)
    check_operation(request.message, request.operation)
    if request.kind is Kind.VARIABLE:
        check_variable(request.variable)
    else:
        check_metadata_name(request.variable)
    take = request.take
    if take not in {KEPT, LOST} and not _ID.fullmatch(take) and not _STAMP.fullmatch(take):
        raise InvalidRequest(
            f"{take[:64]!a} names no side of a conflict",
            hint=f"take the id of a conflict for what it lost, or {KEPT} to leave it as it is; "
            f"ids: envctl conflicts {request.environment}",
            reason="INVALID_SIDE",
        )


def settle(
    store: Store, current: Environment, request: ResolveRequest, *, may_reveal: bool
) -> Settled:
    """What settles the conflicts that `request` is about, in the state `current`.

    Raises NotFound where there are none or none is meant, Conflict where several may be, Denied
    where a secret would become plain without the right to reveal.
    """
    found = [
        record
        for record in of(store, request.environment)
        if (record.kind, record.name) == (request.kind, request.variable)
    ]
    if not found:
        raise NotFound(
            f"{request.environment} has no conflict of {_named(request)} that is not settled",
            hint=f"see which there are with: envctl conflicts {request.environment}",
            reason="CONFLICT_NOT_FOUND",
        )
    ids = tuple(sorted(record.id for record in found))
    side = _taken(found, request)
    known = current.entries(request.kind).get(request.variable)
    if side is None or _same(known, side):
        return Settled((), ids)
    wanted = None if side.value is None else Entry(side.stamp, ZERO, side.value, side.secret)
    change = restored(current, request.kind, request.variable, wanted, may_reveal)
    return Settled((change,), ids)


def _taken(found: Sequence[ConflictRecord], request: ResolveRequest) -> Side | None:
    """The side to write again, None where everything stays as it is."""
    take = request.take
    if take == KEPT:
        return None
    if _STAMP.fullmatch(take):
        sides = [side for record in found for side in (record.kept, record.lost)]
        matching = [side for side in sides if side.stamp.hex() == take]
    else:
        prefix = "" if take == LOST else take
        matching = [record.lost for record in found if record.id.startswith(prefix)]
        if len(matching) > 1:
            shown = ", ".join(record.id[:12] for record in found[:5])
            raise Conflict(
                f"{_named(request)} has {len(matching)} conflicts that this may mean; "
                "nothing was changed",
                hint=f"name one of them: {shown}",
                reason="AMBIGUOUS_CONFLICT",
            )
    if not matching:
        raise NotFound(
            f"none of the conflicts of {_named(request)} is {take[:12]}",
            hint=f"see which there are with: envctl conflicts {request.environment}",
            reason="CONFLICT_NOT_FOUND",
        )
    return matching[0]


def _same(entry: Entry | None, side: Side) -> bool:
    """Tell whether the side is what is in force: a value with its flag, or none."""
    if entry is None or entry.value is None:
        return side.value is None
    return (entry.value, entry.secret) == (side.value, side.secret)


def _named(request: ResolveRequest) -> str:
    return f"the setting {request.variable}" if request.kind else request.variable
