"""History as a set of commits: what to keep, the state at a commit, and what was overruled.

Everything here is a function of the set of commits, never of the order in which they came,
so replicas that hold the same commits show the same history and the same conflicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp

DEFAULT_KEPT_COMMITS = 100
DEFAULT_KEPT_DAYS = 90
LEASES = "sys/leases"
"""Environments below it are written every few seconds, and only who holds one matters."""
SYNC = "sys/sync"
"""What the reconciler notes for itself, below it: with each change, and only the newest matters."""
_OWN_COMMITS = 16
_TOPOLOGY = "sys/topology"
"""Each of its commits may have the whole partition table, and a move of many has many."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep the newest `commits`, and all within `days` of the newest, whichever is more."""

    commits: int = DEFAULT_KEPT_COMMITS
    days: int = DEFAULT_KEPT_DAYS

    def of(self, environment: str) -> Retention:
        """What is kept of one environment: less of the system's own, the same on every node."""
        if environment.startswith((LEASES + "/", SYNC + "/")):
            return Retention(_OWN_COMMITS, 0)
        if environment == _TOPOLOGY:
            return Retention(self.commits, 0)
        return self

    def oldest_kept_ms(self, newest: Stamp) -> int:
        """Commits stamped at or after this unix time (ms) are kept however many there are."""
        return newest.time_ms - self.days * DAY_MS

    def split(self, commits: Sequence[Commit]) -> tuple[Sequence[Commit], Sequence[Commit]]:
        """Split stamp-ordered commits into (to fold into the base snapshot, to keep).

        Trimming twice, or before and after another commit came, gives the same set.
        """
        if len(commits) <= self.commits:
            return (), commits
        oldest_ms = self.oldest_kept_ms(commits[-1].stamp)
        cut = 0
        while cut < len(commits) - self.commits and commits[cut].stamp.time_ms < oldest_ms:
            cut += 1
        return commits[:cut], commits[cut:]


