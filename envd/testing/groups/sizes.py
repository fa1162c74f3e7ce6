"""Group 2, sizes: the limits that a backend states are the store's, in bytes, and kept before a
call is made."""

from __future__ import annotations

from envd.backends.contract import Op, Result, Verb
from envd.backends.errors import BackendError, InvalidValue, ValueTooLarge
from envd.testing.harness import Need
from envd.testing.trial import Trial, case

_TWO_BYTES = "é"


class SizeCases:
    """Sizes."""

    @case(Need.VALUE_LIMIT)
    async def test_a_value_just_below_the_limit_is_taken(self, trial: Trial) -> None:
        await _is_taken(trial, trial.backend.limits.max_value_bytes - 1)

    @case(Need.VALUE_LIMIT)
    async def test_a_value_at_the_limit_is_taken(self, trial: Trial) -> None:
        await _is_taken(trial, trial.backend.limits.max_value_bytes)

    @case(Need.VALUE_LIMIT)
    async def test_a_value_over_the_limit_is_refused_before_any_call(self, trial: Trial) -> None:
        value = trial.value_of_size(trial.backend.limits.max_value_bytes + 1)

        await _is_refused(trial, value, ValueTooLarge)

    @case(Need.VALUE_LIMIT)
    async def test_sizes_count_bytes_and_not_characters(self, trial: Trial) -> None:
        room = trial.backend.limits.max_value_bytes - len(trial.value("").encode())

        await _is_refused(trial, trial.value(_TWO_BYTES * (room // 2 + 1)), ValueTooLarge)

    @case(Need.VALUE_LIMIT, Need.READABLE)
    async def test_characters_of_two_bytes_fill_the_limit(self, trial: Trial) -> None:
        room = trial.backend.limits.max_value_bytes - len(trial.value("").encode())
        text = _TWO_BYTES * (room // 2)

        await trial.put(trial.key(), text)

        assert await trial.read(trial.key()) == text

    @case(Need.VALUE_LIMIT)
    async def test_a_value_over_the_limit_leaves_the_old_one(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "old")
        value = trial.value_of_size(trial.backend.limits.max_value_bytes + 1)

        outcome = await trial.one(Op(Verb.PUT, trial.key(), before.version, value))

        assert outcome.result is Result.REJECTED
        assert await trial.item(trial.key()) == before

    @case(Need.LEAST_VALUE)
    async def test_a_value_below_the_least_size_is_refused_before_any_call(
        self, trial: Trial
    ) -> None:
        value = "x" * (trial.backend.limits.min_value_bytes - 1)

        await _is_refused(trial, value, InvalidValue)

    @case()
    async def test_the_limits_are_whole_and_not_negative(self, trial: Trial) -> None:
        limits = trial.backend.limits

        assert limits.max_value_bytes >= 0
        assert limits.max_value_bytes == 0 or limits.max_value_bytes >= limits.min_value_bytes
        assert min(limits.min_value_bytes, limits.max_name_bytes, limits.max_items) >= 0
        assert min(limits.page_items, limits.batch, limits.get_batch) >= 0
        assert min(limits.reads_per_s, limits.writes_per_s, limits.writes_per_item_per_s) >= 0
        assert min(limits.burst, limits.concurrency) >= 1


async def _is_taken(trial: Trial, size: int) -> None:
    value = trial.value_of_size(size)
    op = Op(Verb.PUT, trial.key(), "", value)

    assert trial.backend.check([op]) == []
    outcome = await trial.one(op)

    assert outcome.result is Result.APPLIED
    found = await trial.item(trial.key())
    assert found is not None
    assert found.value is None or found.value == value, "it was cut"


async def _is_refused(trial: Trial, value: str, kind: type[BackendError]) -> None:
    op = Op(Verb.PUT, trial.key(), "", value)

    with trial.uncalled():
        rejects = trial.backend.check([op])
    async with trial.unwritten():
        outcome = await trial.one(op)

    assert [type(each.error) for each in rejects] == [kind], "check says so, without a call"
    assert outcome.result is Result.REJECTED
    assert isinstance(outcome.error, kind)
