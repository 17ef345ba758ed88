"""Pictures of how data versions are distributed, in letters that some installed font has."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import DataError
from tasks.data.versions import KINDS, LENGTH_EDGES, Profile, slices_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("llm_retrain.data")

_DRAWN_SLICES, _LABEL_CHARS = 20, 60
_LOOKS: dict[str, dict[str, Any]] = {"training": {}, "made": {"hatch": "///"}, "evaluation": {"alpha": 0.4}}
_FIRST = "DejaVu Sans"
_BOXES = "Last Resort"
"""Fonts whose name begins so have every character, as a box."""


def write_plot(path: Path, names: list[str], profiles: list[Profile]) -> None:
    """Draw slices and lengths of one or two versions side by side, as PNG, SVG or PDF by the name of `path`.

    Raises:
        DataError: the file's name has no such ending, or it cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if path.suffix not in (".png", ".svg", ".pdf"):
        raise DataError(f"--plot is {str(path)!r}; expected a file that ends in .png, .svg or .pdf")
    slices = slices_of(profiles)
    shown = slices[:_DRAWN_SLICES]
    fonts, missing = fonts_for("".join(shown))
    if missing:
        log.info("no installed font has %d characters of slice names, which the plot spells as \\u...", len(missing))
    with rc_context({"font.family": fonts}):
        figure = Figure(figsize=(10, 8), layout="constrained")
        axes = figure.subplots(3, 1)
        _draw_slices(axes[0], names, profiles, shown)
        axes[0].set_title("rows by slice" + (f" (the {_DRAWN_SLICES} largest)" if len(slices) > len(shown) else ""))
        _label(axes[0], [_spelled(name, missing) for name in shown], len(profiles))
        classes = [*(f"≤{edge}" for edge in LENGTH_EDGES), f">{LENGTH_EDGES[-1]}"]
        for axis, title in ((axes[1], "prompt"), (axes[2], "answer")):
            for number, (name, each) in enumerate(zip(names, profiles, strict=True)):
                values = getattr(each, f"{title}_chars")
                axis.bar(_places(len(values), number, len(profiles)), values, 0.8 / len(profiles), label=name)
            axis.set_title(f"{title}, characters")
            _label(axis, classes, len(profiles))
        try:
            figure.savefig(path)
        except OSError as error:
            raise DataError(f"--plot is {str(path)!r}, which cannot be written ({error.strerror})") from error


def fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """Return the families of fonts that draw a text, to be tried in this order, and the characters that none has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    first = findfont(FontProperties(family=_FIRST))
    missing = _not_in(first, filter(str.isprintable, text))
    families = [_FIRST]
    # Upright ones of normal weight first; by name, so that the order in which they were found changes nothing.
    for font in sorted(
        fontManager.ttflist,
        key=lambda font: (font.style != "normal", font.weight not in (400, "normal"), font.name, font.fname),
    ):
        if not missing:
            break
        if font.name in families or font.name.startswith(_BOXES):
            continue
        left = _not_in(font.fname, missing)
        if left != missing:
            families.append(font.name)
            missing = left
    return families, missing | {char for char in text if not char.isprintable()}


def _not_in(font: str, chars: Iterable[str]) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    has = get_font(font).get_charmap()
    return frozenset(char for char in chars if ord(char) not in has)


def _spelled(name: str, missing: frozenset[str]) -> str:
    spelled = "".join(char.encode("unicode_escape").decode() if char in missing else char for char in name)
    return spelled if len(spelled) <= _LABEL_CHARS else f"{spelled[: _LABEL_CHARS - 1]}…"


def _draw_slices(axis: "Axes", names: list[str], profiles: list[Profile], shown: list[str]) -> None:
    """Draw a bar for each slice of each version: what was read, on it what was made, on it what is evaluated."""
    for number, (name, each) in enumerate(zip(names, profiles, strict=True)):
        below = [0] * len(shown)
        for kind in KINDS:
            values = [each.slices[key][kind] if key in each.slices else 0 for key in shown]
            if not any(values):
                continue
            places = _places(len(shown), number, len(profiles))
            bars = axis.bar(places, values, 0.8 / len(profiles), bottom=below, color=f"C{number}")
            bars.set_label(f"{name} {kind}")
            for bar in bars:
                bar.set(**_LOOKS[kind])
            below = [sum(both) for both in zip(below, values, strict=True)]


def _places(bars: int, number: int, series: int) -> list[float]:
    return [place + number * 0.8 / series for place in range(bars)]


def _label(axis: "Axes", labels: list[str], series: int) -> None:
    middles = [place + 0.4 - 0.4 / series for place in range(len(labels))]
    # A name with two dollar signs is no formula.
    axis.set_xticks(middles, labels, rotation=30, ha="right", parse_math=False)
    axis.legend()
