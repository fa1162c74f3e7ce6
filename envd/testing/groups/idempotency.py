"""Group 7, idempotency: who repeats a write because no answer came does not do harm by it."""

from __future__ import annotations

from envd.backends.contract import Capability, Op, Outcome, Result
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Ability, Need
from envd.testing.trial import Trial, case

_REPEATED = (Result.APPLIED, Result.NOOP, Result.CONFLICT)
"""What a repeat may be told: the first answer, that it is so already, or that it has changed since,
which the reconciler recognises as its own write."""


class IdempotencyCases:
    """Idempotency."""

    @case(Kind.LOST_REPLY)
    async def test_a_create_whose_reply_was_lost_is_done_once(self, trial: Trial) -> None:
        op = trial.put_op(trial.key(), "created", stamp="1-a")

        await _is_done_once(trial, op, "created")

    @case(Kind.LOST_REPLY)
    async def test_an_update_whose_reply_was_lost_is_done_once(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")
        op = trial.put_op(trial.key(), "after", expect=before.version, stamp="1-a")

        await _is_done_once(trial, op, "after")

    @case(Kind.LOST_REPLY)
    async def test_a_delete_whose_reply_was_lost_is_done_once(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")
        op = trial.delete_op(trial.key(), before.version)

        first = await _lose_reply(trial, op, trial.attempt())
        again = await trial.one(op)

        assert first.result is Result.FAILED
        assert again.result in _REPEATED
        assert await trial.item(trial.key()) is None

    @case()
    async def test_a_repeat_of_what_was_answered_writes_nothing_more(self, trial: Trial) -> None:
        op, attempt = trial.put_op(trial.key(), "once"), trial.attempt()
        await trial.one(op, attempt=attempt)
        before = await trial.item(trial.key())

        again = await trial.one(op, attempt=attempt)

        assert again.result in _REPEATED
        assert await trial.item(trial.key()) == before

    @case(Kind.LOST_REPLY, Ability.OTHERS, Capability.CAS)
    async def test_a_repeat_does_not_undo_what_others_wrote_since(self, trial: Trial) -> None:
        before = await trial.put(trial.key(), "before")
        op, attempt = trial.put_op(trial.key(), "ours", expect=before.version), trial.attempt()
        await _lose_reply(trial, op, attempt)
        await trial.others_put(trial.key(), "theirs")

        await trial.one(op, attempt=attempt)

        native = trial.backend.encode(trial.key())
        assert (await trial.harness.contents())[native] in (None, trial.value("theirs"))

    @case(Need.VERSIONED)
    async def test_another_attempt_is_not_taken_for_a_repeat(self, trial: Trial) -> None:
        first = await trial.one(trial.put_op(trial.key(), "first"))
        item = await trial.item(trial.key())
        assert item is not None

        second = await trial.one(trial.put_op(trial.key(), "second", expect=item.version))

        assert (first.result, second.result) == (Result.APPLIED, Result.APPLIED)
        assert await trial.read(trial.key()) in (None, "second")


async def _lose_reply(trial: Trial, op: Op, attempt: str) -> Outcome:
    await trial.inject(Fault(Kind.LOST_REPLY, Call.APPLY))
    return await trial.one(op, attempt=attempt)


async def _is_done_once(trial: Trial, op: Op, text: str) -> None:
    """The write is there after the lost reply, and its repeat changes nothing."""
    attempt = trial.attempt()

    first = await _lose_reply(trial, op, attempt)
    done = await trial.item(trial.key())
    again = await trial.one(op, attempt=attempt)

    assert first.result is Result.FAILED, "a lost reply is not known to be anything else"
    assert done is not None
    assert trial.text(done) in (None, text)
    assert again.result in _REPEATED
    assert await trial.item(trial.key()) == done, "the repeat wrote once more"
