"""Partitions as the tests of dropping them see them: names within one, all that is told of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import count

from envd.core.ring import partition_of
from envd.core.stamp import Stamp
from envd.ports import Store
from envd.wire import records
from tests.storage.others import merged, repaired


@cache
def within(partition: int, number: int, prefix: str = "n") -> tuple[str, ...]:
    """Names of so many environments of a partition."""
    found: list[str] = []
    for n in count():
        if partition_of(name := f"{prefix}/{n}") == partition:
            found.append(name)
        if len(found) == number:
            return tuple(found)
    raise AssertionError


def told_of(store: Store, names: Iterable[str]) -> dict[str, tuple[object, ...]]:
    """Everything that a store tells of environments, in the bytes in which it has it."""
    return {
        name: (
            store.visible(name),
            store.head(name),
            store.commit_rows(name),
            store.commits(name, None, 1000),
            store.base(name),
            store.conflicts(name, "", 1000),
            store.environments(name, "", 1000),
            store.environments("", "", 1000, {partition_of(name)}),
            store.digests(partition_of(name)),
            store.roots().partitions[partition_of(name)],
            sorted(one for one in store.vectors().items() if one[0][0] == partition_of(name)),
        )
        for name in names
    }


def assert_nothing_of(
    store: Store, partition: int, names: Sequence[str], kept: dict[int, int]
) -> None:
    """Hold that nothing of a partition is told but the vectors of these origins."""
    assert store.digests(partition) == []
    assert store.roots().partitions[partition] == 0
    assert store.environments("", "", 1000, {partition}) == []
    assert {origin: seq for (p, origin), seq in store.vectors().items() if p == partition} == kept
    for name in names:
        assert store.visible(name) is None
        assert store.head(name) is None
        assert store.commits(name, None, 1000) == []
        assert store.commit_rows(name) == []
        assert not store.base(name).variables
        assert store.base(name).highest_stamp == Stamp(0, 0, 0)
        assert store.conflicts(name, "", 1000) == []
        assert store.environments(name, "", 1000) == []


async def pull(store: Store, source: Store, names: Iterable[str]) -> None:
    """Take in what another store has of environments, as repair does, and take over its vectors."""
    logged = []
    for name in names:
        base = source.base(name)
        if base.highest_stamp > Stamp(0, 0, 0):
            logged.append(merged(store, base))
        for _, encoded in source.commit_rows(name):
            logged.append(repaired(store, records.decode_commit(encoded)))
    for one in logged:
        await one
    partitions = set(map(partition_of, names))
    store.advance(
        {place: seq for place, seq in source.vectors().items() if place[0] in partitions}, {}
    )
