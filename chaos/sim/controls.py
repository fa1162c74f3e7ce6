"""Negative controls: each switches off one rule, and the simulator must find what breaks.

A control wraps the ports of the nodes, changes their disks, or what a checker calls; production
code is never changed. `python -m chaos.sim --control NAME --seeds 200` shows that it is caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, cast

from chaos.sim.checkers.merge_laws import Merge
from chaos.sim.floor_controls import judge_nothing, raise_at_once
from chaos.sim.moving_controls import PulledInWords, TakenForGranted
from chaos.sim.nodes import Amend, Sabotage
from chaos.sim.sabotage import Answering, Channel, over_dialed
from envd.core.chain import MODE, is_serial
from envd.core.commit import LogRecord
from envd.core.entries import Entry
from envd.core.environment import Environment
from envd.core.history import ConflictRecord
from envd.core.paxos import Acceptor
from envd.core.stamp import Stamp
from envd.core.topology import TOPOLOGY
from envd.node import session_reads
from envd.node.node import Node
from envd.node.world import NodePorts
from envd.ports import (
    Applied,
    Logged,
    PeerChannel,
    Registers,
    Store,
    StoredState,
)
from envd.wire import peers as wire
from envd.wire import records
from envd.wire._pb import environment_pb2 as pb

_LOST_VOTES: Final = 3
"""One in so many: the moment between an answer and its sync is short, and seldom hit by a crash."""
_SOME: Final = 23
"""One in so many is spoilt: seldom enough that everything else goes on."""


def _sound(ports: NodePorts) -> NodePorts:
    return ports


def _as_it_is(_: Node) -> None:
    return


@dataclass(frozen=True)
class Control:
    """One rule switched off. `lying_disk`: a sync is answered a second before it is done.

    With `copies` it is about clusters of so many copies of each partition. It may take `faults`
    of these kinds for so many virtual `minutes` at least to see what it does. Where it `forgets`,
    it is about clusters whose floor is raised. `amend` changes a part of a node, where no port will
    do.
    """

    name: str
    what: str
    sabotage: Sabotage = _sound
    merge: Merge = Environment.merge
    lying_disk: bool = False
    copies: int = 0
    faults: tuple[str, ...] = ()
    minutes: float = 0.0
    forgets: bool = False
    amend: Amend = _as_it_is


SOUND: Final = Control("sound", "nothing is switched off")


# -- stores ----------------------------------------------------------------------------------


class _Wrapped:
    """A store that is another one, but for what a subclass says."""

    def __init__(self, store: Store) -> None:
        self.inner = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Unbounded(_Wrapped):
    def highest_hlc(self) -> int:
        return 0


class _Partial(_Wrapped):
    """Counts a foreign record as held, and leaves out what it says."""

    def append(self, record: LogRecord, after: StoredState, encoded: bytes = b"") -> Logged:
        if not encoded or record.seq % _SOME:
            return self.inner.append(record, after, encoded)
        empty = replace(record, commit=replace(record.commit, changes=()))
        head = self.inner.head(record.commit.environment)
        return self.inner.append(empty, head or after, records.encode_commit(empty.commit))


class _Forgetful(_Wrapped):
    """Keeps no conflict that another node's write has won."""

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        node = self.inner.__dict__["_node_uid"]
        found = self.inner.conflicts(prefix, after, limit)
        return [one for one in found if one.kept.stamp.node_uid == node]


def _store(kind: type[_Wrapped]) -> Sabotage:
    return lambda ports: replace(ports, store=cast(Store, kind(ports.store)))


class _Plain(_Wrapped):
    """Now and then hides from who writes that an environment is serial."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._numbers = count(1)

    def head(self, name: str) -> StoredState | None:
        state: StoredState | None = self.inner.head(name)
        if state is None or not is_serial(state.environment) or next(self._numbers) % _SOME:
            return state
        known = state.environment
        metadata = {key: entry for key, entry in known.metadata.items() if key != MODE}
        hidden = Environment(known.name, known.variables, metadata, known.deleted_at)
        return StoredState(hidden, state.revision)


class _Stale(_Wrapped):
    """Knows the topology as it was when the node first heard of one, and counts in that epoch."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._first: StoredState | None = None

    def visible(self, name: str) -> StoredState | None:
        return self._old(name, self.inner.visible(name))

    def head(self, name: str) -> StoredState | None:
        return self._old(name, self.inner.head(name))

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        def hear(applied: Applied) -> None:
            name = applied.record.commit.environment
            listener(replace(applied, after=self._old(name, applied.after) or applied.after))

        self.inner.subscribe(hear)

    def _old(self, name: str, state: StoredState | None) -> StoredState | None:
        if name != TOPOLOGY:
            return state
        self._first = self._first or state
        return self._first


class _Promising:
    """Registers that answer before they write; some of what they answered for is lost with power.

    That is told here by itself, without a crash: what was not synced is simply not there.
    """

    def __init__(self, inner: Registers) -> None:
        self._inner = inner
        self._numbers = count(1)

    def get(self, register: str) -> Acceptor:
        return self._inner.get(register)

    def save(self, register: str, acceptor: Acceptor) -> Awaitable[None]:
        if next(self._numbers) % _LOST_VOTES:
            return self._inner.save(register, acceptor)
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        saved.set_result(None)
        return saved

    def prune(self, register: str, position: Stamp) -> None:
        self._inner.prune(register, position)

    def accepted(self) -> Mapping[str, Acceptor]:
        return self._inner.accepted()


