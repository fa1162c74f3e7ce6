"""Group 5, versions: nobody's write is lost unseen, and nothing is written that is so already.

With CAS the store refuses a stale write. With POSTCHECK a write may replace what another wrote in
between, and then says so. A version changes with every write, so of equal versions the values are
equal.
"""

from __future__ import annotations

import asyncio

from envd.backends.contract import Capability, Outcome, Result
from envd.backends.errors import StaleVersion
from envd.testing.harness import Ability, Need
from envd.testing.trial import Trial, case

_WRITERS = 16


class VersionCases:
    """Versions."""

    @case(Need.VERSIONED)
    async def test_creating_twice_is_a_conflict(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "first")

        outcome = await trial.one(trial.put_op(trial.key(), "second"))

        _is_conflict(trial, outcome)
        if outcome.result is Result.CONFLICT:
            assert await trial.item(trial.key()) == before

    @case(Capability.CAS)
    async def test_a_stale_write_is_refused_and_changes_nothing(self, trial: Trial) -> None:
        old = await trial.put(trial.key(), "first")
        new = await trial.put(trial.key(), "second")

        outcome = await trial.one(trial.put_op(trial.key(), "third", expect=old.version))

        assert outcome.result is Result.CONFLICT
        assert isinstance(outcome.error, StaleVersion)
        assert await trial.item(trial.key()) == new

    @case(Need.VERSIONED)
    async def test_a_write_of_what_is_gone_is_a_conflict(self, trial: Trial) -> None:
        old = await trial.put(trial.key(), "first")
        await trial.one(trial.delete_op(trial.key(), old.version))

        outcome = await trial.one(trial.put_op(trial.key(), "second", expect=old.version))

        _is_conflict(trial, outcome)

    @case(Capability.POSTCHECK)
    async def test_a_stale_write_is_refused_or_says_whom_it_overtook(self, trial: Trial) -> None:
        old = await trial.put(trial.key(), "first")
        new = await trial.put(trial.key(), "second")

        outcome = await trial.one(trial.put_op(trial.key(), "third", expect=old.version))

        _is_conflict(trial, outcome)
        if outcome.between is not None:
            assert outcome.between.version == new.version
            assert trial.text(outcome.between) in (None, "second")

    @case(Capability.POSTCHECK, Ability.MEANWHILE)
    async def test_a_write_that_comes_right_after_anothers_says_whom_it_overtook(
        self, trial: Trial
    ) -> None:
        old = await trial.put(trial.key(), "first")
        native = trial.backend.encode(trial.key())
        await trial.harness.others_put_meanwhile(native, trial.value("theirs"))

        outcome = await trial.one(trial.put_op(trial.key(), "ours", expect=old.version))

        _is_conflict(trial, outcome)
        kept = await trial.read(trial.key())
        between = trial.text(outcome.between)
        assert "theirs" in (kept, between) or outcome.overtaken, "an edit was lost unseen"

    @case(Capability.CAS, Ability.MEANWHILE)
    async def test_an_edit_between_the_look_and_the_write_is_not_overwritten(
        self, trial: Trial
    ) -> None:
        old = await trial.put(trial.key(), "first")
        native = trial.backend.encode(trial.key())
        await trial.harness.others_put_meanwhile(native, trial.value("theirs"))

        outcome = await trial.one(trial.put_op(trial.key(), "ours", expect=old.version))

        assert outcome.result is Result.CONFLICT
        assert (await trial.harness.contents())[native] in (None, trial.value("theirs"))

    @case(Capability.CAS)
    async def test_of_sixteen_writers_one_wins(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")

        outcomes = await _race(trial, before.version)

        results = [each.result for each in outcomes]
        assert results.count(Result.APPLIED) == 1
        assert results.count(Result.CONFLICT) == _WRITERS - 1
        winner = results.index(Result.APPLIED)
        assert await trial.read(trial.key()) in (None, f"writer {winner}")

    @case(Capability.CAS)
    async def test_of_sixteen_creators_one_wins(self, trial: Trial) -> None:
        outcomes = await _race(trial, "")

        results = [each.result for each in outcomes]
        assert results.count(Result.APPLIED) == 1
        assert results.count(Result.CONFLICT) == _WRITERS - 1

    @case(Capability.POSTCHECK)
    async def test_of_sixteen_writers_at_most_one_believes_it_was_alone(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")

        outcomes = await _race(trial, before.version)

        done = [each for each in outcomes if each.result is Result.APPLIED]
        assert done, "nobody wrote"
        assert sum(not each.overtaken for each in done) <= 1
        written = {f"writer {outcomes.index(each)}" for each in done}
        assert await trial.read(trial.key()) in (None, *written)

    @case(Need.READABLE)
    async def test_an_equal_value_is_not_written_again(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "the same", stamp="1-a")

        async with trial.unwritten():
            outcome = await trial.one(
                trial.put_op(trial.key(), "the same", expect=before.version, stamp="1-a")
            )

        assert outcome.result is Result.NOOP
        assert await trial.item(trial.key()) == before

    @case()
    async def test_every_change_has_a_version_of_its_own(self, trial: Trial) -> None:
        first = await trial.put(trial.key(), "first")
        second = await trial.put(trial.key(), "second")
        third = await trial.put(trial.key(), "third")

        assert "" not in (first.version, second.version, third.version)
        assert len({first.version, second.version, third.version}) == 3

    @case(Need.VERSIONED)
    async def test_a_name_that_is_written_anew_does_not_have_its_old_version(
        self, trial: Trial
    ) -> None:
        first = await trial.put(trial.key(), "first")
        await trial.one(trial.delete_op(trial.key(), first.version))

        again = await trial.put(trial.key(), "another")

        assert again.version != first.version

    @case()
    async def test_an_outcome_tells_the_version_that_is_read(self, trial: Trial) -> None:
        created = await trial.one(trial.put_op(trial.key(), "first"))
        read = await trial.item(trial.key())

        assert read is not None
        assert created.version in ("", read.version)

        edited = await trial.one(trial.put_op(trial.key(), "second", expect=read.version))
        read = await trial.item(trial.key())

        assert read is not None
        assert edited.version in ("", read.version)

    @case()
    async def test_versions_stand_still_while_nobody_writes(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "quiet")
        trial.clock.now_ms += 86_400_000

        async with trial.unwritten():
            await trial.scan()
            after = await trial.item(trial.key())

        assert after == before


def _is_conflict(trial: Trial, outcome: Outcome) -> None:
    """Refused as stale; or where the store can't, done and admitted."""
    if Capability.POSTCHECK in trial.backend.capabilities and outcome.result is Result.APPLIED:
        assert outcome.overtaken, "another's write was replaced, and the outcome does not say so"
        return
    assert outcome.result is Result.CONFLICT


async def _race(trial: Trial, expect: str) -> list[Outcome]:
    """Many write one key at once, from one version."""
    ops = [
        trial.put_op(trial.key(), f"writer {number}", expect=expect) for number in range(_WRITERS)
    ]
    return list(await asyncio.gather(*(trial.one(op) for op in ops)))
