"""Group 10, faults: whatever goes wrong has the right name, changes nothing unseen, and passes.

Reads raise, an `apply` answers. The right error matters: one that is a refusal is never tried
again, the others are.
"""

from __future__ import annotations

from envd.backends.contract import Capability, Outcome, Result
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    StoreUnavailable,
    Throttled,
)
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Need
from envd.testing.trial import Trial, case

_RETRY_AFTER_S = 7.0


class FaultCases:
    """Faults."""

    @case(Kind.THROTTLED)
    async def test_throttling_tells_how_long_to_wait_where_the_store_says(
        self, trial: Trial
    ) -> None:
        errors = await _read_and_write(
            trial, Kind.THROTTLED, Throttled, retry_after_s=_RETRY_AFTER_S
        )

        waits = [error.retry_after_s for error in errors if isinstance(error, Throttled)]
        assert waits == [_RETRY_AFTER_S] * len(errors)

    @case(Kind.THROTTLED)
    async def test_throttling_tells_no_time_where_the_store_says_none(self, trial: Trial) -> None:
        errors = await _read_and_write(trial, Kind.THROTTLED, Throttled)

        waits = [error.retry_after_s for error in errors if isinstance(error, Throttled)]
        assert waits == [0.0] * len(errors)

    @case(Kind.AUTH_EXPIRED)
    async def test_credentials_that_expired_are_told_from_those_that_never_did(
        self, trial: Trial
    ) -> None:
        await _read_and_write(trial, Kind.AUTH_EXPIRED, AuthExpired)

    @case(Kind.AUTH_EXPIRED, Need.PAGES, Need.MANY)
    async def test_credentials_that_expire_during_a_scan_end_it_with_an_error(
        self, trial: Trial
    ) -> None:
        await _ends_with_an_error(trial, Kind.AUTH_EXPIRED, AuthExpired)

    @case(Kind.FORBIDDEN)
    async def test_what_is_forbidden_is_refused(self, trial: Trial) -> None:
        await _read_and_write(trial, Kind.FORBIDDEN, Forbidden)

    @case(Kind.UNAVAILABLE)
    async def test_a_store_that_is_ill_is_unavailable(self, trial: Trial) -> None:
        await _read_and_write(trial, Kind.UNAVAILABLE, StoreUnavailable)

    @case(Kind.RESET)
    async def test_a_connection_that_is_reset_is_unavailable(self, trial: Trial) -> None:
        await _read_and_write(trial, Kind.RESET, StoreUnavailable)

    @case(Kind.RESET, Need.PAGES, Need.MANY)
    async def test_a_connection_that_is_reset_during_a_scan_ends_it_with_an_error(
        self, trial: Trial
    ) -> None:
        await _ends_with_an_error(trial, Kind.RESET, StoreUnavailable)

    @case(Kind.THROTTLED, Need.PAGES, Need.MANY)
    async def test_throttling_during_a_scan_ends_it_with_an_error(self, trial: Trial) -> None:
        await _ends_with_an_error(trial, Kind.THROTTLED, Throttled)

    @case(Kind.LOST_REPLY)
    async def test_a_write_whose_reply_is_lost_may_be_done(self, trial: Trial) -> None:
        await trial.inject(Fault(Kind.LOST_REPLY, Call.APPLY))

        outcome = await trial.one(trial.put_op(trial.key(), "written"))

        assert outcome.result is Result.FAILED
        assert isinstance(outcome.error, StoreUnavailable)
        assert outcome.error.changed == "unknown"
        assert await trial.item(trial.key()) is not None

    @case(Kind.MALFORMED)
    async def test_a_read_without_sense_is_unavailable(self, trial: Trial) -> None:
        await trial.put(trial.key(), "there")
        await trial.inject(Fault(Kind.MALFORMED, Call.GET))

        error = await _read(trial)

        assert type(error) is StoreUnavailable

    @case(Kind.MALFORMED)
    async def test_an_answer_to_a_write_without_sense_is_unavailable(self, trial: Trial) -> None:
        await trial.inject(Fault(Kind.MALFORMED, Call.APPLY))

        outcome = await trial.one(trial.put_op(trial.key(), "written"))

        assert outcome.result is Result.FAILED
        assert isinstance(outcome.error, StoreUnavailable)

    @case(Kind.STALE_READ, Capability.CAS)
    async def test_who_read_the_past_does_not_overwrite_the_present(self, trial: Trial) -> None:
        old = await trial.put(trial.key(), "past")
        await trial.inject(Fault(Kind.STALE_READ, Call.GET, times=1))
        await trial.one(trial.put_op(trial.key(), "present", expect=old.version))
        stale = await trial.item(trial.key())
        assert stale is not None
        assert stale.version == old.version, "the read was not of the past"

        outcome = await trial.one(trial.put_op(trial.key(), "future", expect=stale.version))

        assert outcome.result is Result.CONFLICT
        assert await trial.read(trial.key()) in (None, "present")

    @case(Kind.UNAVAILABLE, Kind.THROTTLED, Kind.FORBIDDEN, Kind.AUTH_EXPIRED)
    async def test_a_probe_tells_what_is_wrong_and_never_raises(self, trial: Trial) -> None:
        for kind in (Kind.UNAVAILABLE, Kind.THROTTLED, Kind.FORBIDDEN, Kind.AUTH_EXPIRED):
            await trial.inject(Fault(kind, Call.PROBE))

            health = await trial.backend.probe()

            assert not health.ok, f"a probe that was {kind.value} says that all is well"
            assert health.detail, "a probe says what is wrong"

    @case()
    async def test_a_probe_of_a_store_that_is_well_says_so(self, trial: Trial) -> None:
        async with trial.unwritten():
            health = await trial.backend.probe()

        assert health.ok
        assert health.round_trip_ms >= 0


