"""A faulty backend does what its script says, at the calls that it says, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import (
    Backend,
    Capability,
    Hint,
    Item,
    Key,
    Limits,
    Op,
    Options,
    Page,
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    ItemNotFound,
    QuotaExceeded,
    StoreUnavailable,
    Throttled,
)
from envd.backends.memory import CAPABILITIES, MemoryBackend
from envd.testing.faulty import Call, Fault, FaultyBackend, Kind, Tally

_KEY = Key("", "NAME")
_SMALL = Limits(page_items=2, batch=20, get_batch=20)


def faulty(*script: Fault, capabilities: Capability = CAPABILITIES) -> FaultyBackend:
    """A faulty backend on an empty place with small pages."""
    inner = MemoryBackend(Options("x"), capabilities=capabilities, limits=_SMALL)
    return FaultyBackend(inner, script)


def puts(count: int) -> list[Op]:
    return [Op(Verb.PUT, Key("", f"NAME_{at}"), "", f"value {at}") for at in range(count)]


async def fill(backend: Backend, count: int) -> None:
    await backend.apply(puts(count), idempotency="fill")


async def pages(backend: Backend, cursor: str | None = None) -> list[Page]:
    return [page async for page in backend.scan(Scope(), cursor)]


async def names(backend: Backend) -> list[str]:
    return [item.key.variable for page in await pages(backend) for item in page.items]


async def read(backend: Backend, key: Key = _KEY) -> str | None:
    found = (await backend.get_many([key]))[key]
    return found.value if isinstance(found, Item) else None


async def write(backend: Backend, value: str) -> None:
    found = (await backend.get_many([_KEY]))[_KEY]
    version = found.version if isinstance(found, Item) else ""
    await backend.apply([Op(Verb.PUT, _KEY, version, value)], idempotency=value)


def test_it_is_a_backend() -> None:
    assert isinstance(faulty(), Backend)


async def test_without_a_script_nothing_is_changed() -> None:
    backend = faulty()
    await backend.open()
    await fill(backend, 5)

    found = await pages(backend)

    assert [len(page.items) for page in found] == [2, 2, 1]
    assert [page.complete for page in found] == [False, False, True]
    assert (await backend.probe()).ok
    assert backend.decode(backend.encode(_KEY)) == _KEY
    await backend.close()


async def test_calls_are_counted_by_kind() -> None:
    backend = faulty()
    await backend.open()
    await fill(backend, 5)
    await pages(backend)
    await backend.get_many([_KEY])
    await backend.probe()

    tally = backend.tally

    assert tally == Tally(pages=3, gets=1, applies=1, operations=5, probes=1, opens=1)
    assert (tally.reads, tally.writes) == (4, 1)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.THROTTLED, Throttled),
        (Kind.AUTH_EXPIRED, AuthExpired),
        (Kind.FORBIDDEN, Forbidden),
        (Kind.UNAVAILABLE, StoreUnavailable),
        (Kind.RESET, StoreUnavailable),
        (Kind.MALFORMED, StoreUnavailable),
    ],
)
async def test_reads_raise_and_writes_answer(kind: Kind, error: type[BackendError]) -> None:
    backend = faulty(*(Fault(kind, call) for call in (Call.SCAN, Call.GET, Call.APPLY, Call.OPEN)))

    with pytest.raises(error):
        await pages(backend)
    with pytest.raises(error):
        await backend.get_many([_KEY])
    with pytest.raises(error):
        await backend.open()
    outcomes = await backend.apply(puts(2), idempotency="1")

    assert [type(each.error) for each in outcomes] == [error, error]
    expected = Result.REJECTED if error.is_refusal else Result.FAILED
    assert [each.result for each in outcomes] == [expected, expected]
    assert backend.unspent == ()


@pytest.mark.parametrize(
    ("kind", "is_done"),
    [
        (Kind.THROTTLED, False),
        (Kind.UNAVAILABLE, False),
        (Kind.RESET, False),
        (Kind.FORBIDDEN, False),
        (Kind.LOST_REPLY, True),
        (Kind.MALFORMED, True),
    ],
)
async def test_a_write_is_done_only_where_the_store_had_it(kind: Kind, is_done: bool) -> None:
    backend = faulty(Fault(kind, Call.APPLY))

    await fill(backend, 2)

    assert await names(backend) == (["NAME_0", "NAME_1"] if is_done else [])


async def test_throttling_says_how_long_where_the_script_does() -> None:
    backend = faulty(
        Fault(Kind.THROTTLED, Call.GET, retry_after_s=7), Fault(Kind.THROTTLED, Call.GET)
    )
    waits = []

    for _ in range(2):
        with pytest.raises(Throttled) as caught:
            await backend.get_many([_KEY])
        waits.append(caught.value.retry_after_s)

    assert waits == [7, 0]


async def test_credentials_expire_after_some_pages() -> None:
    backend = faulty(Fault(Kind.AUTH_EXPIRED, Call.SCAN, after=2))
    await fill(backend, 6)
    said_complete = 0
    seen = 0

    async def scan() -> None:
        nonlocal said_complete, seen
        async for page in backend.scan(Scope()):
            seen += 1
            said_complete += page.complete

    with pytest.raises(AuthExpired):
        await scan()

    assert (seen, said_complete) == (2, 0)
    assert len(await names(backend)) == 6


async def test_empty_pages_come_before_others_with_a_cursor_that_continues() -> None:
    backend = faulty(Fault(Kind.EMPTY_PAGE, after=1, times=2))
    await fill(backend, 3)

    found = await pages(backend)

    assert [len(page.items) for page in found] == [2, 0, 0, 1]
    assert [page.complete for page in found] == [False, False, False, True]
    rest = await pages(backend, found[2].cursor)
    assert [item.key.variable for page in rest for item in page.items] == ["NAME_2"]


async def test_a_scan_may_end_early_without_being_complete() -> None:
    backend = faulty(Fault(Kind.ENDS_EARLY, after=1))
    await fill(backend, 5)

    found = await pages(backend)

    assert len(found) == 1
    assert not found[0].complete


async def _version(backend: FaultyBackend) -> str:
    """The version as the inner backend has it, without a call that is counted."""
    found = [item async for page in backend._inner.scan(Scope()) for item in page.items]
    return found[0].version


async def test_a_stale_read_is_of_the_past_and_the_next_is_not() -> None:
    backend = faulty()
    await write(backend, "old")
    backend.add(Fault(Kind.STALE_READ, Call.GET))
    await backend.apply([Op(Verb.PUT, _KEY, await _version(backend), "new")], idempotency="2")

    assert [await read(backend), await read(backend)] == ["old", "new"]


async def test_a_stale_read_of_what_was_just_created_finds_nothing() -> None:
    backend = faulty(Fault(Kind.STALE_READ, Call.GET), Fault(Kind.STALE_READ, Call.SCAN))
    await fill(backend, 1)
    key = Key("", "NAME_0")

    found = (await backend.get_many([key]))[key]

    assert isinstance(found, ItemNotFound)
    assert await names(backend) == []
    assert await names(backend) == ["NAME_0"]


async def test_item_seven_of_twenty_fails_and_the_others_do_not() -> None:
    backend = faulty(Fault(Kind.ITEM_FAILS, position=7, error=QuotaExceeded))

    outcomes = await backend.apply(puts(20), idempotency="1")

    assert [each.op for each in outcomes] == puts(20)
    assert [at for at, each in enumerate(outcomes) if each.result is not Result.APPLIED] == [6]
    assert outcomes[6].result is Result.REJECTED
    assert isinstance(outcomes[6].error, QuotaExceeded)
    assert len(await names(backend)) == 19


async def test_item_seven_of_an_atomic_batch_fails_them_all() -> None:
    atomic = CAPABILITIES | Capability.ATOMIC_BATCH
    backend = faulty(Fault(Kind.ITEM_FAILS, position=7), capabilities=atomic)

    outcomes = await backend.apply(puts(20), idempotency="1")

    assert {each.result for each in outcomes} == {Result.FAILED}
    assert await names(backend) == []


async def test_an_apply_hangs_half_way_and_goes_on_once_it_is_released() -> None:
    backend = faulty(Fault(Kind.HANG, Call.APPLY, position=2))
    doing = asyncio.create_task(backend.apply(puts(4), idempotency="1"))
    await backend.hung()
    half_way = await names(backend)

    backend.release()
    outcomes = await doing

    assert half_way == ["NAME_0", "NAME_1"]
    assert [each.op for each in outcomes] == puts(4)
    assert len(await names(backend)) == 4


async def test_an_apply_that_is_cancelled_half_way_did_the_first_half() -> None:
    backend = faulty(Fault(Kind.HANG, Call.APPLY, position=2))
    doing = asyncio.create_task(backend.apply(puts(4), idempotency="1"))
    await backend.hung()

    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing

    assert await names(backend) == ["NAME_0", "NAME_1"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (None, ["A", "B", "C"]),
        (Kind.HINT_LOST, ["B", "C"]),
        (Kind.HINT_DOUBLED, ["A", "A", "B", "C"]),
        (Kind.HINTS_SWAPPED, ["B", "A", "C"]),
    ],
)
async def test_hints_are_lost_doubled_and_swapped(kind: Kind | None, told: list[str]) -> None:
    backend = faulty(*([Fault(kind)] if kind else []))
    ops = [Op(Verb.PUT, Key("", name), "", "x") for name in ("A", "B", "C")]
    await backend.apply(ops, idempotency="1")
    heard: list[Hint] = []

    async for hint in backend.watch(Scope(), "0"):
        heard.append(hint)
        if len(heard) == len(told):
            break

    assert [hint.key.variable for hint in heard if hint.key is not None] == told


async def test_a_watch_may_be_denied() -> None:
    backend = faulty(Fault(Kind.FORBIDDEN, Call.WATCH))
    await fill(backend, 1)

    with pytest.raises(Forbidden):
        await anext(backend.watch(Scope(), "0"))


async def test_a_probe_tells_the_fault_and_does_not_raise() -> None:
    backend = faulty(Fault(Kind.FORBIDDEN, Call.PROBE))

    bad, good = await backend.probe(), await backend.probe()

    assert (bad.ok, good.ok) == (False, True)
    assert bad.detail


@given(after=st.integers(0, 5), times=st.integers(1, 5))
def test_a_fault_meets_just_the_calls_that_it_says(after: int, times: int) -> None:
    async def statuses() -> list[bool]:
        backend = faulty(Fault(Kind.UNAVAILABLE, Call.GET, after=after, times=times))
        failed = []
        for _ in range(12):
            try:
                await backend.get_many([_KEY])
                failed.append(False)
            except StoreUnavailable:
                failed.append(True)
        return failed

    expected = [after <= at < after + times for at in range(12)]
    assert asyncio.run(statuses()) == expected


async def test_a_fault_without_a_number_of_times_meets_all_calls() -> None:
    backend = faulty(Fault(Kind.UNAVAILABLE, Call.GET, times=0))

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await backend.get_many([_KEY])


async def test_of_two_faults_of_one_call_the_first_happens_and_the_other_waits() -> None:
    backend = faulty(Fault(Kind.FORBIDDEN, Call.GET), Fault(Kind.UNAVAILABLE, Call.GET))

    with pytest.raises(Forbidden):
        await backend.get_many([_KEY])
    assert backend.unspent == (Fault(Kind.UNAVAILABLE, Call.GET),)
    with pytest.raises(StoreUnavailable):
        await backend.get_many([_KEY])


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": -1},
        {"times": -1},
        {"position": -1},
        {"retry_after_s": -1.0},
        {"kind": Kind.LOST_REPLY, "call": Call.GET},
        {"kind": Kind.HINT_LOST, "call": Call.SCAN},
    ],
)
def test_a_fault_that_can_not_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"counts from 0|can't happen"):
        replace(Fault(Kind.UNAVAILABLE), **wrong)  # type: ignore[arg-type]