def state_at(base: Environment, commits: Iterable[Commit], stamp: Stamp) -> Environment:
    """The environment as it was at `stamp`: the base snapshot plus the commits up to it.

    The order of the commits does not matter.
    """
    state = base
    for commit in commits:
        if commit.stamp <= stamp:
            state = state.apply(commit)
    return state


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two writes of a conflict: who set (or with `value` None unset) what."""

    stamp: Stamp
    value: str | None
    secret: bool
    author: str = ""
    node: str = ""
    region: str = ""

    def __repr__(self) -> str:
        """Tell the stamp and the author, never the value."""
        return f"Side({self.stamp.hex()} by {self.author})"


@dataclass(frozen=True, slots=True)
class ConflictRecord:
    """A write (`lost`) that its direct successor (`kept`) replaced without having seen it."""

    environment: str
    kind: Kind
    name: str
    kept: Side
    lost: Side

    @property
    def place(self) -> tuple[Stamp, Kind, str]:
        """What was lost, whatever overruled it."""
        return self.lost.stamp, self.kind, self.name

    @property
    def id(self) -> str:
        """32 hexadecimal digits by which users name the conflict, equal on every node."""
        named = f"{self.environment}\0{int(self.kind)}\0{self.name}".encode()
        stamps = self.kept.stamp.to_bytes() + self.lost.stamp.to_bytes()
        return blake2b(named + stamps, digest_size=16, person=b"envd conflict id").hexdigest()

    def key(self, digest_key: bytes, residency_class: str = "") -> bytes:
        """58 bytes, equal on every node: partition, keyed hash of the names, both stamps.

        Keyed, so that outside the regions of a residency pin no name can be guessed from it.
        """
        named = f"{self.environment}\0{int(self.kind)}\0{self.name}".encode()
        hashed = blake2b(named, digest_size=16, key=digest_key, person=b"envd conflict")
        return (
            partition_of(self.environment, residency_class).to_bytes(2)
            + hashed.digest()
            + self.kept.stamp.to_bytes()
            + self.lost.stamp.to_bytes()
        )


@dataclass(frozen=True, slots=True)
class _Write:
    """Who replaced `seen_from`, or what came later, had seen it; None: the stamp of its side."""

    overwrites: Stamp
    side: Side
    seen_from: Stamp | None = None


def conflicts(commits: Sequence[Commit], base: Environment | None = None) -> list[ConflictRecord]:
    """All unresolved conflicts within stamp-ordered commits of one environment.

    In the history of a variable, l conflicts with its direct successor w exactly when
    `w.overwrites < l.stamp` and their contents differ. A deletion, and the first commit of an era,
    count as an unset of each variable that they drop; where they did not list one, they had not
    seen it. Who comes after the first commit of an era replaces the bottom of it then, not its
    stamp. What `base`, the snapshot that the commits follow, holds counts as written before those
    of a higher stamp, by whom is no longer known; it may be further than the oldest commits, where
    that of another node was merged in. So a conflict is listed as long as the history that shows
    it, or until a commit resolves it.

    What a commit salvages conflicts with what stands there then: where nothing does, with an unset
    at the salvaging commit. Of several that salvage the same one the first counts, and none where
    that one is in the history, and has lost there.

    What the reconciler notes below `sys/sync` has none: nobody could settle them.

    Example: node A sets X at stamp 5; node B, cut off, sets X to something else at stamp 6
    having seen only stamp 3. B's write is kept, and A's is on record as lost.
    """
    found: list[ConflictRecord] = []
    if commits and commits[0].environment.startswith(SYNC + "/"):
        return found
    salvaged: dict[tuple[Stamp, Kind, str], list[ConflictRecord]] = {}
    latest = _written_before(base)
    for commit in commits:
        for key, write in _writes(commit, latest):
            known = latest.get(key)
            if known is not None and known.side.stamp > write.side.stamp:
                continue
            if known is not None and _conflict(known, write):
                found.append(ConflictRecord(commit.environment, *key, write.side, known.side))
            latest[key] = write
        for record in _salvaged(commit, latest):
            salvaged.setdefault(record.place, []).append(record)
    resolved = {known for commit in commits for known in commit.resolves}
    if salvaged:
        for record in found:
            salvaged.pop(record.place, None)
    if resolved:
        found = [record for record in found if record.id not in resolved]
    for same in salvaged.values():
        if not any(record.id in resolved for record in same):
            found.append(same[0])
    return found


def contests(late: Commit, change: Change, state: Environment) -> bool:
    """Tell whether a commit that salvages this change of `late` makes a conflict of it.

    `state` is what stands there: of what that saw, or is equal to, nothing is lost.
    """
    entry = state.entries(change.kind).get(change.name)
    kept = None
    if entry is not None:
        kept = _Write(entry.overwrites, Side(entry.stamp, entry.value, entry.secret))
    return _overrules(_standing(kept, late, change), _Write(ZERO, _side(late, change)))


def _salvaged(commit: Commit, latest: dict[tuple[Kind, str], _Write]) -> Iterator[ConflictRecord]:
    """What `commit` salvages, as lost against what stands there."""
    late = commit.salvages
    if late is None:
        return
    for change in late.changes:
        key = (change.kind, change.name)
        lost = _Write(change.overwrites, _side(late, change))
        kept = _standing(latest.get(key), commit, change)
        if _overrules(kept, lost):
            yield ConflictRecord(commit.environment, *key, kept.side, lost.side)


def _standing(known: _Write | None, commit: Commit, change: Change) -> _Write:
    """What stands where `commit` salvages a change: where nothing does, an unset by itself."""
    if known is not None and known.side.value is not None:
        return known
    # Not the unset that is there: it may be collected, and the conflict must stay the same one.
    return _Write(ZERO, _side(commit, Change(change.kind, change.name, None, False, ZERO)))


def _overrules(kept: _Write, lost: _Write) -> bool:
    """Whether what stands replaced what is salvaged without having seen it."""
    saw_it = kept.overwrites >= lost.side.stamp and kept.side.stamp > lost.side.stamp
    return not saw_it and _differ(lost, kept)


def _written_before(base: Environment | None) -> dict[tuple[Kind, str], _Write]:
    if base is None:
        return {}
    return {
        (kind, name): _Write(entry.overwrites, Side(entry.stamp, entry.value, entry.secret))
        for kind in Kind
        for name, entry in base.entries(kind).items()
    }


def _conflict(lost: _Write, kept: _Write) -> bool:
    seen_from = lost.side.stamp if lost.seen_from is None else lost.seen_from
    return kept.overwrites < seen_from and _differ(lost, kept)


def _differ(one: _Write, other: _Write) -> bool:
    if one.side.value is None and other.side.value is None:
        return False
    return (one.side.value, one.side.secret) != (other.side.value, other.side.secret)


def _writes(
    commit: Commit, latest: dict[tuple[Kind, str], _Write]
) -> Iterator[tuple[tuple[Kind, str], _Write]]:
    """What `commit` wrote, a deletion's unlisted variables included."""
    listed = set()
    for change in commit.changes:
        key = (change.kind, change.name)
        listed.add(key)
        yield key, _Write(change.overwrites, _side(commit, change))
    floor = commit.floor
    if floor > ZERO:
        for key in sorted(latest.keys() - listed):
            side = latest[key].side
            if side.value is not None and side.stamp <= floor:
                unset = Change(*key, None, False, ZERO)
                yield key, _Write(ZERO, _side(commit, unset), floor)


def _side(commit: Commit, change: Change) -> Side:
    return Side(
        commit.stamp, change.value, change.secret, commit.author, commit.node, commit.region
    )