async def _read_and_write(
    trial: Trial, kind: Kind, error: type[BackendError], *, retry_after_s: float = 0.0
) -> list[BackendError]:
    """A listing, a read and a write meet a fault: the right error each time, then all is well."""
    before = await trial.put(trial.key(), "before")
    op = trial.put_op(trial.key(), "after", expect=before.version)

    await trial.inject(Fault(kind, Call.SCAN, retry_after_s=retry_after_s))
    listing = await trial.expect_error(error, trial.scan())
    await trial.inject(Fault(kind, Call.GET, retry_after_s=retry_after_s))
    reading = await _read(trial)
    await trial.inject(Fault(kind, Call.APPLY, retry_after_s=retry_after_s))
    async with trial.unchanged():
        outcome = await trial.one(op)

    assert type(reading) is error, f"it is {type(reading).__name__}"
    writing = _error_of(outcome, error)
    again = await trial.one(op)
    assert again.result is Result.APPLIED, "a fault that has passed still does harm"
    assert (await trial.scan()).complete
    return [listing, reading, writing]


def _error_of(outcome: Outcome, error: type[BackendError]) -> BackendError:
    """The error of an outcome, which is the right one, with the result that belongs to it."""
    assert outcome.error is not None
    assert type(outcome.error) is error, f"it is {type(outcome.error).__name__}"
    assert outcome.result is (Result.REJECTED if error.is_refusal else Result.FAILED)
    return outcome.error


async def _read(trial: Trial) -> BackendError | None:
    """The error that a read by name raises, or has for the key."""
    try:
        found = (await trial.backend.get_many([trial.key()]))[trial.key()]
    except BackendError as error:
        return error
    return found if isinstance(found, BackendError) else None


async def _ends_with_an_error(trial: Trial, kind: Kind, error: type[BackendError]) -> None:
    """A scan that breaks after its first page raises, and says complete nowhere before."""
    size = trial.backend.limits.page_items
    await trial.fill(dict.fromkeys(trial.keys(size + 1), "there"))
    await trial.inject(Fault(kind, Call.SCAN, after=1))
    said_complete = False

    async def scan() -> None:
        nonlocal said_complete
        async for page in trial.backend.scan(trial.scope):
            said_complete = said_complete or page.complete

    await trial.expect_error(error, scan())

    assert not said_complete, "a scan that broke said that it was complete"
    assert len((await trial.scan()).items) == size + 1
