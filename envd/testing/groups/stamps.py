"""Group 6, stamps: what envd leaves with a value is there when it comes back, and only with it.

A reconciler that lost all it knew has the store alone to learn from: versions and stamps must be
the same for who comes anew. An edit by others is seen by its version.
"""

from __future__ import annotations

import asyncio
from typing import Final

from envd.backends.contract import MAX_STAMP_CHARACTERS, Capability, Result
from envd.testing.harness import Ability, Need
from envd.testing.trial import Trial, case

STAMP: Final = "0197a3c4d5e6.0001.00000000000000000000000000000007"
_OTHER: Final = "0197a3c4d5e7.0000.00000000000000000000000000000009"


class StampCases:
    """Stamps."""

    @case(Need.STAMPS)
    async def test_a_stamp_reads_back(self, trial: Trial) -> None:
        item = await trial.put(trial.key(), "stamped", stamp=STAMP)

        assert item.stamp == STAMP

    @case(Need.STAMPS)
    async def test_the_longest_stamp_reads_back(self, trial: Trial) -> None:
        longest = STAMP.ljust(MAX_STAMP_CHARACTERS, "f")

        item = await trial.put(trial.key(), "stamped", stamp=longest)

        assert item.stamp == longest

    @case(Need.STAMPS)
    async def test_a_new_value_has_its_own_stamp(self, trial: Trial) -> None:
        await trial.put(trial.key(), "first", stamp=STAMP)

        item = await trial.put(trial.key(), "second", stamp=_OTHER)

        assert item.stamp == _OTHER

    @case(Need.STAMPS)
    async def test_a_stamp_is_listed(self, trial: Trial) -> None:
        await trial.put(trial.key(), "stamped", stamp=STAMP)

        listed = (await trial.scan()).items[trial.key()]

        assert listed.stamp == STAMP

    @case(Need.STAMPS, Ability.RESTART)
    async def test_a_stamp_survives_a_restart(self, trial: Trial) -> None:
        await trial.put(trial.key(), "stamped", stamp=STAMP)

        found = await trial.item(trial.key(), backend=await trial.another())

        assert found is not None
        assert found.stamp == STAMP

    @case(Ability.RESTART)
    async def test_who_knows_nothing_reads_the_same_versions(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "kept", stamp=STAMP)

        anew = await trial.another()

        assert await trial.item(trial.key(), backend=anew) == before
        assert (await trial.scan(backend=anew)).items[trial.key()].version == before.version

    @case(Ability.RESTART, Capability.CAS)
    async def test_a_version_that_another_read_is_still_the_expected_one(
        self, trial: Trial
    ) -> None:
        before = await trial.put(trial.key(), "kept")
        anew = await trial.another()

        outcome = await trial.one(
            trial.put_op(trial.key(), "changed", expect=before.version), backend=anew
        )

        assert outcome.result is Result.APPLIED

    @case(Ability.OTHERS)
    async def test_an_edit_by_others_has_a_new_version(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "ours", stamp=STAMP)
        await trial.others_put(trial.key(), "theirs")

        after = await trial.item(trial.key())

        assert after is not None
        assert after.version != before.version
        assert trial.text(after) in (None, "theirs")

    @case(Ability.OTHERS)
    async def test_an_edit_by_others_has_the_stamp_before_it_or_none(self, trial: Trial) -> None:
        await trial.put(trial.key(), "first", stamp=_OTHER)
        await trial.put(trial.key(), "ours", stamp=STAMP)
        await trial.others_put(trial.key(), "theirs")

        after = await trial.item(trial.key())

        assert after is not None
        assert after.stamp in ("", STAMP)

    @case(Ability.OTHERS)
    async def test_what_others_created_has_no_stamp(self, trial: Trial) -> None:
        await trial.others_put(trial.key(), "theirs")

        found = await trial.item(trial.key())

        assert found is not None
        assert found.stamp == ""

    @case(Ability.OTHERS, Capability.CAS)
    async def test_an_edit_by_others_makes_our_version_stale(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "ours")
        await trial.others_put(trial.key(), "theirs")

        outcome = await trial.one(trial.put_op(trial.key(), "ours again", expect=before.version))

        assert outcome.result is Result.CONFLICT
        assert await trial.read(trial.key()) in (None, "theirs")

    @case(Capability.STAMP_ATOMIC)
    async def test_an_atomic_stamp_is_always_that_of_the_value(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")
        ops = [
            trial.put_op(trial.key(), f"writer {n}", expect=before.version, stamp=f"stamp-{n}")
            for n in range(16)
        ]

        await asyncio.gather(*(trial.one(op) for op in ops))

        item = await trial.item(trial.key())
        assert item is not None
        text = trial.text(item)
        assert text is None or item.stamp == text.replace("writer ", "stamp-")

    @case()
    async def test_a_stamp_is_told_only_by_stores_that_keep_one(self, trial: Trial) -> None:
        item = await trial.put(trial.key(), "stamped", stamp=STAMP)

        keeps = bool(trial.backend.capabilities & (Capability.STAMP_ATOMIC | Capability.STAMP_SIDE))
        assert item.stamp == (STAMP if keeps else "")
