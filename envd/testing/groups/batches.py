"""Group 8, batches: each operation has an outcome, in order, and the outcome is the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from envd.backends.contract import Capability, Op, Outcome, Result
from envd.backends.errors import Forbidden, StoreUnavailable
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Need
from envd.testing.trial import Trial, case

_TWENTY = 20
_SEVENTH = 7
_DONE = (Result.APPLIED, Result.NOOP)


class BatchCases:
    """Batches."""

    @case(Need.BATCHES, Need.MANY)
    async def test_outcomes_come_in_the_order_of_their_operations(self, trial: Trial) -> None:
        ops = list(reversed(_creates(trial, _twenty(trial))))

        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())

        assert [each.op for each in outcomes] == ops
        assert [each.result for each in outcomes] == [Result.APPLIED] * len(ops)

    @case(Need.BATCHES, Need.MANY, Capability.CAS)
    async def test_a_stale_operation_among_others_is_the_only_one_refused(
        self, trial: Trial
    ) -> None:
        count = _twenty(trial)
        stale = min(_SEVENTH, count) - 1
        await trial.put(trial.key(stale), "there already")

        outcomes = await trial.backend.apply(_creates(trial, count), idempotency=trial.attempt())

        assert outcomes[stale].result is Result.CONFLICT
        others = [each for place, each in enumerate(outcomes) if place != stale]
        done = [each.result is Result.APPLIED for each in others]
        assert done == [Capability.ATOMIC_BATCH not in trial.backend.capabilities] * len(others)
        assert await trial.read(trial.key(stale)) in (None, "there already")
        await _are_true(trial, others)

    @case(Kind.ITEM_FAILS, Need.BATCHES, Need.MANY)
    async def test_when_item_seven_of_twenty_fails_each_outcome_is_true(self, trial: Trial) -> None:
        ops = _creates(trial, _twenty(trial))
        position = min(_SEVENTH, len(ops))
        await trial.inject(Fault(Kind.ITEM_FAILS, position=position, error=StoreUnavailable))

        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())

        assert [each.op for each in outcomes] == ops
        assert outcomes[position - 1].result is Result.FAILED
        await _are_true(trial, [each for each in outcomes if each.result is not Result.FAILED])

    @case(Kind.ITEM_FAILS, Need.BATCHES, Need.MANY)
    async def test_when_item_seven_of_twenty_is_refused_each_outcome_is_true(
        self, trial: Trial
    ) -> None:
        ops = _creates(trial, _twenty(trial))
        position = min(_SEVENTH, len(ops))
        await trial.inject(Fault(Kind.ITEM_FAILS, position=position, error=Forbidden))

        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())

        assert [each.op for each in outcomes] == ops
        assert outcomes[position - 1].result is Result.REJECTED
        await _are_true(trial, outcomes)

    @case(Capability.ATOMIC_BATCH, Capability.CAS, Need.BATCHES, Need.MANY)
    async def test_an_atomic_batch_is_done_whole_or_not_at_all(self, trial: Trial) -> None:
        count = _twenty(trial)
        await trial.put(trial.key(count - 1), "there already")

        async with trial.unchanged():
            outcomes = await trial.backend.apply(
                _creates(trial, count), idempotency=trial.attempt()
            )

        assert not any(each.result is Result.APPLIED for each in outcomes)

    @case(Need.BATCHES, Need.MANY)
    async def test_a_value_that_is_refused_does_not_raise_half_way(self, trial: Trial) -> None:
        ops = _creates(trial, min(3, _twenty(trial)))
        bad = Op(ops[1].verb, trial.key(1)._replace(variable="no name"), "", ops[1].value)
        batch = [ops[0], bad, *ops[2:]]

        outcomes = await trial.backend.apply(batch, idempotency=trial.attempt())

        assert [each.op for each in outcomes] == batch
        assert outcomes[1].result is Result.REJECTED
        await _are_true(trial, [outcomes[0], *outcomes[2:]])

    @case(Need.BATCHES)
    async def test_no_operations_have_no_outcomes(self, trial: Trial) -> None:
        async with trial.unwritten():
            assert await trial.backend.apply([], idempotency=trial.attempt()) == []

    @case(Need.MANY)
    async def test_what_is_split_to_fit_is_done_whole(self, trial: Trial) -> None:
        count = _room(trial, max(_TWENTY, trial.backend.limits.batch * 2 + 1))

        outcomes = await trial.in_batches(_creates(trial, count))

        assert [each.result for each in outcomes] == [Result.APPLIED] * count
        assert (await trial.scan()).items.keys() == set(trial.keys(count))

    @case(Need.MANY)
    async def test_more_operations_than_fit_are_answered_one_by_one(self, trial: Trial) -> None:
        ops = _creates(trial, _room(trial, (trial.backend.limits.batch or _TWENTY) + 1))

        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())

        assert [each.op for each in outcomes] == ops
        await _are_true(trial, outcomes)

    @case(Kind.HANG, Need.MANY)
    async def test_an_apply_that_is_cancelled_half_way_leaves_each_item_whole(
        self, trial: Trial
    ) -> None:
        ops = _creates(trial, _twenty(trial))
        await trial.inject(Fault(Kind.HANG, Call.APPLY, position=len(ops) // 2))
        doing = asyncio.create_task(trial.backend.apply(ops, idempotency=trial.attempt()))
        await trial.harness.hung()

        doing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing
        await trial.harness.release()

        for number, key in enumerate(trial.keys(len(ops))):
            assert await trial.read(key) in (None, f"created {number}")
        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())
        assert {each.result for each in outcomes} <= {*_DONE, Result.CONFLICT, Result.FAILED}
        assert (await trial.scan()).complete

    @case(Need.BATCHES, Need.MANY)
    async def test_puts_and_deletes_go_into_one_batch(self, trial: Trial) -> None:
        gone = await trial.put(trial.key(0), "to be deleted")
        kept = await trial.put(trial.key(1), "to be edited")
        ops = [
            trial.delete_op(trial.key(0), gone.version),
            trial.put_op(trial.key(1), "edited", expect=kept.version),
        ]

        outcomes = await trial.backend.apply(ops, idempotency=trial.attempt())

        assert [each.result for each in outcomes] == [Result.APPLIED] * 2
        assert await trial.item(trial.key(0)) is None
        assert await trial.read(trial.key(1)) in (None, "edited")


def _room(trial: Trial, count: int) -> int:
    """So many items, or as many as the store takes."""
    most = trial.backend.limits.max_items
    return min(count, most) if most else count


def _twenty(trial: Trial) -> int:
    """Twenty, or as many as one apply and the store take."""
    return min(_room(trial, _TWENTY), trial.backend.limits.batch or _TWENTY)


def _creates(trial: Trial, count: int) -> list[Op]:
    return [trial.put_op(key, f"created {n}") for n, key in enumerate(trial.keys(count))]


async def _are_true(trial: Trial, outcomes: Sequence[Outcome]) -> None:
    """What was applied is there, and what was not is not."""
    for each in outcomes:
        item = await trial.item(each.op.key)
        is_there = item is not None and item.value in (None, each.op.value)
        assert is_there == (each.result in _DONE), (
            f"{each.op.key} is {'' if is_there else 'not '}there, and was {each.result.value}"
        )
