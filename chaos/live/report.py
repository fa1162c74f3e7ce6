"""The report of a run in Markdown, with a plot of the convergence for each scenario beside it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import envd
from chaos.live import plot
from chaos.live.outcome import Moment, Outcome


@dataclass(frozen=True, slots=True)
class About:
    """What a stranger needs to know to read the figures."""

    when: str
    machine: str
    seed: int
    seconds: float
    refusal: str


def about(seed: int, seconds: float, refusal: str) -> About:
    """Of this machine, now."""
    machine = (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, envd {envd.__version__}"
    )
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return About(when, machine, seed, seconds, refusal)


def write(path: Path, outcomes: Sequence[Outcome], told: About) -> None:
    """Write the report, and the plots beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        if outcome.curve:
            _plot_path(path, outcome).write_text(plot.svg(outcome.curve, outcome.scenario))
    path.write_text(render(outcomes, told, lambda outcome: _plot_path(path, outcome).name))


def _plot_path(path: Path, outcome: Outcome) -> Path:
    return path.with_name(f"{path.stem}-{outcome.scenario}.svg")


def render(outcomes: Sequence[Outcome], told: About, plot_name: Callable[[Outcome], str]) -> str:
    """The text of the report; `plot_name(outcome)` names the file of a plot."""
    lines = [
        "# Live chaos",
        "",
        f"Real `envd` processes under real faults. {told.when}; {told.machine}; seed {told.seed}; "
        f"faults of {told.seconds:g} s.",
        "",
        _network_line(told),
        "",
        *_table(outcomes),
        "",
        *_could_not_run(outcomes),
    ]
    for outcome in outcomes:
        if not outcome.could_not_run or outcome.moments:
            lines += _details(outcome, plot_name(outcome))
    return "\n".join(lines).rstrip() + "\n"


def _network_line(told: About) -> str:
    if told.refusal:
        return f"The network is loopback with proxies ({told.refusal})."
    return (
        "Each node lives in a network namespace of its own, on one of two bridges that a veth "
        "pair joins; `slow-link` uses proxies on loopback, for the kernel here has no netem."
    )


_HEAD = (
    "| scenario | verdict | network | nodes | writes | failed | detached | conflicts | to catch up "
    "| shown everywhere | equal | p50 / p99 / max |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        *_HEAD,
        *map(_row, outcomes),
        "",
        "*failed*: writes that ended with an error, over all writers, those of a killed node "
        "included. *to catch up*: acknowledged writes that some node did not show when the last "
        "fault was mended. *shown everywhere*: how long after that every node showed every one "
        "of them. *equal*: how long after that fault, and after the last write, the reading began "
        "that found the same revisions and conflicts on all nodes. The last column is the time "
        "of an acknowledged write.",
    ]


def _row(outcome: Outcome) -> str:
    if outcome.could_not_run:
        verdict = "**broke off**" if outcome.moments else "**did not run**"
        return f"| {outcome.scenario} | {verdict} |" + " |" * 10
    p50, p99, most = outcome.latencies_ms
    cells = [
        outcome.scenario,
        "holds" if outcome.holds else "**does not hold**",
        outcome.network,
        str(outcome.nodes),
        str(outcome.acknowledged),
        str(outcome.failed.total()),
        str(outcome.detached),
        str(outcome.conflicts),
        str(outcome.backlog),
        _seconds(outcome.shown_s),
        _seconds(outcome.equal_s),
        f"{p50:.0f} / {p99:.0f} / {most:.0f} ms",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def _could_not_run(outcomes: Sequence[Outcome]) -> list[str]:
    missing = [outcome for outcome in outcomes if outcome.could_not_run]
    if not missing:
        return []
    return [
        "## What did not run to its end",
        "",
        *(f"* `{each.scenario}` ({each.about}): {each.could_not_run}" for each in missing),
        "",
    ]


def _details(outcome: Outcome, plot_name: str) -> list[str]:
    lines = [f"## {outcome.scenario}", "", _sentence(outcome), ""]
    for verdict in outcome.verdicts:
        mark = "yes" if verdict.holds else "**NO**"
        lines.append(f"* {mark}: {verdict.what} ({_plain(verdict.seen)})")
    if outcome.failed:
        lines += ["", "Failed writes:", ""]
        lines += [
            f"* {writer}: {count} x `{reason}`"
            for (writer, reason), count in sorted(outcome.failed.items())
        ]
    lines += ["", "```", *map(_moment, outcome.moments), "```"]
    lines += _arrivals(outcome)
    if outcome.curve:
        lines += [
            "",
            f"Nodes that show an acknowledged write, on average ([plot]({plot_name})):",
            "",
            "```",
            *plot.text(outcome.curve),
            "```",
        ]
    return [*lines, ""]


def _sentence(outcome: Outcome) -> str:
    about = f"{outcome.about[:1].upper()}{outcome.about[1:]}"
    return f"{about}. It took {outcome.took_s:.0f} s, starts included."


def _moment(moment: Moment) -> str:
    return f"{moment.at_s:7.1f} s  {moment.clock}  {moment.what}"


def _arrivals(outcome: Outcome) -> list[str]:
    """Who was late with whose writes."""
    late = {pair: after_s for pair, after_s in outcome.arrivals_s.items() if after_s > 0}
    if not late:
        return []
    origins = sorted({origin for origin, _ in late})
    targets = sorted({target for _, target in outcome.arrivals_s})
    lines = [
        "",
        "Seconds after the last fault until each node showed all earlier writes of the one named "
        "on the left:",
        "",
        f"| | {' | '.join(targets)} |",
        "|---" * (len(targets) + 1) + "|",
    ]
    for origin in origins:
        cells = [_after(late.get((origin, target))) for target in targets]
        lines.append(f"| {origin} | {' | '.join(cells)} |")
    return lines


def _after(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "never" if seconds == float("inf") else f"{seconds:.2f}"


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("|", "/")


def line(outcome: Outcome) -> str:
    """One scenario in a few lines, for the terminal."""
    if outcome.could_not_run:
        return f"  DID NOT RUN TO ITS END: {outcome.could_not_run}\n"
    lines = [
        f"  {'yes' if verdict.holds else 'NO '}  {verdict.what}: {verdict.seen}"
        for verdict in outcome.verdicts
    ]
    lines.append(
        f"  {outcome.acknowledged} writes, {outcome.failed.total()} failed, {outcome.detached} "
        f"detached, {outcome.conflicts} conflicts; {outcome.backlog} to catch up; shown everywhere "
        f"after {_seconds(outcome.shown_s)}, equal after {_seconds(outcome.equal_s)}\n"
    )
    return "\n".join(lines)
