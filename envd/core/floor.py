"""Below the floor: what may be forgotten, and what comes too late.

The floor is a time (hlc) up to which a node holds every commit that any member of its cluster has
or ever will have. So nothing at or below it can come any more but from a member that was given up,
and tombstones there guard against nothing: they may go. What does come is a zombie: it is not
applied, and what it wrote goes on record as a conflict (`Commit.salvages`).

What is collected is a function of the commits at or below the floor alone, and collecting amounts
to trimming further. So it does not matter what came, was trimmed or was collected before: replicas
with the same commits and the same floor are equal once each has collected.

 1. Where an environment did not exist for more days than retention keeps, the commits up to there
    leave its history, as if they had been trimmed. This goes by time, not by stamps: a straggler,
    of an older era and made later by who did not know of the newer one, may be here or still come.
    It holds nothing back, and stays where commits with higher stamps leave.
 2. A tombstone in the base goes, and with it the entry that it made in the state. Not where a
    commit is retained, at or below the floor, that wrote this name before it (a peer's base may be
    further than the history here): that one would come back.
 3. So does `deleted_at`, which is a tombstone for all names, but only of era 0: of later eras it
    keeps out writes of earlier ones, whatever their time.

Example: X is unset at 5, and the commit that did it was trimmed. At floor 7 the tombstone goes. A
commit that sets X at 4 and comes afterwards is a zombie.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from typing import NamedTuple

from envd.core.commit import Commit, Kind
from envd.core.entries import Entry
from envd.core.environment import Environment
from envd.core.history import DAY_MS, Retention
from envd.core.stamp import COUNTER_BITS, MAX_HLC, ZERO, Stamp


class Tombstone(NamedTuple):
    """An entry that is collected."""

    kind: Kind
    name: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Removed:
    """What is taken out of the state of an environment; `deleted_at` is ZERO where that stays."""

    tombstones: tuple[Tombstone, ...] = ()
    deleted_at: Stamp = ZERO

    def __len__(self) -> int:
        """How many tombstones these are: `deleted_at` is one, for all names."""
        return len(self.tombstones) + (self.deleted_at != ZERO)

    def of(self, environment: Environment) -> Environment:
        """The environment without it; what was written since stays."""
        sides = {kind: dict(environment.entries(kind)) for kind in Kind}
        for kind, name, stamp in self.tombstones:
            known = sides[kind].get(name)
            if known is not None and known.value is None and known.stamp == stamp:
                del sides[kind][name]
        stays = self.deleted_at == ZERO or environment.deleted_at != self.deleted_at
        return Environment(
            environment.name,
            sides[Kind.VARIABLE],
            sides[Kind.METADATA],
            environment.deleted_at if stays else ZERO,
        )


@dataclass(frozen=True, slots=True)
class Collected:
    """What is left of an environment, and what went.

    `folded` are the stamps, in order, of the commits that leave the history; `removed` is what goes
    from the base and from the state. `due_hlc` is the lowest floor at which there may be more
    to collect, None where that takes another commit.
    """

    environment: Environment = field(repr=False)
    base: Environment = field(repr=False)
    folded: tuple[Stamp, ...]
    removed: Removed
    due_hlc: int | None

    @property
    def changes(self) -> bool:
        """Whether anything went."""
        return bool(self.folded) or bool(self.removed)


def is_empty(environment: Environment) -> bool:
    """Tell whether a state, or a base, says nothing at all."""
    return not environment.summary.names and environment.deleted_at == ZERO


def collected(
    environment: Environment,
    base: Environment,
    commits: Sequence[Commit],
    floor: int,
    retention: Retention,
) -> Collected:
    """What is left at `floor`, of a state that is `base` and the retained `commits` merged.

    These are in order of their stamps. All goes where state, base and history are empty after it.
    What has a value stays: the revision is the same, and so is that of every retained commit. So do
    conflicts but for those of commits that leave the history and of tombstones that go.

    Where commits leave that are above a straggler, what that shows is another state than before: it
    follows a base which is further than it, as it does where it comes only after they left.
    """
    stamps = [commit.stamp for commit in commits]
    return collected_of(environment, base, stamps, commits.__getitem__, floor, retention)


def collected_of(
    environment: Environment,
    base: Environment,
    stamps: Sequence[Stamp],
    commit_at: Callable[[int], Commit],
    floor: int,
    retention: Retention,
) -> Collected:
    """The same, reading only the commits that matter: `commit_at(n)` is that of the n-th stamp."""
    order = sorted(range(len(stamps)), key=lambda place: stamps[place].hlc)
    gaps = _gaps([stamps[place] for place in order], retention)
    ends = [count for count, due_hlc in gaps if due_hlc <= floor]
    count, before = _ended(base, map(commit_at, order), ends, floor)
    left = set(order[:count])
    retained = (
        commit_at(place)
        for place, stamp in enumerate(stamps)
        if place not in left and stamp.hlc <= floor and stamp <= before.summary.highest
    )
    removed, guarded = _removable(before, retained, floor)
    after = removed.of(before) if removed else before
    due = [stamp.hlc for stamp in tombstones_of(after) if stamp.hlc > floor]
    due += [floor + 1] if guarded else []
    due += [at for end, at in gaps if at > floor and (end < len(stamps) or not environment.exists)]
    return Collected(
        removed.of(environment) if removed else environment,
        after,
        tuple(stamps[place] for place in sorted(left)),
        removed,
        min(due, default=None),
    )


def _ended(
    base: Environment, commits: Iterator[Commit], ends: Sequence[int], floor: int
) -> tuple[int, Environment]:
    """How many commits go because an environment did not exist for long after; the base with them.

    These are in order of their times; `ends` are after how many the floor has passed such a time.
    """
    state, done, gone, best = base, 0, 0, base
    for end in ends:
        state = reduce(Environment.apply, islice(commits, end - done), state)
        done = end
        if not state.exists and state.summary.highest.hlc <= floor:
            gone, best = end, state
    return gone, best


def has_ended(
    environment: Environment, stamps: Sequence[Stamp], floor: int, retention: Retention
) -> bool:
    """Tell whether all the commits leave the history, without reading any."""
    if environment.exists or not stamps or environment.summary.highest.hlc > floor:
        return False
    return _passed(max(stamp.time_ms for stamp in stamps), retention) <= floor


def due_after(
    environment: Environment,
    base: Environment | None,
    stamps: Collection[Stamp],
    retention: Retention,
) -> int | None:
    """The floor at which there may be something to collect, after commits with these stamps came.

    `base` is the base where that changed. None: nothing more than before.
    """
    due = [] if base is None else [stamp.hlc for stamp in tombstones_of(base)]
    times_ms = [stamp.time_ms for stamp in stamps]
    highest_ms = environment.summary.highest.time_ms
    if not environment.exists:
        due.append(_passed(max([highest_ms, *times_ms]), retention))
    if times_ms and highest_ms - min(times_ms) > retention.days * DAY_MS:
        due.append(0)  # What came late may tell of an end long ago.
    return min(due, default=None)


def _passed(time_ms: int, retention: Retention) -> int:
    """The floor (hlc) from which on nobody can have missed what came in the days after a time."""
    return (time_ms + retention.days * DAY_MS + 1) << COUNTER_BITS


def _gaps(stamps: Sequence[Stamp], retention: Retention) -> list[tuple[int, int]]:
    """After how many commits there was none for more than the retention's days, and the floor from
    which on nobody can have missed one; the last is the end of the history.

    The stamps are in order of their times: all that come before a gap are below its floor.
    """
    kept_ms, found = retention.days * DAY_MS, []
    nexts = [*(stamp.time_ms for stamp in stamps[1:]), MAX_HLC]
    for count, (stamp, next_ms) in enumerate(zip(stamps, nexts, strict=False), 1):
        if stamp.time_ms + kept_ms < next_ms:
            found.append((count, _passed(stamp.time_ms, retention)))
    return found


def _removable(base: Environment, retained: Iterator[Commit], floor: int) -> tuple[Removed, bool]:
    """What goes from a base, and whether the history holds something back that else would."""
    found = {
        (kind, name): entry.stamp
        for kind in Kind
        for name, entry in base.entries(kind).items()
        if entry.value is None and entry.stamp.hlc <= floor
        if entry.stamp.era <= base.deleted_at.era
    }
    deleted_at = base.deleted_at
    if deleted_at.era or deleted_at.hlc > floor:
        deleted_at = ZERO
    guarded = False
    for commit in retained if found or deleted_at != ZERO else ():
        if commit.stamp <= deleted_at:
            deleted_at, guarded = ZERO, True
        for change in commit.changes:
            key = (change.kind, change.name)
            if key in found and commit.stamp <= found[key]:
                del found[key]
                guarded = True
    tombstones = tuple(Tombstone(*key, stamp) for key, stamp in sorted(found.items()))
    return Removed(tombstones, deleted_at), guarded


def tombstones_of(base: Environment) -> Iterator[Stamp]:
    """The stamps of what may be collected of a base, at some floor."""
    if base.deleted_at != ZERO and not base.deleted_at.era:
        yield base.deleted_at
    summary = base.summary
    for kind in Kind if summary.names > summary.live + summary.settings else ():
        for entry in base.entries(kind).values():
            if entry.value is None:
                yield entry.stamp


# -- what comes too late -----------------------------------------------------------------------


def is_zombie(commit: Commit, base: Environment, known: Collection[Stamp], floor: int) -> bool:
    """Tell whether a commit comes too late: nobody may apply it any more.

    `known` are the stamps of the history here (of those that matter, the commit's own is enough),
    `base` is what it starts from. What is at or below the floor and is neither of the history nor
    covered by the base came from a member that was given up. Where it is covered, it was trimmed;
    then it needs not be applied again, and must not be: what it was merged with may be collected.
    """
    if commit.stamp.hlc > floor or commit.stamp in known:
        return False
    return not covers(base, commit)


def covers(base: Environment, commit: Commit) -> bool:
    """Tell whether merging a commit into a base would change nothing, and tells nothing new."""
    if commit.salvages is not None or commit.floor > base.deleted_at:
        return False
    if commit.stamp <= base.deleted_at:
        return True
    for change in commit.changes:
        entry = base.entries(change.kind).get(change.name)
        if entry is None or entry.stamp < commit.stamp:
            return False
    return True


def guarded(
    base: Environment, own: Environment, known: Collection[Stamp], floor: int
) -> Environment:
    """A peer's base without what is at or below the floor and not here.

    `own` is the base here, `known` are the stamps of the history here. What is left can be merged
    into both the base and the state: of entries, tombstones and `deleted_at` at or below the floor
    those stay that a commit of the history here states; any other is either in `own` already, or
    was collected here, or is a zombie. The bottom of an era, which has no time of its own, stays
    where the history here, or an entry that stays, is of that era.
    """

    def stays(entry: Entry) -> bool:
        return entry.stamp.hlc > floor or entry.stamp in known

    variables, metadata = (
        {name: entry for name, entry in base.entries(kind).items() if stays(entry)}
        for kind in (Kind.VARIABLE, Kind.METADATA)
    )
    deleted_at = base.deleted_at
    if deleted_at.hlc:
        held = deleted_at.hlc > floor or deleted_at in known
    else:
        stamps = [entry.stamp for side in (variables, metadata) for entry in side.values()]
        held = any(stamp.era >= deleted_at.era for stamp in (*stamps, *known))
    return Environment(base.name, variables, metadata, deleted_at if held else own.deleted_at)


def salvaged(zombie: Commit) -> Commit | None:
    """What a commit that salvages a zombie has to carry; None where the zombie wrote nothing.

    Of one that itself salvaged another, it is that one.
    """
    if zombie.salvages is not None:
        return zombie.salvages
    return zombie if zombie.changes else None
