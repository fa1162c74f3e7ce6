"""Around the measurements of every comparison: a good end whatever ends it, and its report."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import uvloop

from bench.figures import Aim, Sample, document, plot, rows, table

RESULTS: Final = Path(__file__).parent / "results"


class Stoppable(Protocol):
    """A run that can be interrupted."""

    stopped: bool
    not_run: dict[str, str]


@contextmanager
def interruptible(run: Stoppable) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is within, and the run says so."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.stopped = True
        run.not_run["the rest"] = "it was interrupted"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def ended_by_signals(work: Coroutine[object, object, None]) -> None:
    """Run it; Ctrl-C and SIGTERM cancel it, so that it stops its servers on the way out."""

    async def run() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await task

    try:
        uvloop.run(run())
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _interrupt)


def machine() -> dict[str, object]:
    """When and where this is, for a report."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processors": os.cpu_count(),
        "load_average_after": os.getloadavg(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def report(
    stem: str,
    samples: Sequence[Sample],
    about: Mapping[str, object],
    aims: Mapping[str, Sequence[Aim]],
    series: Sequence[Mapping[str, object]] = (),
) -> None:
    """Print the table, and keep text, JSON and plot in `RESULTS`; `about` has its `time`.

    `series` is what was seen over time; only the JSON has it.
    """
    made = rows(samples, aims)
    plain = {key: said for key, said in about.items() if key != "not_run"}
    text = "\n".join([*(f"{key}: {said}" for key, said in plain.items()), "", table(made)])
    not_run = about["not_run"]
    if isinstance(not_run, dict):
        text += "".join(f"\nNOT RUN: {name}: {why}" for name, why in not_run.items())
    RESULTS.mkdir(exist_ok=True)
    stem = f"{stem}-{str(about['time']).replace(':', '')}"
    (RESULTS / f"{stem}.txt").write_text(text + "\n")
    (RESULTS / f"{stem}.json").write_text(document(made, about, samples, series))
    (RESULTS / f"{stem}.svg").write_text(plot(made))
    print(text)
    say(f"written: bench/results/{stem}.txt, .json and .svg")


def say(text: str) -> None:
    """Tell how far it is; results go elsewhere."""
    print(text, file=sys.stderr, flush=True)
