"""A harness with a proxy injects faults on the wire, and counts what came over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from envd.backends.contract import Backend, Key, Op, Options, Result, Scope, Verb
from envd.backends.errors import StoreUnavailable, Throttled
from envd.backends.memory import MemoryBackend
from envd.testing.conformance import CASES
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Calls
from envd.testing.proxy import Hold, Match, Noted, Reset, Respond, Rule
from envd.testing.proxy_rules import Action
from envd.testing.wire import WireHarness
from tests.testing.upstream import OverHttp, upstream

_PATHS = {Call.SCAN: "/scan", Call.GET: "/get", Call.APPLY: "/apply"}
_KEY = Key("", "NAME")


class TinyHarness(WireHarness):
    """A backend that asks a tiny store over HTTP."""

    name = "tiny"
    wire_faults = frozenset({Kind.THROTTLED, Kind.RESET, Kind.HANG})

    def __init__(self, url: str) -> None:
        self.upstream = url
        self.edits: list[tuple[str, str]] = []
        super().__init__()

    def backend(self, options: Options) -> Backend:
        return OverHttp(MemoryBackend(options), self.proxy.url)

    def rules(self, fault: Fault) -> Sequence[Rule]:
        match = Match(path=_PATHS[fault.call] if fault.call is not None else "")
        wait = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}
        actions: dict[Kind, Action] = {
            Kind.THROTTLED: Respond(429, wait),
            Kind.RESET: Reset(),
            Kind.HANG: Hold(),
        }
        return [Rule(match, actions[fault.kind], fault.after, fault.times)]

    def write_of(self, native: str) -> Match:
        return Match(path="/apply")

    async def others_put(self, native: str, value: str) -> None:
        self.edits.append((native, value))

    def is_write(self, noted: Noted) -> bool:
        return noted.method == "PUT"


@pytest.fixture
async def harness() -> AsyncIterator[TinyHarness]:
    async with upstream() as store:
        tiny = TinyHarness(store.url)
        await tiny.begin()
        yield tiny
        await tiny.end()


@pytest.fixture
async def backend(harness: TinyHarness) -> AsyncIterator[Backend]:
    made = await harness.make(Options("tiny"))
    await made.open()
    yield made
    await made.close()


async def _scan(backend: Backend) -> int:
    return len([page async for page in backend.scan(Scope())])


async def test_a_fault_of_the_wire_goes_through_the_backends_own_translation(
    harness: TinyHarness, backend: Backend
) -> None:
    await harness.inject(Fault(Kind.THROTTLED, Call.GET, retry_after_s=7))

    with pytest.raises(Throttled) as caught:
        await backend.get_many([_KEY])

    assert caught.value.retry_after_s == 7
    assert harness.proxy.requests[0].status == 429
    assert len(await backend.get_many([_KEY])) == 1


async def test_a_fault_that_the_wire_does_not_have_happens_at_the_contract(
    harness: TinyHarness, backend: Backend
) -> None:
    await harness.inject(Fault(Kind.UNAVAILABLE, Call.SCAN))

    with pytest.raises(StoreUnavailable):
        await _scan(backend)

    assert harness.proxy.requests == ()


async def test_calls_are_those_that_came_over_the_wire(
    harness: TinyHarness, backend: Backend
) -> None:
    await _scan(backend)
    await backend.get_many([_KEY])
    await backend.apply([Op(Verb.PUT, _KEY, "", "value")], idempotency="1")

    assert harness.calls() == Calls(2, 1)


async def test_others_write_right_before_the_request_that_decides_a_write(
    harness: TinyHarness, backend: Backend
) -> None:
    await harness.others_put_meanwhile("NAME", "theirs")

    await backend.get_many([_KEY])
    before = list(harness.edits)
    for attempt in "12":
        await backend.apply([Op(Verb.PUT, _KEY, "", "value")], idempotency=attempt)

    assert before == []
    assert harness.edits == [("NAME", "theirs")]


async def test_a_write_that_hangs_on_the_wire_can_be_cancelled(
    harness: TinyHarness, backend: Backend
) -> None:
    await harness.inject(Fault(Kind.HANG, Call.APPLY))
    op = Op(Verb.PUT, _KEY, "", "value")
    doing = asyncio.create_task(backend.apply([op], idempotency="1"))
    await harness.hung()

    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await harness.release()

    (outcome,) = await backend.apply([op], idempotency="2")
    assert outcome.result is Result.APPLIED


async def test_the_report_tells_where_the_faults_of_a_case_are(harness: TinyHarness) -> None:
    throttled = CASES["test_throttling_tells_no_time_where_the_store_says_none"]
    forbidden = CASES["test_what_is_forbidden_is_refused"]
    healthy = CASES["test_one_item_is_listed"]

    found = [case.faults_at(harness.wire_faults) for case in (throttled, forbidden, healthy)]

    assert found == ["wire", "contract", ""]
