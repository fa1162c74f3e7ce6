"""What a huge run needs is told before it begins, and how far it is while it runs."""

from __future__ import annotations

from pathlib import Path

from bench.growth import Look
from bench.huge_cases import AIMS, Size, progress, too_large

NAMES = tuple(f"V{n}" for n in range(20))


def size(environments: int, variables: int = 20) -> Size:
    return Size(environments, NAMES[:variables], phase_s=60, look_s=5)


def test_a_machine_without_room_is_told_what_it_would_need(tmp_path: Path) -> None:
    assert too_large(size(10), tmp_path) == ""
    assert "GB of disk" in too_large(size(1_000_000_000), tmp_path)


def test_how_far_it_is_goes_by_the_last_looks() -> None:
    looks = [
        Look(float(n), n * 100, [300.0, 310.0], [100.0, 110.0], [512.0, 512.0], [], [0.5, 2.5])
        for n in range(11)
    ]

    told = progress(looks, total=13_000, names=20)

    assert "1,000 environments, 2,000 variables/s, 2 min left" in told
    assert "anon 100/110 MB, RSS 300/310 MB, disk 1.0 GB, flush lag 2.5 s" in told


def test_a_load_that_stands_is_told() -> None:
    looks = [Look(float(n), 100, [0.0], [0.0], [0.0], [], [0.0]) for n in range(3)]

    assert "it stands" in progress(looks, total=1_000, names=20)


def test_nothing_may_fail_or_differ() -> None:
    none = ("calls-failed", "lists-differing", "sample-differing", "roots-differing")

    assert [AIMS[case][0].verdict(1, "of them") for case in none] == [
        "aim <= 0 of them: MISSED"
    ] * len(none)
