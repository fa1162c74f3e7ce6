"""A repetition goes on after a case that fails, and says which it was and why."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from bench.cases import ALL_CASES, Repetition, Scale, reason
from bench.compiled import Tally, WrongAnswers
from bench.large import LARGE_CASES, NEEDS, Large, too_large
from bench.payload import NotReady, Operation, Variant
from bench.servers import SERVERS, Server

LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""
SCALE = Scale(seconds=0.01, environments=1, events=1, commands=1, settle_s=0)


class Loaded:
    """A compiled generator as a fake; `wrong` is what its check finds."""

    generator = "h2load, one key"

    def __init__(self, wrong: str = "") -> None:
        self._wrong = wrong

    async def begin(self, callers: int) -> None:
        pass

    async def run(self, callers: int, seconds: float) -> Tally:
        return Tally(1234.0, done=callers)

    async def check(self, tally: Tally) -> None:
        if self._wrong:
            raise WrongAnswers(self._wrong)


class Fake:
    """A client of a server that only listens; its sets fail, its gets do not."""

    lacks: Mapping[str, str] = {"propagation": "nobody tells"}

    def __init__(self, loaded: Loaded | None = None) -> None:
        self.variants: Mapping[str, Sequence[Variant]] = {
            "get": (Variant("Get", self._operations(), loaded),),
            "set": (Variant("Set", self._operations(RuntimeError("no room"))),),
        }
        self.not_ready = 2

    def _operations(
        self, error: Exception | None = None
    ) -> Callable[[int], Awaitable[Sequence[Operation]]]:
        async def operation(_: int) -> int:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return 1

        async def begin(callers: int) -> Sequence[Operation]:
            return [operation] * callers

        return begin

    async def answers(self) -> None:
        if self.not_ready:
            self.not_ready -= 1
            raise NotReady

    async def close(self) -> None:
        pass

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            pass

        return send

    def random_sets(self, prefix: str, environments: int) -> Variant:
        return Variant("Set", self._operations())

    async def flush_lag_s(self) -> float | None:
        return 0.25

    async def export(self, prefix: str) -> int:
        return 0

    async def propagation(self, count: int) -> Sequence[float]:
        return ()


def server(home: Path, client: Fake, script: str = LISTENS) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", script, str(port)]
    return Server("envd", home / "data", f"127.0.0.1:{port}", command, ["true"], client)


async def test_a_case_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    one = server(tmp_path, Fake())
    repetition = Repetition(one, SCALE, ["start", "set-1", "set-16", "get-1"], compiled=False)

    await repetition.run()

    assert [sample.case for sample in repetition.samples] == ["start", "get-1"]
    assert repetition.failures == {
        "set-1": "RuntimeError: no room",
        "set-16": "RuntimeError: no room",
    }
    assert not one.lives()


async def test_a_server_that_does_not_start_is_named_with_what_it_said(tmp_path: Path) -> None:
    one = server(tmp_path, Fake(), "raise SystemExit('no such flag')")
    repetition = Repetition(one, SCALE, ["start", "get-1"], compiled=False)

    await repetition.run()

    assert repetition.samples == []
    assert repetition.failures["start"] == "RuntimeError: envd ended when it started: no such flag"


async def test_plain_rows_come_from_the_compiled_generator_and_say_so(tmp_path: Path) -> None:
    repetition = Repetition(server(tmp_path, Fake(Loaded())), SCALE, ["get-64"], compiled=True)

    await repetition.run()

    (sample,) = repetition.samples
    assert (sample.generator, sample.value, sample.unit) == ("h2load, one key", 1234.0, "gets/s")


async def test_without_it_they_come_from_python_and_say_so(tmp_path: Path) -> None:
    repetition = Repetition(server(tmp_path, Fake(Loaded())), SCALE, ["get-64"], compiled=False)

    await repetition.run()

    assert [sample.generator for sample in repetition.samples] == ["python"]


async def test_a_rate_whose_check_fails_is_no_sample(tmp_path: Path) -> None:
    fake = Fake(Loaded("9 of 10 arrived"))
    repetition = Repetition(server(tmp_path, fake), SCALE, ["get-64"], compiled=True)

    await repetition.run()

    assert repetition.samples == []
    assert repetition.failures == {"get-64": "WrongAnswers: 9 of 10 arrived"}


async def test_what_a_peer_lacks_is_not_tried(tmp_path: Path) -> None:
    repetition = Repetition(
        server(tmp_path, Fake()), SCALE, ["propagation-p99", "start"], compiled=False
    )

    await repetition.run()

    assert repetition.failures == {}
    assert [sample.case for sample in repetition.samples] == ["start"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "it took too long"),
        (ExceptionGroup("g", [ExceptionGroup("h", [ValueError("a\nb")])]), "ValueError: a"),
        (KeyError(), "KeyError: no message"),
    ],
)
def test_a_reason_is_one_line(error: Exception, text: str) -> None:
    assert reason(error) == text


async def test_the_large_cases_each_have_a_sample(tmp_path: Path) -> None:
    one = server(tmp_path, Fake())
    large = Large(one, environments=3, seconds=0.01, settle_s=0)

    await large.run(limit_s=60)

    samples = large.samples(LARGE_CASES)
    assert {sample.case for sample in samples} == set(LARGE_CASES)
    assert [sample.value for sample in samples if sample.case == "large-flush-lag"] == [0.25]
    assert not one.lives()


async def test_large_cases_that_take_too_long_end_with_their_server(tmp_path: Path) -> None:
    one = server(tmp_path, Fake())
    large = Large(one, environments=3, seconds=600, settle_s=0)

    with pytest.raises(TimeoutError):
        await large.run(limit_s=0.5)

    assert not one.lives()


def test_what_the_machine_does_not_hold_is_said_in_gigabytes(tmp_path: Path) -> None:
    assert too_large("envd", 0, tmp_path) == ""
    assert too_large("etcd", 10**12, tmp_path).startswith("it may need 16000000 GB of disk, and ")


def test_every_server_has_its_needs_and_every_case_one_name() -> None:
    assert set(NEEDS) == set(SERVERS)
    assert len(set(ALL_CASES)) == len(ALL_CASES)
    assert set(LARGE_CASES) < set(ALL_CASES)
