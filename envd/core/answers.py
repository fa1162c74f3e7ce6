"""What a node answers, whichever way the question came. `repr` never shows a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from envd.core.requests import Consistency
from envd.core.ring import PARTITIONS


@dataclass(frozen=True, slots=True)
class VariableView:
    """One variable as a caller may see it; `value` is None exactly where `masked`.

    `source` is the environment it comes from, where layers were resolved, else "".
    """

    value: str | None = field(repr=False)
    secret: bool
    masked: bool
    stamp: str
    region: str
    node: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """One environment as a caller may see it, with the level and lag bound of the read.

    Where layers were resolved, `bases` has the revision of each that it extends, the lowest
    first; its own `revision` says nothing of them. A watch or an export that resolves goes on
    where they can't be: `unresolved` says why, and the variables are its own alone.
    """

    environment: str
    revision: str
    stamp: str
    metadata: dict[str, str] = field(repr=False)
    variables: dict[str, VariableView]
    level: Consistency = Consistency.EVENTUAL
    lag_bound_ms: int = 0
    bases: dict[str, str] = field(default_factory=dict)
    unresolved: str = ""


@dataclass(frozen=True, slots=True)
class ExportedEnvironment:
    """One environment whole, its variables as columns in order of name.

    The i-th name and value belong together; `secret` has the places of the secret ones, whose
    values are "" where `masked`. `unresolved` says why its layers could not be read.
    """

    environment: str
    revision: str
    metadata: dict[str, str] = field(repr=False)
    names: Sequence[str]
    values: Sequence[str] = field(repr=False)
    secret: Sequence[int]
    masked: bool
    unresolved: str = ""


@dataclass(frozen=True, slots=True)
class ExportGap:
    """The last item of an export that is not whole, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """A durable commit. `token` makes later session reads see it.

    `revision` is "" where the write was made blind: none of the nodes that hold the environment
    could be reached, so nobody can tell yet.

    `acknowledged` counts the synced copies; `detached` says that the usual second one is
    still missing. `precondition` is "local" where `if_revision` was checked at the origin
    alone, as on plain environments, "exact" where a majority stands for it, as on serial ones,
    else "".
    """

    environment: str
    revision: str
    stamp: str
    token: str
    acknowledged: int = 1
    detached: bool = False
    precondition: str = ""


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One name that a commit touched: `kind` is set or unset; `metadata` tells its side."""

    variable: str
    kind: str
    metadata: bool = False


@dataclass(frozen=True, slots=True)
class SalvagedView:
    """A commit that was not applied: it came too late, or lost. What it wrote is a conflict."""

    stamp: str
    time: str
    node: str
    region: str
    actor: str
    changes: tuple[ChangeView, ...]


@dataclass(frozen=True, slots=True)
class CommitView:
    """One commit of a history, or one change event of a watch.

    `id` is the stamp and environment in one text; `time` is ISO 8601 in UTC; `deleted` tells
    that the commit deleted the environment; `resolves` are the ids of conflicts that it settled;
    `salvages` is what it put on record as lost.
    """

    id: str
    environment: str
    revision: str
    stamp: str
    time: str
    node: str
    region: str
    actor: str
    message: str
    changes: tuple[ChangeView, ...]
    deleted: bool = False
    resolves: tuple[str, ...] = ()
    salvages: SalvagedView | None = None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Commits newest first; `next` continues with `HistoryRequest.before`, "" at the end.

    `trimmed` says that older commits were folded into the base by retention.
    """

    environment: str
    commits: tuple[CommitView, ...]
    next: str = ""
    trimmed: bool = False


@dataclass(frozen=True, slots=True)
class ConflictSide:
    """One of the two writes of a conflict: `kind` is set or unset.

    `value` is None where it is masked, and where the write was an unset. `time` is when the node
    that took the write gave it its stamp. `actor` and `region` are "" where the history that told
    them was trimmed.
    """

    kind: str
    value: str | None = field(repr=False)
    secret: bool
    masked: bool
    stamp: str
    time: str
    actor: str
    node: str
    region: str


@dataclass(frozen=True, slots=True)
class ConflictView:
    """Two writes of one name, neither of which had seen the other: one is kept, one lost.

    `id` is equal on every node. `metadata` tells that `variable` is a setting.
    """

    id: str
    environment: str
    variable: str
    kept: ConflictSide
    lost: ConflictSide
    metadata: bool = False


@dataclass(frozen=True, slots=True)
class ConflictPage:
    """Conflicts in order of environment and name; `next` goes into `ConflictsRequest.after`.

    `partial` and `partial_reason` as in ListPage.
    """

    conflicts: tuple[ConflictView, ...]
    next: str = ""
    partial: bool = False
    partial_reason: str = ""


@dataclass(frozen=True, slots=True)
class ListedEnvironment:
    environment: str
    revision: str
    variables: int


