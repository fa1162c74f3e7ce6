"""Listing the environments of some partitions, in every Store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from random import Random

import pytest

from envd.core.names import has_prefix
from envd.core.ring import PARTITIONS, partition_of
from envd.ports import Store
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.world import Writer, open_store

NAMES = ("a", "a/b", "a/b-2", "a/b.x/c", "a/b/c", "a/b/c/d", "a/b0", "b", "web/prod", "web/dev")


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path)
    yield made
    await made.store.close()


def names_in(
    store: Store,
    partitions: Collection[int] | None,
    prefix: str = "",
    after: str = "",
    limit: int = 100,
) -> list[str]:
    found = store.environments(prefix, after, limit, partitions)
    return [one.environment for one in found]


def paged(store: Store, partitions: Collection[int], prefix: str, limit: int) -> list[str]:
    """The whole list, a page at a time."""
    found: list[str] = []
    while page := names_in(store, partitions, prefix, found[-1] if found else "", limit):
        assert len(page) <= limit
        found += page
    return found


async def test_only_environments_of_the_partitions_that_are_asked_for(kept: Kept) -> None:
    for name in reversed(NAMES):
        await kept.put(name, X="1")
    await kept.delete("a/b/c")
    some = [partition_of(name) for name in ("b", "a/b", "a/b/c", "a/b/c/d")]

    assert names_in(kept.store, None) == sorted({*NAMES} - {"a/b/c"})
    assert names_in(kept.store, some) == ["a/b", "a/b/c/d", "b"]
    assert names_in(kept.store, some, "a") == ["a/b", "a/b/c/d"]
    assert names_in(kept.store, some, "a/b") == ["a/b", "a/b/c/d"]
    assert names_in(kept.store, some, "a/b", after="a/b") == ["a/b/c/d"]
    assert names_in(kept.store, some, limit=2) == ["a/b", "a/b/c/d"]
    assert names_in(kept.store, some, limit=0) == []
    assert names_in(kept.store, ()) == []
    assert names_in(kept.store, {partition_of("a/b") ^ 1}) == []


async def test_the_systems_own_are_in_no_list_of_their_partition(kept: Kept) -> None:
    await kept.put("sys/topology", X="1")
    await kept.put("a", X="1")

    listed = names_in(kept.store, {partition_of("sys/topology"), partition_of("a")})

    assert listed == ["a"]


async def test_the_systems_own_are_listed_below_a_prefix_of_theirs_alone(kept: Kept) -> None:
    names = ["sys/leases/web", "sys/sync", "sys/sync/a", "sys/sync/a-2", "sys/sync/a/b"]
    for name in reversed(names):
        await kept.put(name, X="1")
    await kept.put("sysadmin", X="1")
    await kept.put("sys/sync/gone", X="1")
    await kept.put("sys/sync/gone", X=None)
    below = sorted(names[1:])

    assert names_in(kept.store, None, "sys/sync") == below
    assert names_in(kept.store, None, "sys/sync/a") == ["sys/sync/a", "sys/sync/a/b"]
    assert names_in(kept.store, None, "sys/sync", after="sys/sync/a") == below[2:]
    assert names_in(kept.store, None, "sys/sync", limit=2) == below[:2]
    assert names_in(kept.store, None, "sys") == sorted(names)
    assert names_in(kept.store, {partition_of("sys/x")}, "sys/sync") == below
    assert names_in(kept.store, {partition_of("sys/x") ^ 1}, "sys/sync") == []
    assert names_in(kept.store, None) == ["sysadmin"]


@pytest.mark.parametrize("count", [1, 7, 60, 700, 3000, PARTITIONS])
async def test_however_many_partitions_pages_are_those_of_the_whole_list(
    tmp_path: Path, count: int
) -> None:
    chance = Random(count)
    partitions = frozenset(chance.sample(range(PARTITIONS), count))
    store = await open_store(tmp_path)
    writer = Writer(store)
    names = [f"{chance.choice('abc')}/{chance.choice('de')}-{n}" for n in range(400)]
    names += [f"{name}/x" for name in names[::9]] + ["a", "b"]
    for at, name in enumerate(names):
        durable = writer.commit(name, {"X": "1"})
        if at == 300:
            await durable
            await store.flush()
    for name in names[::11]:
        durable = writer.commit(name, deletes=True)
    await durable
    there = sorted({*names} - {*names[::11]})

    for prefix in ("", "a", "b", "c"):
        wanted = [
            name for name in there if has_prefix(name, prefix) and partition_of(name) in partitions
        ]
        for limit in (3, 50, 1000):
            assert paged(store, partitions, prefix, limit) == wanted
    await store.close()
