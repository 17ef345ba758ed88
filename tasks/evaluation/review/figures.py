"""Plots of the page: a line of text each with a drawing in SVG that takes the room there is, on a phone and in print.

Only the drawings stretch; texts beside them keep their size and wrap. Colours and fonts are those of the page's style
sheet. Every text is escaped, and shows what could hide or reorder it.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from tasks.contracts.artifacts import Difference, Interval
from tasks.contracts.metric_names import facts_of
from tasks.evaluation.review.visible import visible

_WIDTH, _HEIGHT = 400, 20
"""Of a line's drawing, in units that are stretched."""
_MARGIN = 1.08
"""How much wider a scale is than what is drawn on it, so that ends are seen to be ends."""
_BINS, _TALL = 24, 120


def intervals(rows: Sequence[tuple[str, str, Difference | Interval]], common_scale: bool = False) -> Markup:
    """Draw differences with their intervals around zero, a line each.

    Args:
        rows: label, metric and difference of each line.
        common_scale: one scale for all lines; otherwise each has its own, as metrics have other units.
    """
    ends = [(abs(difference.low), abs(difference.high)) for _, _, difference in rows]
    extents = [_MARGIN * max((1e-12, *filter(math.isfinite, pair))) for pair in ends]
    if common_scale and extents:
        extents = [max(extents)] * len(rows)
    lines = [_interval(*row, extent) for row, extent in zip(rows, extents, strict=True)]
    return _plot(lines, "differences with their intervals")


def _interval(label: str, metric: str, difference: Difference | Interval, extent: float) -> Markup:
    drawing = Markup('<line class="zero" x1="{0}" y1="0" x2="{0}" y2="20"/>').format(_WIDTH // 2)
    ends = (difference.low, difference.value, difference.high)
    low, value, high = (_number(_WIDTH / 2 * (1 + figure / extent)) for figure in ends)
    drawn = Markup(
        '<line class="{kind}" x1="{low}" y1="10" x2="{high}" y2="10"/>'
        '<line class="point {kind}" x1="{value}" y1="10" x2="{value}" y2="10"/>'
    ).format(kind=reading(metric, difference), low=low, value=value, high=high)
    digits = f"+.{facts_of(metric).decimals}f"
    named = f"{label}\N{NO-BREAK SPACE}↓" if facts_of(metric).better == "lower" else label
    said = f"{difference.value:{digits}} [{difference.low:{digits}}, {difference.high:{digits}}]"
    return _line(named, drawing + drawn if all(map(math.isfinite, ends)) else drawing, said)


def reading(metric: str, difference: Difference | Interval) -> str:
    """Say whether a difference is "better", "worse" or "open": whether its interval leaves zero, and which way."""
    better = facts_of(metric).better
    if better == "neither" or difference.low <= 0 <= difference.high:
        return "open"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def histogram(values: Mapping[str, Sequence[float]], unit: str) -> Markup:
    """Draw how figures are distributed, a line a series; the highest tenth of a percent is left out of the picture."""
    filled = {name: np.asarray(series, dtype=float) for name, series in values.items() if len(series)}
    if not filled:
        return Markup("")
    together = np.concatenate(list(filled.values()))
    top = max(float(np.quantile(together, 0.999)), 1.0)
    edges = np.linspace(0, top, _BINS + 1)
    counts = {name: np.histogram(np.minimum(series, top), edges)[0] / len(series) for name, series in filled.items()}
    highest = max(float(count.max()) for count in counts.values())
    parts = [Markup('<line class="zero" x1="0" y1="{0}" x2="{1}" y2="{0}"/>').format(_TALL, _WIDTH)]
    for number, count in enumerate(counts.values()):
        points = " ".join(
            f"{_WIDTH * (place + 0.5) / _BINS:.1f},{_TALL - (_TALL - 6) * share / highest:.1f}"
            for place, share in enumerate(count)
        )
        parts.append(Markup('<polyline class="series s{}" points="{}"/>').format(number, points))
    legend = Markup(" ").join(
        Markup('<span class="legend s{}">{}</span>').format(number, visible(name)) for number, name in enumerate(counts)
    )
    scale = Markup('<div class="scale"><span>0</span><span>{} {}</span></div>').format(f"{top:.0f}", unit)
    drawn = _svg(Markup("").join(parts), _TALL, "tall")
    frame = Markup('<figure class="plot" role="img" aria-label="distribution of {}"><div>{}</div>{}{}</figure>')
    return frame.format(unit, legend, drawn, scale)


def bars(values: Mapping[str, tuple[float, float]], unit: str) -> Markup:
    """Draw two figures a line: a bar to the first, and a thin one on to the second."""
    most = _MARGIN * max((second for _, second in values.values()), default=0) or 1
    lines = [
        _line(
            name,
            Markup(
                '<rect class="thin" x="0" y="8" width="{}" height="4"/>'
                '<rect class="bar" x="0" y="3" width="{}" height="14"/>'
            ).format(_number(_WIDTH * second / most), _number(_WIDTH * first / most)),
            f"{first:.3g} to {second:.3g} {unit}",
        )
        for name, (first, second) in values.items()
    ]
    return _plot(lines, unit)


def _plot(lines: Sequence[Markup], what: str) -> Markup:
    return Markup('<figure class="plot" role="img" aria-label="{}">{}</figure>').format(what, Markup("").join(lines))


def _line(label: str, drawing: Markup, said: str) -> Markup:
    line = Markup('<div class="line"><span>{}</span>{}<span class="figures">{}</span></div>')
    return line.format(visible(label), _svg(drawing, _HEIGHT), said)


def _svg(drawing: Markup, height: int, kind: str = "flat") -> Markup:
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">')
    return head.format(kind, _WIDTH, height) + drawing + Markup("</svg>")


def _number(value: float) -> str:
    return f"{value:.1f}"
