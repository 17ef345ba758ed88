"""Plots as SVG in the page itself: they need no script, scale to a phone and print.

Colours and fonts are those of the page's style sheet. Every text is escaped, and shows what could hide or reorder it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from tasks.contracts.artifacts import Difference
from tasks.contracts.metric_names import facts_of
from tasks.evaluation.review.visible import visible

_WIDTH, _ROW, _LABEL, _FIGURES = 720, 26, 150, 190
_BINS = 24


def intervals(rows: Sequence[tuple[str, str, Difference]], common_scale: bool = False) -> Markup:
    """Draw differences with their intervals around zero, a line each.

    Args:
        rows: label, metric and difference of each line.
        common_scale: one scale for all lines; otherwise each has its own, as metrics have other units.
    """
    extents = [max(abs(difference.low), abs(difference.high), 1e-12) for _, _, difference in rows]
    if common_scale and extents:
        extents = [max(extents)] * len(rows)
    centre, half = (_LABEL + _WIDTH - _FIGURES) / 2, (_WIDTH - _FIGURES - _LABEL) / 2 - 8
    height = _ROW * len(rows) + 8
    parts = [Markup('<line class="zero" x1="{0}" y1="0" x2="{0}" y2="{1}"/>').format(_number(centre), height)]
    for place, ((label, metric, difference), extent) in enumerate(zip(rows, extents, strict=True)):
        middle = place * _ROW + _ROW / 2 + 4
        low, value, high = (
            centre + half * figure / extent for figure in (difference.low, difference.value, difference.high)
        )
        kind = reading(metric, difference)
        digits = f"+.{facts_of(metric).decimals}f"
        figures = f"{difference.value:{digits}} [{difference.low:{digits}}, {difference.high:{digits}}]"
        parts.append(
            Markup(
                '<text class="label" x="0" y="{y4}">{label}</text>'
                '<line class="{kind}" x1="{low}" y1="{y}" x2="{high}" y2="{y}"/>'
                '<circle class="{kind}" cx="{value}" cy="{y}" r="4"/>'
                '<text class="figures" x="{right}" y="{y4}">{figures}</text>'
            ).format(
                y=_number(middle),
                y4=_number(middle + 4),
                label=_shortened(label),
                kind=kind,
                low=_number(low),
                high=_number(high),
                value=_number(value),
                right=_WIDTH,
                figures=figures,
            )
        )
    return _svg(parts, height, "differences with their intervals")


def reading(metric: str, difference: Difference) -> str:
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
    width, height = _WIDTH - 40, 150
    parts = [
        Markup('<line class="axis" x1="20" y1="{0}" x2="{1}" y2="{0}"/>').format(height, 20 + width),
        Markup('<text class="tick" x="20" y="{}">0</text>').format(height + 16),
        Markup('<text class="figures" x="{}" y="{}">{} {}</text>').format(20 + width, height + 16, f"{top:.0f}", unit),
    ]
    for number, (name, count) in enumerate(counts.items()):
        points = " ".join(
            f"{20 + width * (place + 0.5) / _BINS:.1f},{height - (height - 24) * share / highest:.1f}"
            for place, share in enumerate(count)
        )
        parts.append(Markup('<polyline class="series s{}" points="{}"/>').format(number, points))
        legend = Markup('<text class="legend s{}" x="{}" y="12">{}</text>')
        parts.append(legend.format(number, 20 + number * 160, _shortened(name)))
    return _svg(parts, height + 24, f"distribution of {unit}")


def bars(values: Mapping[str, tuple[float, float]], unit: str) -> Markup:
    """Draw two figures a line: a bar to the first, and a thin one on to the second."""
    most = max((second for _, second in values.values()), default=0) or 1
    width = _WIDTH - _LABEL - _FIGURES
    parts = []
    for place, (name, (first, second)) in enumerate(values.items()):
        top = place * _ROW + 6
        parts.append(
            Markup(
                '<text class="label" x="0" y="{t}">{name}</text>'
                '<rect class="thin" x="{x}" y="{thin}" width="{second}" height="4"/>'
                '<rect class="bar" x="{x}" y="{y}" width="{first}" height="14"/>'
                '<text class="figures" x="{right}" y="{t}">{said}</text>'
            ).format(
                t=top + 12,
                name=_shortened(name),
                x=_LABEL,
                y=top,
                thin=top + 5,
                first=_number(width * first / most),
                second=_number(width * second / most),
                right=_WIDTH,
                said=f"{first:.3g} to {second:.3g} {unit}",
            )
        )
    return _svg(parts, _ROW * len(values) + 8, unit)


def _svg(parts: Sequence[Markup], height: float, what: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _number(height), what)
    return head + Markup("").join(parts) + Markup("</svg>")


def _number(value: float) -> str:
    return f"{value:.1f}"


def _shortened(label: str) -> str:
    return visible(label if len(label) <= 22 else label[:21] + "…")
