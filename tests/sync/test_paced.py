"""A paced backend: haste is forgiven, and no answer of a part is lost with the rest."""

from __future__ import annotations

from envd.backends.contract import Key, Limits, Op, Options, Result, Verb
from envd.backends.errors import AuthExpired, Forbidden, Throttled
from envd.backends.memory import MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.sync.paced import Paced
from tests.sync.world import StillClock


class Revoked(MemoryBackend):
    """Its credentials can't be renewed."""

    async def open(self) -> None:
        raise Forbidden("the role is gone")


def op(name: str) -> Op:
    return Op(Verb.PUT, Key("", name), "", "1", any_owner=True)


async def test_a_store_that_throttled_once_is_read_at_its_full_rate_again_later() -> None:
    store, clock = MemoryStore("place"), StillClock()
    limits = Limits(reads_per_s=1, page_items=10)
    paced = Paced(MemoryBackend(Options("place"), store=store, limits=limits), clock)
    store.fail("get", Throttled("slowly"))

    async def get() -> None:
        await paced.get_many([Key("", "A")])

    for _ in range(101):
        await get()
    before_ms = clock.now_ms
    for _ in range(10):
        await get()

    assert clock.now_ms - before_ms <= 10_500


async def test_what_was_written_is_told_where_the_credentials_ran_out_after_it() -> None:
    store, clock = MemoryStore("place"), StillClock()
    limits = Limits(batch=10, page_items=10)
    paced = Paced(Revoked(Options("place"), store=store, limits=limits), clock)
    store.fail("put", AuthExpired("it ran out"))

    outcomes = await paced.apply([op("B"), op("C")], idempotency="1")

    assert [outcome.result for outcome in outcomes] == [Result.FAILED, Result.APPLIED]
    assert isinstance(outcomes[0].error, Forbidden)
    assert set(store.values()) == {"C"}
