"""Finding differences: what is counted, and that exactly what differed was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.finding import Asking, Finding, Traffic, check_pulled
from envd.node.handshake import Peer
from envd.node.repair import Pulled
from envd.wire import peers as wire

Method = Callable[[Peer, bytes], Awaitable[bytes]]


def frames(method: str, question: bytes, answer: bytes) -> int:
    return len(wire.encode(wire.Call(1, method, question))) + len(
        wire.encode(wire.Reply(1, answer))
    )


def test_comparing_and_fetching_are_counted_apart_with_their_frames() -> None:
    traffic = Traffic()

    traffic.count("repair.groups", b"", b"x" * 1_000)
    traffic.count("repair.missing", b"q" * 10, b"x" * 500)

    assert traffic.finding == frames("repair.groups", b"", b"x" * 1_000)
    assert traffic.fetching == frames("repair.missing", b"q" * 10, b"x" * 500)
    assert traffic.calls == 2


async def test_each_call_of_a_peer_counts() -> None:
    async def groups(_: Peer, body: bytes) -> bytes:
        return body * 2

    asking = Asking({"repair.groups": groups})

    assert await asking("repair.groups", b"ab") == b"abab"
    assert asking.traffic.finding == frames("repair.groups", b"ab", b"abab")


async def test_a_few_differences_cost_a_few_kilobytes(tmp_path: Path) -> None:
    finding = Finding(tmp_path, entries=12)

    await finding.run()

    found = {(sample.case, sample.variant): sample.value for sample in finding.samples}
    assert list(found) == [
        ("find-1", "to find, of 12"),
        ("find-1", "with the commits"),
        ("find-10", "to find, of 12"),
        ("find-10", "with the commits"),
    ]
    assert 1_000 < found["find-1", "to find, of 12"] < 10_000
    assert found["find-1", "to find, of 12"] < found["find-1", "with the commits"]
    assert found["find-1", "to find, of 12"] < found["find-10", "to find, of 12"]


@pytest.mark.parametrize("pulled", [Pulled(2, 3), Pulled(3, 2), Pulled()])
def test_what_was_not_pulled_exactly_is_an_error(pulled: Pulled) -> None:
    with pytest.raises(RuntimeError, match="2 environments differed"):
        check_pulled(pulled, 2)
