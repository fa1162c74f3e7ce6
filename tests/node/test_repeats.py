"""An operation id that comes again does its write once, whatever became of the first by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from envd.core.answers import WriteAnswer
from envd.core.errors import EnvdError, Unavailable
from envd.core.requests import Put, PutColumns, WriteRequest
from envd.node.coordinator import Coordinator
from envd.node.views import NodeIdentity
from envd.storage.store import DurableStore
from tests.storage.failing import FailingDisk, StallingSealer
from tests.storage.world import DIGEST_KEY, NODE, StillClock, open_store

WRITE = WriteRequest("web", PutColumns(["A"], ["1"], {}), operation="op")


def coordinator_of(store: DurableStore) -> Coordinator:
    return Coordinator(store, StillClock(), NodeIdentity(NODE, "n1", "here"), DIGEST_KEY)


class Life:
    """A node on a disk and with a flush that fail when they are told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.disk, self.sealer = FailingDisk(), StallingSealer()

    async def start(self) -> None:
        self.store = await open_store(self._directory, self.sealer, disk=self.disk)
        self.coordinator = coordinator_of(self.store)

    async def repeat(self) -> WriteAnswer:
        return await self.coordinator.write(WRITE, "ann")

    def commits(self) -> int:
        return len(self.store.commits("web", None, 10))


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    made = Life(tmp_path)
    await made.start()
    yield made
    made.sealer.may_flush.set()
    with suppress(EnvdError):
        await made.store.close()


async def test_a_repeat_is_the_first_one_on_its_way_durable_flushing_and_flushed(
    life: Life,
) -> None:
    begun = [await life.coordinator.begin_write(WRITE, "ann") for _ in range(2)]
    answers = [await writing for writing in begun]
    answers.append(await life.repeat())
    life.sealer.asked.clear()
    life.sealer.may_flush.clear()
    flush = asyncio.ensure_future(life.store.flush())
    await asyncio.to_thread(life.sealer.asked.wait)
    answers.append(await life.repeat())
    life.sealer.may_flush.set()
    await flush
    answers.append(await life.repeat())

    assert answers == [answers[0]] * 5
    assert life.commits() == 1


async def test_a_repeat_after_a_restart_is_known_before_and_after_all_ids_are_learnt(
    life: Life,
) -> None:
    first = await life.repeat()
    await life.store.close()
    await life.start()
    learner = life.store._learner
    assert learner is not None

    early, was_learning = await life.repeat(), not learner.done()
    await asyncio.wait((learner,))
    late = await life.repeat()

    assert was_learning
    assert first == early == late
    assert life.commits() == 1


async def test_a_repeat_of_what_a_full_disk_refused_is_done_anew(life: Life) -> None:
    life.disk.full = True
    large = WriteRequest("other", (Put("A", "x" * 40_000),))
    filled = [await life.coordinator.begin_write(large, "ann") for _ in range(3)]
    refused = [await life.coordinator.begin_write(WRITE, "ann") for _ in range(2)]
    for writing in filled:
        writing.forget()
    for writing in refused:
        with pytest.raises(Unavailable):
            await writing

    life.disk.full = False
    done, again = await life.repeat(), await life.repeat()

    assert done == again
    assert life.commits() == 1


async def test_a_caller_that_gave_up_finds_its_write_done(life: Life) -> None:
    giving_up = asyncio.ensure_future(life.repeat())
    await asyncio.sleep(0)
    giving_up.cancel()
    await asyncio.wait((giving_up,))

    answer = await life.repeat()

    assert giving_up.cancelled()
    assert (answer.environment, life.commits()) == ("web", 1)
