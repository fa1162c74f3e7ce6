"""Group 9, deletes: only what is meant is deleted, and a name that was deleted can come back.

A scan that was denied, or that found nothing because something is wrong, must never look like a
complete scan of nothing: that is what deletes are inferred from. What the reconciler makes of
complete scans, its second look and its brake, is its own, and tried there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from envd.backends.contract import Capability, Result
from envd.backends.errors import BackendError, Forbidden, NotOwned, StoreUnavailable
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Ability, Need
from envd.testing.trial import Trial, case


class DeleteCases:
    """Deletes."""

    @case()
    async def test_what_is_deleted_is_gone(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "to be deleted")

        outcome = await trial.one(trial.delete_op(trial.key(), before.version))

        assert outcome.result is Result.APPLIED
        assert await trial.item(trial.key()) is None
        found = await trial.scan()
        assert found.complete
        assert trial.key() not in found.live
        assert trial.backend.encode(trial.key()) not in await trial.harness.contents()

    @case(Need.MANY)
    async def test_nothing_but_what_is_meant_is_deleted(self, trial: Trial) -> None:
        before = [await trial.put(key, f"item of {key.variable}") for key in trial.keys(3)]

        await trial.one(trial.delete_op(trial.key(1), before[1].version))

        assert (await trial.scan()).live.keys() == {trial.key(0), trial.key(2)}
        assert await trial.item(trial.key(2)) == before[2]

    @case()
    async def test_deleting_what_is_not_there_is_a_noop(self, trial: Trial) -> None:
        async with trial.unwritten():
            outcome = await trial.one(trial.delete_op(trial.key(), ""))

        assert outcome.result is Result.NOOP

    @case()
    async def test_deleting_twice_is_a_noop(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "to be deleted")
        await trial.one(trial.delete_op(trial.key(), before.version))

        again = await trial.one(trial.delete_op(trial.key(), before.version))

        assert again.result is Result.NOOP

    @case(Capability.CAS)
    async def test_a_stale_delete_is_refused(self, trial: Trial) -> None:
        old = await trial.put(trial.key(), "first")
        new = await trial.put(trial.key(), "second")

        outcome = await trial.one(trial.delete_op(trial.key(), old.version))

        assert outcome.result is Result.CONFLICT
        assert await trial.item(trial.key()) == new

    @case(Ability.OWNERSHIP, Ability.OTHERS)
    async def test_what_envd_created_is_told_from_what_others_did(self, trial: Trial) -> None:
        ours = await trial.put(trial.key(), "ours")
        await trial.one(trial.delete_op(trial.key(), ours.version))
        await _clear(trial)
        await trial.others_put(trial.key(), "theirs")

        theirs = await trial.item(trial.key())

        assert ours.managed is True
        assert theirs is not None
        assert theirs.managed is False

    @case(Ability.OWNERSHIP, Ability.OTHERS)
    async def test_what_others_created_is_not_deleted(self, trial: Trial) -> None:
        await trial.others_put(trial.key(), "theirs")
        theirs = await trial.item(trial.key())
        assert theirs is not None

        outcome = await trial.one(trial.delete_op(trial.key(), theirs.version))

        assert outcome.result is Result.REJECTED
        assert isinstance(outcome.error, NotOwned)
        assert await trial.item(trial.key()) == theirs

    @case(Ability.OWNERSHIP, Ability.OTHERS)
    async def test_what_others_created_is_not_overwritten(self, trial: Trial) -> None:
        await trial.others_put(trial.key(), "theirs")
        theirs = await trial.item(trial.key())
        assert theirs is not None

        outcome = await trial.one(trial.put_op(trial.key(), "ours", expect=theirs.version))

        assert outcome.result is Result.REJECTED
        assert isinstance(outcome.error, NotOwned)
        assert await trial.item(trial.key()) == theirs

    @case(Ability.OWNERSHIP, Ability.OTHERS)
    async def test_what_others_created_is_deleted_with_leave(self, trial: Trial) -> None:
        await trial.others_put(trial.key(), "theirs")
        theirs = await trial.item(trial.key())
        assert theirs is not None

        outcome = await trial.one(trial.delete_op(trial.key(), theirs.version, any_owner=True))

        assert outcome.result is Result.APPLIED
        assert await trial.item(trial.key()) is None

    @case(Ability.OTHERS)
    async def test_what_others_created_is_taken_over_with_leave(self, trial: Trial) -> None:
        await trial.others_put(trial.key(), "theirs")
        theirs = await trial.item(trial.key())
        assert theirs is not None
        op = trial.put_op(trial.key(), "ours", expect=theirs.version)

        outcome = await trial.one(replace(op, any_owner=True))

        assert outcome.result is Result.APPLIED
        taken = await trial.item(trial.key())
        assert taken is not None
        assert trial.text(taken) in (None, "ours")
        assert taken.managed in (True, None)

    @case(Ability.OTHERS)
    async def test_what_others_deleted_is_gone(self, trial: Trial) -> None:
        await trial.put(trial.key(), "ours")

        await trial.others_delete(trial.key())

        assert await trial.item(trial.key()) is None
        found = await trial.scan()
        assert found.complete
        assert trial.key() not in found.live

    @case()
    async def test_a_deleted_name_can_be_written_again(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "first")
        await trial.one(trial.delete_op(trial.key(), before.version))

        outcome = await trial.one(trial.put_op(trial.key(), "second"))

        assert outcome.result is Result.APPLIED
        assert await trial.read(trial.key()) in (None, "second")
        found = await trial.item(trial.key())
        assert found is not None
        assert not found.deleted

    @case(Capability.SOFT_DELETE)
    async def test_a_softly_deleted_item_has_no_value(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "first")
        await trial.one(trial.delete_op(trial.key(), before.version))

        listed = (await trial.scan()).items.get(trial.key())
        read = (await trial.backend.get_many([trial.key()]))[trial.key()]

        assert listed is None or (listed.deleted and listed.value is None)
        assert isinstance(read, BackendError) or (read.deleted and read.value is None)

    @case(Capability.SOFT_DELETE)
    async def test_a_name_survives_being_deleted_and_written_many_times(self, trial: Trial) -> None:
        for number in range(5):
            item = await trial.put(trial.key(), f"life {number}")
            deleted = await trial.one(trial.delete_op(trial.key(), item.version))
            assert deleted.result is Result.APPLIED

        assert await trial.item(trial.key()) is None

    @case(Capability.CAS)
    async def test_of_a_put_and_a_delete_at_once_one_wins(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")

        put, delete = await asyncio.gather(
            trial.one(trial.put_op(trial.key(), "after", expect=before.version)),
            trial.one(trial.delete_op(trial.key(), before.version)),
        )

        assert [put.result, delete.result].count(Result.APPLIED) == 1
        found = await trial.item(trial.key())
        assert (found is not None) == (put.result is Result.APPLIED)

    @case(Kind.FORBIDDEN)
    async def test_a_denied_listing_is_an_error_and_no_empty_place(self, trial: Trial) -> None:
        await trial.put(trial.key(), "there")
        await trial.inject(Fault(Kind.FORBIDDEN, Call.SCAN))

        await trial.expect_error(Forbidden, trial.scan())

        assert trial.key() in (await trial.scan()).live

    @case(Kind.MALFORMED)
    async def test_a_listing_without_sense_is_an_error_and_no_empty_place(
        self, trial: Trial
    ) -> None:
        await trial.put(trial.key(), "there")
        await trial.inject(Fault(Kind.MALFORMED, Call.SCAN))

        await trial.expect_error(StoreUnavailable, trial.scan())

        assert trial.key() in (await trial.scan()).live


async def _clear(trial: Trial) -> None:
    """Have others delete for good what is softly deleted, so that the name is free."""
    if Capability.SOFT_DELETE in trial.backend.capabilities:
        await trial.others_delete(trial.key())
