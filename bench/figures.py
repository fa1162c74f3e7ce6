"""Samples into rows, and rows into a table, JSON and a plot. Nothing here measures anything."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Final, TypeAlias

BUSY: Final = 0.9
"""From this share of one core on, the generator may be what limits a row."""
QUIET: Final = 0.2
"""Up to this share of one core, other processes are left unsaid."""
OURS: Final = "envd"
PYTHON: Final = "python"
_RATE: Final = "/s"


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition of one case by one peer; times are processor seconds within `wall_s`.

    `generator` names what made the load, "" where nothing did; `remark` is what else there is to
    say of it. `rss_mb` is the resident memory,
    `anon_mb` what of it is anonymous: not the pages of files, which the system can take back.
    """

    case: str
    peer: str
    variant: str
    value: float
    unit: str
    wall_s: float
    server_cpu_s: float
    generator_cpu_s: float
    others_cpu_s: float
    rss_mb: float
    disk_mb: float
    anon_mb: float = 0.0
    generator: str = ""
    remark: str = ""

    @property
    def others(self) -> float:
        """How many cores other processes of the machine took meanwhile."""
        return self.others_cpu_s / self.wall_s if self.wall_s else 0.0

    @property
    def generator_limited(self) -> bool:
        """The generator took a core, and the server took less than the generator."""
        busy = self.generator_cpu_s >= BUSY * self.wall_s
        return busy and self.server_cpu_s < self.generator_cpu_s


@dataclass(frozen=True, slots=True)
class Row:
    """All repetitions of one case by one variant of one peer.

    `ratio` is the median of envd's variant of the same name, else its first, over this one's,
    where the same kind of generator made both: one in Python or a compiled one.
    `generator_limited` holds where it was so in most repetitions, and then the peer could have
    done more than the figure says. `others` is how many cores other processes took, which makes
    generator and server both slower.
    """

    case: str
    peer: str
    variant: str
    generator: str
    unit: str
    median: float
    least: float
    most: float
    server_cpu_s: float
    rss_mb: float
    anon_mb: float
    disk_mb: float
    generator_limited: bool
    others: float
    ratio: float | None
    verdict: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Aim:
    """What envd's figure should be: a bound of its own, or of its ratio to a peer's variant.

    The ratio is that of envd's first variant, or of the one that `ours` names.
    """

    bound: float
    peer: str = ""
    variant: str = ""
    ours: str = ""

    def verdict(self, figure: float, unit: str) -> str:
        """Rates and their ratios should reach the bound, times and sizes stay below it."""
        at_least = unit.endswith(_RATE)
        met = figure >= self.bound if at_least else figure <= self.bound
        sign = ">=" if at_least else "<="
        unit = "x" if self.peer else unit
        said = f"aim {sign} {self.bound:,.10g} {unit}: {'met' if met else 'MISSED'}"
        return f"{self.ours} {number(figure)} {unit}, {said}" if self.ours else said


Ours: TypeAlias = Mapping[tuple[str, str], Mapping[str, float]]
"""envd's medians by variant, for each case and kind of generator."""


def rows(samples: Sequence[Sample], aims: Mapping[str, Sequence[Aim]]) -> list[Row]:
    """One row for each case, peer and variant, in the order of their first samples."""
    groups: dict[tuple[str, str, str, str], list[Sample]] = {}
    for sample in samples:
        key = (sample.case, sample.peer, sample.variant, sample.generator)
        groups.setdefault(key, []).append(sample)
    order = {case: at for at, case in enumerate(dict.fromkeys(case for case, *_ in groups))}
    ours: dict[tuple[str, str], dict[str, float]] = {}
    for (case, peer, variant, generator), group in groups.items():
        if peer == OURS:
            median = statistics.median(one.value for one in group)
            ours.setdefault((case, _kind(generator)), {})[variant] = median
    made = [_row(group, ours, aims.get(key[0], ())) for key, group in groups.items()]
    return sorted(made, key=lambda row: order[row.case])


def _kind(generator: str) -> str:
    return generator if generator in {"", PYTHON} else "compiled"


