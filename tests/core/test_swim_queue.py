"""The queue of news and the timers: order, bounds, and what makes older things pointless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envd.core.members import Member, MemberState
from envd.core.swim.broadcasts import Broadcasts
from envd.core.swim.messages import Announcement, Claim, News
from envd.core.swim.timers import Key, Kind, Timers

BASE = 1 << 63


def claim(uid: int, incarnation: int = 0) -> Claim:
    return Claim(BASE + uid, 1, incarnation, MemberState.SUSPECT, 9)


CLAIM_BYTES = claim(1).size_bytes


def uids(news: list[News]) -> list[int]:
    return [item.uid - BASE for item in news]


def test_the_least_told_goes_first_and_of_those_the_newest() -> None:
    queue = Broadcasts()
    for uid in (1, 2, 3):
        queue.put(claim(uid))

    first = queue.take(2 * CLAIM_BYTES, limit=10)
    second = queue.take(2 * CLAIM_BYTES, limit=10)

    assert uids(first) == [3, 2]
    assert uids(second) == [1, 3]


def test_newer_news_of_a_member_makes_the_older_pointless() -> None:
    queue = Broadcasts()
    queue.put(claim(1, incarnation=0))
    queue.take(1000, limit=2)
    queue.put(claim(1, incarnation=1))

    taken = [queue.take(1000, limit=2) for _ in range(3)]

    assert taken == [[claim(1, incarnation=1)], [claim(1, incarnation=1)], []]


def test_news_leaves_the_queue_when_it_was_sent_often_enough() -> None:
    queue = Broadcasts()
    queue.put(claim(1))

    sent = sum(len(queue.take(1000, limit=4)) for _ in range(10))

    assert sent == 4
    assert len(queue) == 0


def test_what_does_not_fit_lets_smaller_news_pass() -> None:
    queue = Broadcasts()
    large = Announcement(Member(BASE + 2, 1, 0, MemberState.ALIVE, "x" * 250, "a:1", "a:2"))
    queue.put(claim(1))
    queue.put(large)

    taken = queue.take(large.size_bytes - 1, limit=4)

    assert taken == [claim(1)]


def test_news_that_is_replaced_a_thousand_times_takes_no_room() -> None:
    queue = Broadcasts()

    for incarnation in range(10_000):
        queue.put(claim(1, incarnation))

    assert len(queue._heap) < 100
    assert queue.take(1000, limit=4) == [claim(1, 9_999)]


def test_what_did_not_fit_is_told_later() -> None:
    queue = Broadcasts()
    large = Announcement(Member(BASE + 2, 1, 0, MemberState.ALIVE, "x" * 250, "a:1", "a:2"))
    queue.put(large)

    taken = [queue.take(room, limit=4) for room in (100, 1000)]

    assert taken == [[], [large]]


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(0, 1400))
def test_a_datagram_is_never_overfull(told: list[int], room: int) -> None:
    queue = Broadcasts()
    for uid in told:
        queue.put(claim(uid))

    taken = queue.take(room, limit=3)

    assert sum(item.size_bytes for item in taken) <= room
    assert len(queue) <= len(set(told))


# -- timers --------------------------------------------------------------------------------

A, B, C = (Kind.PROBE, 0), (Kind.SUSPICION, 7), (Kind.SUSPICION, 8)


def fired(timers: Timers, now_ms: int) -> list[Key]:
    keys = []
    while (key := timers.pop_due(now_ms)) is not None:
        keys.append(key)
    return keys


def test_timers_fire_in_order_and_once() -> None:
    timers = Timers()
    timers.arm(B, 20)
    timers.arm(A, 10)
    timers.arm(C, 20)

    assert timers.due_ms == 10
    assert fired(timers, 19) == [A]
    assert fired(timers, 20) == [B, C]
    assert timers.due_ms is None


def test_arming_again_replaces_and_disarming_prevents() -> None:
    timers = Timers()
    timers.arm(A, 10)
    timers.arm(A, 30)
    timers.arm(B, 15)
    timers.arm_if_idle(B, 5)
    timers.disarm(B)

    assert fired(timers, 29) == []
    assert fired(timers, 30) == [A]


def test_a_delay_keeps_the_order() -> None:
    timers = Timers()
    timers.arm(A, 10)
    timers.arm(B, 12)

    timers.delay(100)

    assert fired(timers, 111) == [A]
    assert fired(timers, 112) == [B]


def test_timers_that_were_armed_a_thousand_times_take_no_room() -> None:
    timers = Timers()

    for due_ms in range(10_000):
        timers.arm(A, due_ms)

    assert len(timers) == 1
    assert len(timers._heap) < 100
