"""What compiled generators print, and the runs that are refused as no measurement."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

import pytest

from bench.compiled import (
    PACKAGES,
    GrpcRequest,
    H2load,
    RedisBenchmark,
    Tally,
    WrongAnswers,
    framed,
    h2load_tally,
    missing,
    redis_calls,
    redis_tally,
    refuse_short,
)

GOOD = """\
starting benchmark...
spawning thread #0: 16 total client(s). Timing-based test with 0s of warm-up time.
progress: 100% of clients started
Application protocol: h2c

finished in 2.30s, 3848.50 req/s, 981.61KB/s
requests: 7697 total, 7697 started, 7697 done, 7697 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 7697 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.92MB (2010345) total, 27.52KB (28185) headers (space savings 96.13%), 1.73MB (1816990) data
                     min         max         mean         sd        +/- sd
time for request:      426us     11.63ms      4.15ms      1.07ms    73.92%
"""  # noqa: E501 - as it is printed
CSV = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms"\n'
    '"HSET set/e0 A 000000","13034.50","4.807","0.784","4.631"\n'
)


def counter(*counts: int) -> Callable[[], Awaitable[int]]:
    left = iter(counts)

    async def count() -> int:
        return next(left)

    return count


def request(written: Callable[[], Awaitable[int]] | None = None) -> GrpcRequest:
    return GrpcRequest("/a.B/C", b"message", (), least_answer=10, written=written)


def built(one: GrpcRequest) -> Callable[[], Awaitable[GrpcRequest]]:
    async def build() -> GrpcRequest:
        return one

    return build


class Printing(H2load):
    """h2load as it would be with a server that answers well."""

    async def run(self, callers: int, seconds: float) -> Tally:
        return Tally(100.0, done=100, data_bytes=100 * 15)


def test_a_message_has_its_length_before_it() -> None:
    assert framed(b"abc") == b"\x00\x00\x00\x00\x03abc"


def test_the_summary_of_h2load_is_read() -> None:
    assert h2load_tally(GOOD) == Tally(3848.50, 7697, 1816990)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("7697 succeeded, 0 failed", "7690 succeeded, 7 failed"),
        ("0 errored", "1 errored"),
        ("0 timeout", "2 timeout"),
        ("7697 2xx, 0 3xx", "7696 2xx, 1 3xx"),
        ("7697 done, 7697 succeeded", "0 done, 0 succeeded"),
        ("finished in", "ended in"),
        ("traffic:", ""),
    ],
)
def test_a_run_in_which_not_all_went_well_is_refused(old: str, new: str) -> None:
    output = GOOD.replace(old, new)
    if old == "traffic:":
        output = output.replace("(space savings", "(saved")

    with pytest.raises(WrongAnswers):
        h2load_tally(output)


def test_answers_without_a_message_are_errors_and_refused() -> None:
    good = Tally(1.0, done=4, data_bytes=4 * 15)

    refuse_short(good, least_answer=10)
    with pytest.raises(WrongAnswers, match="4 answers have 45 bytes, good ones 60 or more"):
        refuse_short(Tally(1.0, done=4, data_bytes=3 * 15), least_answer=10)


async def test_writes_that_the_server_did_not_count_are_refused() -> None:
    load = Printing("127.0.0.1:1", built(request(counter(7, 106))))
    await load.begin(4)

    with pytest.raises(WrongAnswers, match="100 writes by h2load's count, 99 arrived"):
        await load.check(await load.run(4, 1))


async def test_writes_that_all_arrived_are_good_with_some_more_at_the_end() -> None:
    load = Printing("127.0.0.1:1", built(request(counter(7, 109))))
    await load.begin(4)

    await load.check(await load.run(4, 1))


def test_the_csv_of_redis_benchmark_is_read() -> None:
    assert redis_tally(CSV, 500) == Tally(13034.5, 500)


@pytest.mark.parametrize("output", ["", "Error from server: ERR\n", '"test","rps"\n'])
def test_without_a_row_of_csv_there_is_no_rate(output: str) -> None:
    with pytest.raises(WrongAnswers):
        redis_tally(output, 500)


def test_the_calls_of_a_redis_command_are_read_with_those_that_failed() -> None:
    line = "cmdstat_hset:calls=600,usec=9,usec_per_call=1.5,rejected_calls=1,failed_calls=2"

    assert redis_calls(line) == (600, 3)
    assert redis_calls("") == (0, 0)


@pytest.mark.parametrize(
    ("calls", "failed", "good"), [(500, 0, True), (499, 0, False), (500, 1, False)]
)
async def test_redis_counts_what_it_did_and_what_failed(
    calls: int, failed: int, good: bool
) -> None:
    async def stats() -> str:
        return f"cmdstat_hset:calls={calls},usec=9,rejected_calls=0,failed_calls={failed}"

    load = RedisBenchmark(1, ["HSET"], stats)

    if good:
        await load.check(Tally(1.0, done=500))
        return
    with pytest.raises(WrongAnswers):
        await load.check(Tally(1.0, done=500))


def test_only_the_generators_that_the_peers_need_are_missed() -> None:
    found = {name for name in PACKAGES if shutil.which(name) is None}

    assert set(missing(["envd", "etcd"])) == found & {"h2load"}
    assert set(missing(["envd", "redis-always"])) == found
    assert all("apt-get install" in why for why in missing(["redis-always"]).values())