def _row(group: Sequence[Sample], ours: Ours, aims: Sequence[Aim]) -> Row:
    first = group[0]
    values = [one.value for one in group]
    median = statistics.median(values)
    beside = ours.get((first.case, _kind(first.generator)), {})
    if first.peer == OURS or median == 0:
        beside = {}
    ratios = {variant: figure / median for variant, figure in beside.items()}
    ratio = ratios.get(first.variant, next(iter(ratios.values()), None))
    verdicts = [
        aim.verdict(median, first.unit) for aim in aims if first.peer == OURS and not aim.peer
    ]
    for aim in aims:
        figure = ratios.get(aim.ours) if aim.ours else ratio
        if figure is not None and (aim.peer, aim.variant) == (first.peer, first.variant):
            verdicts.append(aim.verdict(figure, first.unit))
    return Row(
        case=first.case,
        peer=first.peer,
        variant=first.variant,
        generator=first.generator,
        unit=first.unit,
        median=median,
        least=min(values),
        most=max(values),
        server_cpu_s=statistics.median(one.server_cpu_s for one in group),
        rss_mb=statistics.median(one.rss_mb for one in group),
        anon_mb=statistics.median(one.anon_mb for one in group),
        disk_mb=statistics.median(one.disk_mb for one in group),
        generator_limited=sum(one.generator_limited for one in group) * 2 > len(group),
        others=statistics.median(one.others for one in group),
        ratio=ratio,
        verdict="; ".join(verdicts),
        remark="; ".join(dict.fromkeys(one.remark for one in group if one.remark)),
    )


def table(made: Sequence[Row]) -> str:
    """The rows as text, one below the other."""
    heads = ("case", "peer", "how", "load by", "median", "min - max", "unit", "CPU s")
    lines = [(*heads, "RSS MB", "anon MB", "disk MB", "envd/peer", "remarks")]
    for row in made:
        remarks = ["the load generator was the limit"] if row.generator_limited else []
        if row.others > QUIET:
            remarks.append(f"other processes took {row.others:.1f} cores")
        remarks += [said for said in (row.remark, row.verdict) if said]
        lines.append(
            (
                row.case,
                row.peer,
                row.variant,
                row.generator,
                number(row.median),
                f"{number(row.least)} - {number(row.most)}",
                row.unit,
                f"{row.server_cpu_s:.2f}",
                f"{row.rss_mb:.0f}",
                f"{row.anon_mb:.0f}",
                f"{row.disk_mb:.0f}",
                "" if row.ratio is None else f"{row.ratio:.2f}",
                "; ".join(remarks),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def number(figure: float) -> str:
    """Three digits that count: 0.123, 12.3, 12,345."""
    if figure == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(figure))))
    return f"{figure:,.{min(digits, 4)}f}"


def document(
    made: Sequence[Row],
    about: Mapping[str, object],
    samples: Sequence[Sample],
    series: Sequence[Mapping[str, object]] = (),
) -> str:
    """Everything as JSON."""
    plain: dict[str, object] = {
        "about": about,
        "rows": [asdict(row) for row in made],
        "samples": [asdict(sample) for sample in samples],
    }
    if series:
        plain["series"] = series
    return json.dumps(plain, indent=1) + "\n"


_COLOURS: Final = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
_CASE, _LEFT, _WIDE, _BAR, _HIGH = 10, 450, 400, 14, 20


def plot(made: Sequence[Row]) -> str:
    """The rows as an SVG: a bar each, as a share of the largest of its case, with the range."""
    largest: dict[str, float] = {}
    for row in made:
        largest[row.case] = max(largest.get(row.case, 0), row.most)
    peers = list(dict.fromkeys(row.peer for row in made))
    parts, y, case = [], 10, ""
    for row in made:
        if row.case != case:
            case, y = row.case, y + 10
            parts.append(f'<text x="{_CASE}" y="{y + 11}" font-weight="bold">{escape(case)}</text>')
        colour = _COLOURS[peers.index(row.peer) % len(_COLOURS)]
        parts.append(_bar(row, y, _WIDE / (largest[row.case] or 1), colour))
        y += _HIGH
    note = "each case to its own scale; line: min - max; *: the load generator was the limit"
    parts.append(f'<text x="{_LEFT}" y="{y + 20}">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDE + 280}" '
        f'height="{y + 35}" font-family="sans-serif" font-size="11">'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(row: Row, y: float, scale: float, colour: str) -> str:
    generator = row.generator.partition(",")[0]
    how = ", ".join(part for part in (row.peer, row.variant, generator) if part)
    middle = y + _BAR / 2
    missed = "MISSED" in row.verdict
    said = f"{number(row.median)} {row.unit}{' *' if row.generator_limited else ''}"
    said += f", {OURS}'s aim missed" if missed else ""
    return (
        f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(how)}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{row.median * scale:.1f}" height="{_BAR}" '
        f'fill="{colour}"/>'
        f'<line x1="{_LEFT + row.least * scale:.1f}" x2="{_LEFT + row.most * scale:.1f}" '
        f'y1="{middle}" y2="{middle}" stroke="black"/>'
        f'<text x="{_LEFT + _WIDE + 8}" y="{y + 11}">{escape(said)}</text>'
    )
