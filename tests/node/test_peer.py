"""What is known of a peer: its clock, from the quickest answer, until it is set or falls silent."""

from __future__ import annotations

from envd.node.peer import PeerLink

HOUR_MS = 3_600_000


def measured(*answers: tuple[float, float, int]) -> PeerLink:
    """A link with these answers: when, round trip (s), offset (ms)."""
    link = PeerLink(7, 0.0)
    for now_s, round_trip_s, offset_ms in answers:
        link.measured(now_s, round_trip_s, offset_ms)
    return link


def test_of_answers_that_agree_the_quickest_counts() -> None:
    link = measured((1, 0.200, 60), (2, 0.002, 9), (3, 0.500, -120))

    assert link.offset_ms == 9


def test_a_clock_that_was_set_is_known_by_its_next_answer() -> None:
    answers = [(float(at), 0.080, 4 * HOUR_MS) for at in range(8)]

    link = measured(*answers, (8, 0.090, 0))

    assert link.offset_ms == 0
    assert not link.is_behind(8, 60_000)


def test_a_clock_that_drifts_is_not_taken_for_set() -> None:
    link = measured((1, 0.010, 0), (2, 0.020, 40), (3, 0.020, 80))

    assert link.offset_ms == 0


def test_of_a_clock_that_told_nothing_for_long_nothing_is_known() -> None:
    ahead, behind = measured((1, 0.080, 4 * HOUR_MS)), measured((1, 0.080, -HOUR_MS))

    assert (ahead.offset_at(11), behind.is_behind(11, 60_000)) == (4 * HOUR_MS, True)
    assert (ahead.offset_at(11.1), behind.is_behind(11.1, 60_000)) == (0, False)
    assert ahead.offset_ms == 4 * HOUR_MS


def test_a_peer_that_refused_our_log_for_its_stamps_is_behind_until_it_answers() -> None:
    link = measured((1, 0.080, 4 * HOUR_MS))

    link.finds_us_early = True
    assert link.is_behind(2, 60_000)

    link.measured(3, 0.080, 0)
    assert not link.is_behind(3, 60_000)
    assert link.is_behind(3, -HOUR_MS)
