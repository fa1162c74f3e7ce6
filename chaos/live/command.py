"""`python -m chaos.live`: run scenarios one after the other, then write the report.

Exit code 0 where every scenario that was asked for ran and holds, 1 where one does not hold or
could not run, 2 for wrong usage, 130 after Ctrl-C. The report is written anew after each scenario,
so a run that is broken off still tells what it had seen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.live import namespaces, report
from chaos.live.cluster import Cluster
from chaos.live.namespaces import NamespaceNetwork
from chaos.live.outcome import Outcome
from chaos.live.places import CannotRun, Network
from chaos.live.processes import DidNotStart
from chaos.live.proxies import ProxyNetwork
from chaos.live.scenario import USUAL_NODES, Scenario
from chaos.live.scenarios import ALL, BY_NAME
from chaos.live.stage import Stage
from envd.core.errors import EnvdError

INTERRUPTED: Final = 130
_INSIDE: Final = "--inside"
_OPEN_S: Final = 120.0


@dataclass(frozen=True)
class Run:
    """What was asked for. `refusal`: why there are no namespaces, "" where there are."""

    scenarios: Sequence[Scenario]
    nodes: int | None
    seconds: float
    seed: int
    namespaces: bool
    refusal: str
    logs: Path
    report: Path
    outcomes: list[Outcome] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    inside = _INSIDE in given
    options = _parser().parse_args([each for each in given if each != _INSIDE])
    refusal = ""
    if options.network == "proxies":
        refusal = "--network proxies was asked for"
    elif inside:
        namespaces.prepare()
    else:
        refusal = namespaces.refusal()
        if not refusal:
            namespaces.enter([*given, _INSIDE])
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # Children are programs, never forks.
    logs = options.logs or Path(tempfile.mkdtemp(prefix="envd-chaos-logs-"))
    run = Run(
        _chosen(options.scenario),
        options.nodes,
        options.seconds,
        options.seed,
        not refusal,
        refusal,
        logs,
        options.report,
    )
    code = _interruptible(_all(run))
    all_hold = len(run.outcomes) == len(run.scenarios) and all(each.holds for each in run.outcomes)
    if all_hold and not options.logs:
        shutil.rmtree(logs)
    _say(f"report: {options.report}" + ("" if all_hold else f"   logs of the nodes: {logs}"))
    return code or (0 if all_hold else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.live",
        description="Real envd nodes under real faults, and a verdict: nothing acknowledged is "
        "lost, and all nodes end equal.",
        epilog="Scenarios: " + "; ".join(f"{each.name} ({each.about})" for each in ALL),
    )
    parser.add_argument(
        "--nodes",
        type=int,
        help=f"where a scenario leaves it open (default: {USUAL_NODES}, where partitions move 8)",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults last")
    parser.add_argument("--seed", type=int, default=1, help="of writers, choices and proxies")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=["all", *BY_NAME],
        metavar="NAME",
        help="may be repeated (default: all)",
    )
    parser.add_argument("--network", choices=["auto", "proxies"], default="auto")
    parser.add_argument("--report", type=Path, default=Path("chaos-live.md"))
    parser.add_argument("--logs", type=Path, help="keep the nodes' logs there")
    return parser


def _chosen(names: Sequence[str] | None) -> Sequence[Scenario]:
    return ALL if not names or "all" in names else [BY_NAME[name] for name in names]


def _interruptible(work: Coroutine[None, None, None]) -> int:
    """Run to the end; SIGTERM and Ctrl-C cancel, and everything is cleaned up on the way out."""

    async def until_told() -> int:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            _say("interrupted")
            return INTERRUPTED
        return 0

    return asyncio.run(until_told())


async def _all(run: Run) -> None:
    for scenario in run.scenarios:
        outcome = Outcome(scenario.name, scenario.about)
        run.outcomes.append(outcome)
        _say(f"{scenario.name}: {scenario.about}")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            await _one(run, scenario, outcome)
        except CannotRun as error:
            outcome.could_not_run = str(error)
        except asyncio.CancelledError:
            outcome.could_not_run = "broken off"
            raise
        except (DidNotStart, EnvdError, TimeoutError, subprocess.TimeoutExpired) as error:
            outcome.could_not_run = f"broke off: {type(error).__name__} {error}"
        finally:
            outcome.took_s = loop.time() - began_s
            _say(report.line(outcome))
            about = report.about(run.seed, run.seconds, run.refusal)
            report.write(run.report, run.outcomes, about)


async def _one(run: Run, scenario: Scenario, outcome: Outcome) -> None:
    network = _network(run, scenario)
    outcome.network = network.kind
    outcome.nodes = len(network.places) - scenario.shape.spares
    logs = run.logs / scenario.name
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="envd-chaos-") as name:
        home = Path(name)
        with _small_disk(home / network.places[0].name, scenario.disk_mb):
            cluster = Cluster(network, home, logs, scenario.shape)
            stage: Stage | None = None
            try:
                async with asyncio.timeout(_OPEN_S):
                    await cluster.open()
                stage = Stage(cluster, run.seconds, run.seed, outcome, _say)
                await stage.begin()
                await scenario.run(stage)
            finally:
                if stage is not None:
                    await stage.close()
                await cluster.close()


def _network(run: Run, scenario: Scenario) -> Network:
    nodes = (scenario.nodes or run.nodes or scenario.usual) + scenario.shape.spares
    if run.namespaces and not scenario.proxies:
        return NamespaceNetwork(nodes, scenario.left)
    return ProxyNetwork(nodes, scenario.left, run.seed)


@contextmanager
def _small_disk(directory: Path, size_mb: int) -> Iterator[None]:
    """A tmpfs of this size at `directory`, where that may be mounted and is asked for."""
    if not size_mb:
        yield
        return
    directory.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "none", str(directory)]
    mounted = False
    with suppress(OSError):
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=False)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
