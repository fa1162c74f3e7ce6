"""The convergence after a heal as a plot: in text, and as SVG written by hand.

Over time, the share of the acknowledged writes that at least 1, 2, ... nodes show; the text has
the mean number of nodes that show one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chaos.live.outcome import Curve

_COLUMNS: Final = 60
_ROWS: Final = 8
_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 40, 50
_SHADES: Final = ("#c6dbef", "#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b", "#041a3a")


def text(curve: Sequence[Curve]) -> list[str]:
    """Lines of at most 72 characters."""
    nodes = len(curve[0].shown)
    picked = [curve[(len(curve) - 1) * at // (_COLUMNS - 1)] for at in range(_COLUMNS)]
    means = [sum(point.shown) for point in picked]
    lines = []
    for row in range(_ROWS, 0, -1):
        bound = nodes * (row - 0.5) / _ROWS
        label = f"{nodes * row / _ROWS:5.1f}" if row in (_ROWS, _ROWS // 2) else " " * 5
        lines.append(f"{label} |" + "".join("#" if mean >= bound else " " for mean in means))
    first, last = f"{picked[0].at_s:.2f} s", f"{picked[-1].at_s:.2f} s after the heal"
    lines.append(f"{0:5.1f} +" + "-" * _COLUMNS)
    lines.append(" " * 7 + first + last.rjust(_COLUMNS - len(first)))
    return [line.rstrip() for line in lines]


def svg(curve: Sequence[Curve], title: str) -> str:
    """A picture of its own, without scripts or fonts."""
    begin_s, end_s = curve[0].at_s, curve[-1].at_s
    span_s = max(end_s - begin_s, 1e-9)

    def x(at_s: float) -> float:
        return _LEFT + (at_s - begin_s) / span_s * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{title}: acknowledged writes that at least '
        "so many nodes show</text>",
    ]
    for count in range(len(curve[0].shown)):
        points = " ".join(f"{x(each.at_s):.1f},{y(each.shown[count]):.1f}" for each in curve)
        area = f"{x(begin_s):.1f},{y(0):.1f} {points} {x(end_s):.1f},{y(0):.1f}"
        shade = _SHADES[min(count, len(_SHADES) - 1)]
        parts.append(f'<polygon points="{area}" fill="{shade}"/>')
        at = _LEFT + 10 + 70 * count
        parts.append(f'<rect x="{at}" y="{_HEIGHT - 16}" width="10" height="10" fill="{shade}"/>')
        parts.append(f'<text x="{at + 14}" y="{_HEIGHT - 7}">{count + 1} nodes</text>')
    parts += [
        f'<text x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    parts += [
        f'<text x="{x(at_s):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
        f"{at_s:.2f} s</text>"
        for at_s in (begin_s, 0.0, end_s)
    ]
    parts.append(
        f'<line x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="{y(0):.1f}" y2="{y(1):.1f}" '
        'stroke="black" stroke-dasharray="4 3"/>'
    )
    return "\n".join([*parts, "</svg>", ""])
