"""How late changes are seen: counted until the last watcher has them, and none is forgotten."""

from __future__ import annotations

import time

from bench.payload import SETS
from bench.spreading import Sightings, Spread, count_of, spread


def test_a_change_is_seen_once_the_last_watcher_has_it() -> None:
    sightings = Sightings(1, watchers=2)
    sightings.sent(range(1), 10.0)

    sightings.saw(0, 0, 11.0)
    before = sightings.unseen
    sightings.saw(1, 0, 13.0)

    assert before == 1
    assert sightings.complete.is_set()
    assert sightings.delays_s(0, now_s=99.0) == [3.0]


def test_the_same_sighting_again_changes_nothing() -> None:
    sightings = Sightings(1, watchers=1)
    sightings.sent(range(1), 10.0)

    sightings.saw(0, 0, 11.0)
    sightings.saw(0, 0, 15.0)

    assert sightings.delays_s(0, now_s=99.0) == [1.0]


def test_what_a_newer_state_replaced_is_seen_with_it() -> None:
    sightings = Sightings(SETS + 1, watchers=1)
    sightings.sent(range(SETS + 1), 10.0)

    sightings.saw(0, SETS, 12.0)

    assert sightings.unseen == SETS - 1  # all but the first, which the last one replaced
    assert sightings.delays_s(0, now_s=12.0)[:1] == [2.0]


def test_what_was_never_seen_is_as_late_as_now() -> None:
    sightings = Sightings(2, watchers=1)
    sightings.sent(range(2), 10.0)

    sightings.saw(0, 1, 11.0)

    assert sightings.delays_s(0, now_s=50.0) == [1.0, 40.0]


def test_changes_of_the_warm_up_do_not_count() -> None:
    sightings = Sightings(2, watchers=1)
    sightings.sent(range(2), 10.0)
    sightings.saw(0, 0, 30.0)

    sightings.saw(0, 1, 11.0)

    assert sightings.delays_s(1, now_s=50.0) == [1.0]


def test_the_share_of_a_few_delays_is_one_of_them() -> None:
    found = Spread([1.0, 2.0, 3.0, 4.0], rate=4, unseen=0)

    assert (found.share_s(0.5), found.share_s(0.99)) == (3.0, 4.0)


async def test_every_change_is_sent_once_and_in_order() -> None:
    sent: list[int] = []
    sightings = Sightings(count_of(2_000, 0.01), watchers=1)

    def send(numbers: range) -> None:
        sent.extend(numbers)
        for n in numbers:
            sightings.saw(0, n, time.perf_counter())

    found = await spread(2_000, 0.01, sightings, send)

    assert sent == list(range(count_of(2_000, 0.01)))
    assert found.unseen == 0
    assert len(found.delays_s) == 20
