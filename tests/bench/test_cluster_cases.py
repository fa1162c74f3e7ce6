"""Three nodes as one server: every case by itself, and what must not count does not."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench.cluster_cases import (
    CASES,
    CHANGES,
    DEFAULT,
    ClusterRepetition,
    ClusterScale,
    expected_s,
)
from bench.figures import Aim
from bench.payload import SETS, Operation, Variant, value
from bench.servers import Server, free_ports
from bench.spreading import Send
from bench.trio import Trio
from bench.trio_envd import Copies
from tests.bench.test_cases import LISTENS, Fake

SCALE = ClusterScale(seconds=0.01, environments=2, change_seconds=0.01)
RUN_S = 12 * 60


class FakeTrio:
    """A store of three whose writes have `copies`; `holding` is what each node counts."""

    change_ways: Sequence[str] = ("to one node",)

    def __init__(self, holding: Sequence[int] = (40, 40, 40)) -> None:
        self._holding = holding
        self._copies = Copies()
        self.variants: Mapping[str, Sequence[Variant]] = {
            "set-batched": (Variant("good", self._sets(2)), Variant("short", self._sets(1))),
            "commit": (Variant("bad", self._sets(2, RuntimeError("no room"))),),
        }

    def _sets(
        self, copies: int, error: Exception | None = None
    ) -> Callable[[int], Awaitable[Sequence[Operation]]]:
        async def operation(_: int) -> int:
            if error is not None:
                raise error
            return int(self._copies.note(copies))

        async def begin(callers: int) -> Sequence[Operation]:
            return [operation] * callers

        return begin

    async def together(self) -> None:
        pass

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            pass

        return send

    async def holds(self, prefix: str) -> Sequence[int]:
        return self._holding

    async def changes(self, way: str, saw: Callable[[int, int], None]) -> Send:
        def send(numbers: range) -> None:
            for n in numbers:
                for watcher in range(3):
                    saw(watcher, n)

        return send

    def remark(self) -> str:
        return self._copies.take()

    async def close(self) -> None:
        pass


def trio(home: Path, client: FakeTrio, script: str = LISTENS) -> Trio:
    ports = free_ports(3)
    nodes = [
        Server(
            "envd",
            home / f"n{at}",
            f"127.0.0.1:{port}",
            [sys.executable, "-c", script, str(port)],
            [],
            Fake(),
        )
        for at, port in enumerate(ports)
    ]
    return Trio("envd", home, nodes, client, first_alone=True)


async def test_three_nodes_are_measured_as_one_and_end_together(tmp_path: Path) -> None:
    three = trio(tmp_path, FakeTrio())
    repetition = ClusterRepetition(three, SCALE, ["set-batched-64", "import", "change-200-p99"])

    await repetition.run()

    assert repetition.failures == {}
    found = [(sample.case, sample.variant) for sample in repetition.samples]
    assert found == [
        ("set-batched-64", "good"),
        ("set-batched-64", "short"),
        ("import", ""),
        ("change-200-p99", "to one node"),
    ]
    assert all(sample.rss_mb > 15 for sample in repetition.samples)  # three interpreters
    assert not any(node.lives() for node in three.nodes)


async def test_writes_with_one_copy_do_not_count_and_are_said(tmp_path: Path) -> None:
    repetition = ClusterRepetition(trio(tmp_path, FakeTrio()), SCALE, ["set-batched-64"])

    await repetition.run()

    good, short = repetition.samples
    assert good.value > 0
    assert good.remark == ""
    assert short.value == 0
    assert "answers had one copy" in short.remark


async def test_a_case_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    repetition = ClusterRepetition(
        trio(tmp_path, FakeTrio(holding=(40, 39, 40))), SCALE, ["commit-16", "import"]
    )

    await repetition.run()

    assert repetition.samples == []
    assert repetition.failures == {
        "commit-16, bad": "RuntimeError: no room",
        "import": "RuntimeError: of 40 variables the nodes have [40, 39, 40]",
    }


async def test_where_a_node_does_not_start_nothing_else_is_tried(tmp_path: Path) -> None:
    three = trio(tmp_path, FakeTrio(), "raise SystemExit('no such flag')")
    repetition = ClusterRepetition(three, SCALE, ["import"])

    await repetition.run()

    assert repetition.failures == {
        "start": "RuntimeError: envd ended when it started: no such flag"
    }


def test_copies_are_counted_from_one_asking_to_the_next() -> None:
    copies = Copies()

    enough = [copies.note(2), copies.note(1), copies.note(3)]

    assert enough == [True, False, True]
    assert copies.take() == "1 of 3 answers had one copy"
    assert copies.take() == ""


def test_a_ratio_of_times_should_stay_below_its_bound() -> None:
    aim = Aim(3, "etcd", "put")

    assert aim.verdict(2.9, "ms") == "aim <= 3 x: met"
    assert aim.verdict(3.1, "ms") == "aim <= 3 x: MISSED"


def test_a_whole_run_is_expected_to_be_short() -> None:
    assert 60 < expected_s(DEFAULT, CASES, peers=2, repetitions=3) < RUN_S - 120


def test_a_change_is_told_by_the_number_in_its_value() -> None:
    assert int(value("A", max(CHANGES) * 60)[:12]) == max(CHANGES) * 60
    assert SETS > 256  # callers that go round do not meet each other


def test_free_ports_are_all_different() -> None:
    ports = free_ports(40)

    assert len(set(ports)) == 40
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