# -- transports ------------------------------------------------------------------------------


class _Forging(Answering):
    """Acknowledges a batch to its sender as soon as it is sent, whatever the peer does."""

    def answer(self, said: object) -> bytes | None:
        return wire.encode(wire.Ack(said.number)) if isinstance(said, wire.Batch) else None

    def passes(self, said: object) -> bool:
        return True

    def hides(self, said: object) -> bool:
        return isinstance(said, wire.Ack)


def _dropping() -> Callable[[PeerChannel], PeerChannel]:
    numbers = count(1)

    def spoil(frame: bytes) -> bytes:
        said = wire.decode(frame)
        if not isinstance(said, wire.Batch):
            return frame
        rows = [*map(shorten, said.rows)]
        return wire.encode(wire.Batch(said.number, said.through_lsn, rows, said.floor))

    def shorten(row: bytes) -> bytes:
        record = records.decode_log_record(row)
        if next(numbers) % _SOME or len(record.commit.changes) < 2:
            return row
        commit = replace(record.commit, changes=tuple(record.commit.changes)[:-1])
        return records.encode_log_record(record, records.encode_commit(commit))

    return lambda channel: Channel(channel, spoil)


def _without_repair(frame: bytes) -> bytes:
    said = wire.decode(frame)
    if isinstance(said, wire.Call) and said.method.startswith("repair."):
        return wire.encode(wire.Call(said.number, "repair.off", said.body))
    return frame


def _without_token(frame: bytes) -> bytes:
    said = wire.decode(frame)
    if not isinstance(said, wire.Call) or said.method != session_reads.METHOD:
        return frame
    request = pb.GetRequest.FromString(wire.unpack(wire.ForwardedRead, said.body).message)
    request.token = ""
    body = wire.pack(wire.ForwardedRead(request.SerializeToString()))
    return wire.encode(wire.Call(said.number, said.method, body))


# -- merges ------------------------------------------------------------------------------------


def _tie_blind(one: Environment, other: Environment) -> Environment:
    """The production merge, where of equal stamps the one that came first stays."""
    merged = one.merge(other)
    return Environment(
        merged.name,
        {name: _first(one.variables.get(name), entry) for name, entry in merged.variables.items()},
        merged.metadata,
        merged.deleted_at,
    )


def _first(known: Entry | None, merged: Entry) -> Entry:
    return known if known is not None and known.stamp == merged.stamp else merged


_ALL: Final = (
    Control(
        "ack-before-sync",
        "a disk answers a sync before it is done, so a crash loses the last second",
        lying_disk=True,
    ),
    Control(
        "drop-a-change",
        "a channel leaves the last change out of some commits",
        over_dialed(_dropping()),
    ),
    Control(
        "promise-before-sync",
        "an acceptor answers before what it promised and accepted is on its disk, and loses some",
        lambda ports: replace(ports, registers=_Promising(ports.registers)),
    ),
    Control(
        "write-beside-the-chain",
        "a node now and then writes a serial environment as if it were plain",
        _store(_Plain),
    ),
    Control(
        "count-in-a-stale-epoch",
        "a node counts votes by the first topology that it heard of",
        _store(_Stale),
    ),
    Control(
        "forget-the-bound",
        "a node does not keep the bound of its clock over restarts",
        _store(_Unbounded),
    ),
    Control(
        "tie-blind-merge",
        "of two entries with equal stamps the one that came first stays",
        merge=_tie_blind,
    ),
    Control(
        "no-repair",
        "no node answers what repair asks",
        over_dialed(lambda channel: Channel(channel, _without_repair)),
    ),
    Control(
        "ask-without-the-token",
        "a peer that is asked for a read does not check that it has the write",
        over_dialed(lambda channel: Channel(channel, _without_token)),
    ),
    Control(
        "count-the-cursor",
        "a batch counts as acknowledged once it is sent",
        over_dialed(_Forging),
    ),
    Control(
        "drop-without-handing-over",
        "who does not hold what it has lets go of it, and nobody else has pulled it from there",
        over_dialed(TakenForGranted),
        copies=3,
        faults=("old topology", "leave", "join", "partition"),
        minutes=2.0,
    ),
    Control(
        "read-before-pulled",
        "a node that is to be read from is taken for having pulled as soon as it is asked",
        over_dialed(PulledInWords),
        copies=3,
    ),
    Control(
        "count-what-is-not-held",
        "some records of others move the vector and change nothing",
        _store(_Partial),
    ),
    Control(
        "forget-conflicts",
        "a node lists no conflict that another node's write has won",
        _store(_Forgetful),
    ),
    Control(
        "zombie-guard-off",
        "a node takes in what comes too late",
        forgets=True,
        amend=judge_nothing,
    ),
    Control(
        "floor-while-bootstrapping",
        "a node goes up to the floor as soon as it hears of it, whatever it has by then",
        forgets=True,
        amend=raise_at_once,
    ),
)
CONTROLS: Final = {control.name: control for control in _ALL}
