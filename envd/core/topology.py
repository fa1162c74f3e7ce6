"""Who votes: the agreed, numbered topology of a cluster, and how it changes.

The topology is the value of one serial environment, `sys/topology`, so every change of it follows
the one before, is replicated, explained by its history, and known to all nodes. Its own acceptors
are the voters that it names as it stands: the next change is decided by these (reconfiguration with
a window of one, Lamport, Malkhi and Zhou 2010, "Reconfiguring a State Machine").

For all other serial environments the voters of the present epoch are the acceptors. They go
over from some to others in two steps, each an epoch: first both groups must agree to everything
(`joining` is the new one); once a majority of the new ones holds what a majority of the old ones
accepted and logged before, the new ones are the voters. An acceptor answers for its own epoch only,
so what an older group decides is decided before, or not at all.

One voter below three storage nodes, then three, then five, in zones of their own where there are
enough: with two, losing either would stop everything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from envd.core import partitions
from envd.core.environment import Environment
from envd.core.errors import Corrupt
from envd.core.partitions import PartitionTable
from envd.core.paxos import Quorum
from envd.core.placement import Site
from envd.core.sealing import NO_FLOOR, Floor, Sealing

TOPOLOGY: Final = "sys/topology"
VARIABLE: Final = "TOPOLOGY"
TABLE: Final = "PARTITIONS"
MOST_VOTERS: Final = 5
RECOVERED_EPOCHS: Final = 1_000_000
_UID_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Topology:
    """One epoch: the storage nodes in order of uid, those that vote, those that are to vote next.

    `leaving` are about to go for good and must not vote any more. Without a `table` every node
    holds everything; it is a variable of its own, because it seldom changes and is large. Up to the
    `floor` may be forgotten, and `sealing` is to make it a higher one. Raises ValueError where a
    voter is no node, or nobody votes.
    """

    epoch: int
    nodes: tuple[Site, ...]
    voters: tuple[int, ...]
    joining: tuple[int, ...] = ()
    leaving: tuple[int, ...] = ()
    table: PartitionTable | None = None
    floor: Floor = NO_FLOOR
    sealing: Sealing | None = None

    def __post_init__(self) -> None:
        known = {site.uid for site in self.nodes}
        if not self.voters or not known.issuperset((*self.voters, *self.joining)):
            raise ValueError("the voters of a topology are some of its nodes")

    @property
    def quorum(self) -> Quorum:
        """Whose consent a change of a serial environment takes."""
        groups = (self.voters, self.joining) if self.joining else (self.voters,)
        return Quorum(tuple(map(frozenset, groups)))

    @property
    def own_quorum(self) -> Quorum:
        """Whose consent the next topology takes."""
        return Quorum((frozenset(self.voters),))

    def encode(self) -> str:
        """The value of the variable VARIABLE, all but the table: JSON, fields are only added."""
        nodes = [
            {"uid": _hex(site.uid), "zone": site.zone, "region": site.region} for site in self.nodes
        ]
        fields: dict[str, Any] = {
            "epoch": self.epoch,
            "nodes": nodes,
            "voters": [_hex(uid) for uid in self.voters],
            "joining": [_hex(uid) for uid in self.joining],
            "leaving": [_hex(uid) for uid in self.leaving],
        }
        if self.floor != NO_FLOOR:
            fields["floor"] = self.floor
        if self.sealing is not None:
            fields["sealing"] = self.sealing
        return json.dumps(fields, separators=(",", ":"))

    # -- how it changes ----------------------------------------------------------------

    def with_nodes(self, nodes: Iterable[Site]) -> Topology:
        """The next epoch, with other nodes; who votes stays one in any case.

        Where one came, nothing is sealed: what that one has the others did not gather.
        """
        known = {site.uid: site for site in self.nodes}
        kept = {uid: site for uid, site in known.items() if uid in self.quorum.members}
        merged = kept | {site.uid: site for site in nodes}
        return replace(
            self,
            epoch=self.epoch + 1,
            nodes=tuple(merged[uid] for uid in sorted(merged)),
            leaving=tuple(uid for uid in self.leaving if uid in merged),
            table=self.table and self.table.without(self.table.uids() - merged.keys()),
            sealing=self.sealing if merged.keys() <= known.keys() else None,
        )

    def with_leaving(self, uid: int, *, leaves: bool) -> Topology:
        """The next epoch, in which a node is about to go for good, or is not any more."""
        others = {each for each in self.leaving if each != uid}
        marked = others | {uid} if leaves else others
        return replace(self, epoch=self.epoch + 1, leaving=tuple(sorted(marked)))

    def with_table(self, table: PartitionTable) -> Topology:
        """The next epoch, in which partitions are elsewhere, or further on their way.

        While some are, nothing is sealed: what a node has may go to another that was asked before.
        """
        sealing = None if table.moves else self.sealing
        return replace(self, epoch=self.epoch + 1, table=table, sealing=sealing)

    def seal(self, hlc: int) -> Topology:
        """The next epoch, in which all commits up to a time are to be gathered."""
        return replace(
            self, epoch=self.epoch + 1, sealing=Sealing(hlc, self.epoch + 1, gathering=False)
        )

    def gather(self) -> Topology:
        """The next epoch, in which nobody stamps anything up to there any more."""
        assert self.sealing is not None
        return replace(self, epoch=self.epoch + 1, sealing=self.sealing._replace(gathering=True))

    def raise_floor(self) -> Topology:
        """The next epoch, in which each node has what was to be gathered."""
        assert self.sealing is not None
        floor = Floor(self.sealing.hlc, self.sealing.round)
        return replace(self, epoch=self.epoch + 1, floor=floor, sealing=None)

    def begin(self, voters: Sequence[int]) -> Topology:
        """The next epoch, in which these are to vote next."""
        return replace(self, epoch=self.epoch + 1, joining=tuple(voters))

    def finish(self) -> Topology:
        """The next epoch, in which those that joined vote."""
        return replace(self, epoch=self.epoch + 1, voters=self.joining, joining=())

    def abandon(self) -> Topology:
        """The next epoch, in which all stays with those that vote."""
        return replace(self, epoch=self.epoch + 1, joining=())

    def recovered(self, site: Site) -> Topology:
        """The topology that one node makes up when the voters are lost: it votes alone.

        Its epoch is one that they can't have reached meanwhile. Where not every node holds
        everything, those that hold something stay; else whoever is there comes back by itself.
        """
        kept = () if self.table is None else self.nodes
        nodes = {each.uid: each for each in (*kept, site)}
        return Topology(
            self.epoch + RECOVERED_EPOCHS,
            tuple(nodes[uid] for uid in sorted(nodes)),
            (site.uid,),
            table=self.table,
            floor=self.floor,
        )


def founded(site: Site) -> Topology:
    """The first topology of a cluster: one node, which votes."""
    return Topology(1, (site,), (site.uid,))


def decode(text: str) -> Topology:
    """The inverse of `Topology.encode`; raises Corrupt."""
    try:
        fields: dict[str, Any] = json.loads(text)
        nodes = tuple(
            Site(int(site["uid"], 16), str(site["zone"]), str(site["region"]))
            for site in fields["nodes"]
        )
        voters, joining, leaving = (
            tuple(int(uid, 16) for uid in fields[name]) for name in ("voters", "joining", "leaving")
        )
        floor = Floor(*map(int, fields.get("floor", NO_FLOOR)))
        sealing = fields.get("sealing")
        return Topology(
            int(fields["epoch"]),
            nodes,
            voters,
            joining,
            leaving,
            floor=floor,
            sealing=None if sealing is None else _sealing(*sealing),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise Corrupt("the topology of the cluster does not decode") from None


def _sealing(hlc: Any, began: Any, gathering: Any) -> Sealing:
    return Sealing(int(hlc), int(began), gathering=bool(gathering))


def topology_in(environment: Environment) -> Topology | None:
    """The topology that the environment TOPOLOGY holds, None for none; raises Corrupt."""
    entry = environment.variables.get(VARIABLE)
    if entry is None or entry.value is None:
        return None
    rows = environment.variables.get(TABLE)
    table = None if rows is None or rows.value is None else partitions.decode(rows.value)
    return replace(decode(entry.value), table=table)


def to_strike(topology: Topology, gone: Collection[int]) -> frozenset[int]:
    """Which nodes that are gone for good may be struck in the next epoch; voters may not.

    Where there is a partition table, one at a time: of the deciders of a partition two majorities
    have a node in common if they differ by one, and need not if they differ by two.
    """
    known = [site.uid for site in topology.nodes if site.uid in gone]
    free = [uid for uid in known if uid not in topology.quorum.members]
    return frozenset(free if topology.table is None else free[:1])


def wanted_voters(
    topology: Topology,
    able: Collection[int],
    lost: Collection[int] = (),
    gone: Collection[int] = (),
) -> tuple[int, ...]:
    """Who should vote: those that do, as far as they stay, and others to make up the number.

    `able` are nodes that can be reached now, `lost` those that can't for long or for good. A voter
    that is away for a while only stays one; so does a lost one, where nobody can take its place.
    Nobody is added who makes their number even: no more of them could be lost. Who is about to vote
    goes on with it. Those that are `gone` do not come back: they count no more, and fewer may vote.
    Empty where only nodes that leave are there.

    Example: of three voters one is lost; with a fourth node, that takes its place, else nothing
    changes.
    """
    out = {*topology.leaving, *gone}
    sites = {site.uid: site for site in topology.nodes if site.uid not in out}
    size = _voters_for(len(sites))
    voting = [uid for uid in topology.voters if uid in sites]
    first = sorted(voting, key=lambda uid: (uid not in able, uid in lost))
    chosen = [uid for uid in first if uid in able or uid not in lost][:size]
    spare = {uid for uid in sites if uid in able and uid not in voting}
    while len(chosen) < size and spare:
        taken = [_place(sites[uid]) for uid in chosen]
        best = min(
            spare,
            key=lambda uid: (uid not in topology.joining, taken.count(_place(sites[uid])), uid),
        )
        spare.remove(best)
        chosen.append(best)
    for uid in first:
        if uid not in chosen and len(chosen) < min(size, len(voting)):
            chosen.append(uid)
    new = [uid for uid in chosen if uid not in voting]
    if new and len(chosen) % 2 == 0:
        chosen.remove(new[-1])
    return tuple(sorted(chosen))


def _place(site: Site) -> tuple[str, str]:
    return (site.region, site.zone)


def _voters_for(nodes: int) -> int:
    """How many vote. Example: 1 of 2 nodes, 3 of 3 and 4, 5 of 5 and more."""
    return 1 if nodes < 3 else min(MOST_VOTERS, nodes - 1 + nodes % 2)


def _hex(uid: int) -> str:
    return f"{uid:0{_UID_DIGITS}x}"