@dataclass(frozen=True, slots=True)
class ListPage:
    """Environments in order of name; `next` continues with `ListRequest.after`, "" at the end.

    There may be less than the limit, or none, and `next` all the same. `partial` says that some
    partitions did not answer, and `partial_reason` which.
    """

    environments: tuple[ListedEnvironment, ...]
    next: str = ""
    partial: bool = False
    partial_reason: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened; `token` resumes from here.

    `partial` says that nobody follows some partitions of what is watched at the moment, and
    `partial_reason` which: once they are followed again, a reset and a snapshot tell of them.
    """

    token: str
    partial: bool = False
    partial_reason: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The node can't resume: forget what you hold; a snapshot follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotItem:
    """One environment that exists as the watch begins."""

    state: EnvironmentView


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is whole; changes follow. `token` resumes from here.

    It is not whole where it is `partial`; see Heartbeat.
    """

    token: str
    partial: bool = False
    partial_reason: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """A commit became visible. `state` is there where values were asked for, and None in it
    means that the environment no longer exists.

    Where layers are resolved, a commit to a base is told for each watched environment that
    extends it: `through` names the base, and `environment`, `revision` and `deleted` of
    `commit` are those of the environment that extends it. Else `through` is "".
    """

    commit: CommitView
    token: str
    state: EnvironmentView | None = None
    through: str = ""


WatchEvent = Heartbeat | Reset | SnapshotItem | SnapshotEnd | Changed


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: `name` goes into commits (`admin`, `uid:1000`), `via` tells how they proved it."""

    name: str
    via: str


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member of the cluster, as the node that answers sees it.

    `address`, `gossip` and `http` are HOST:PORT for gRPC, for datagrams and for HTTP, "" where
    that is not known. `state` is alive, suspect, down or left. `generation` counts the starts of
    that node, `release` is its envd version. `answering` tells that it is the node itself.
    """

    name: str
    uid: str
    address: str
    region: str
    zone: str
    role: str
    state: str
    generation: int
    gossip: str = ""
    http: str = ""
    release: str = ""
    answering: bool = False


@dataclass(frozen=True, slots=True)
class PeerView:
    """How the node that answers stands with one other storage node.

    `connected`: its own commits go there; else `problem` may say why not. `acknowledged` is the
    lsn of its log up to which the peer has synced its own commits, `handoff` how many are still
    to go there, and `lag_ms` the age of the oldest of those. `clock_offset_ms` is how far the
    peer's clock is ahead, None where that was not measured; `heard_ms` how long ago the peer last
    gave a sign, None for never; `phi` how implausible that silence is (1 is 10 %, 8 is 1e-8).
    """

    name: str
    uid: str
    address: str
    connected: bool
    acknowledged: int = 0
    handoff: int = 0
    lag_ms: int = 0
    clock_offset_ms: int | None = None
    heard_ms: int | None = None
    phi: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SeedView:
    """An address that the node was told to find its cluster at, and whether it answers."""

    address: str
    answers: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """The members in order of name, and how the node that answers stands with the others."""

    members: tuple[MemberView, ...]
    peers: tuple[PeerView, ...] = ()
    seeds: tuple[SeedView, ...] = ()


@dataclass(frozen=True, slots=True)
class VoterView:
    """One storage node of the topology, as the node that answers sees it.

    `votes` is yes, next (it is about to vote), or no. `state` is that of the member, "" where no
    member has this uid; `reachable` says that an answer can be expected now. `leaving`: it is
    about to go for good. `partitions` counts those that it holds once all moves are done; 0 where
    every node holds everything.
    """

    name: str
    uid: str
    region: str
    zone: str
    state: str
    votes: str
    reachable: bool
    leaving: bool = False
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class PlaceView:
    """Which nodes hold one partition, by their uids.

    `holders` are those that are read from, the preferred one first; none: every storage node.
    While the partition moves, `stage` tells how far that is (write_both, streaming, read_new,
    use_new), and `writers` all that get its writes.
    """

    partition: int
    holders: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    stage: str = ""


@dataclass(frozen=True, slots=True)
class TopologyView:
    """Who votes on serial environments, and who holds which partition.

    `epoch` counts the changes, 0: none is known yet. `majority`: enough of the voters for a
    majority can be reached from the node that answers. `copies` are how many there are to be of
    each partition, by region: "" is any, 0 every node; empty where every node holds everything.
    `moving` counts the moves that are under way by their stage, `waiting` those to come, and
    `left_seconds` is how long all will take, as the last ones went (None: nobody can tell).
    `under_replicated` counts partitions of which there are fewer copies now. `place` is that of
    the environment that was asked for. What was deleted before `floor_ms` (Unix time) may be
    forgotten, 0: nothing; it is kept for as long as a node is away.
    """

    epoch: int
    nodes: tuple[VoterView, ...]
    majority: bool
    copies: dict[str, int] = field(default_factory=dict)
    moving: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    under_replicated: int = 0
    left_seconds: int | None = None
    place: PlaceView | None = None
    floor_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """How the cluster does, as the node that answers sees it.

    `epoch` is that of its topology, `members` counts those that are alive or suspected. `handoff`
    counts commits that wait for a peer, `lag_ms` is the age of the oldest of them, `quarantined`
    are records from the future that are held back, and `detached` counts commits that are safe on
    this node alone as yet.
    """

    epoch: int = 0
    members: int = 1
    partitions: int = PARTITIONS
    under_replicated: int = 0
    handoff: int = 0
    lag_ms: int = 0
    quarantined: int = 0
    detached: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a node in figures, and who asked (`identity`, `authenticated_by`).

    What follows those is of the cluster; see ClusterFigures.
    """

    node: str
    node_uid: str
    cluster: str
    version: str
    generation: int
    environments: int
    storage_bytes: int
    uptime_seconds: int
    insecure: bool
    data_dir: str
    identity: str
    authenticated_by: str
    epoch: int = 0
    members: int = 1
    partitions: int = PARTITIONS
    under_replicated: int = 0
    handoff: int = 0
    lag_ms: int = 0
    quarantined: int = 0
    detached: int = 0
