"""The report for people, in GitHub's markdown. What models and rows say is text and stays text."""

import re
import unicodedata
from collections.abc import Mapping

from tasks.contracts.artifacts import Interval
from tasks.contracts.metric_names import facts_of
from tasks.evaluation.scoring import Scored
from tasks.evaluation.side_by_side import SideBySide

_BETTER = {"higher": "", "lower": "; the lower the better", "neither": "; neither better high nor low"}
_SAMPLES = 5
_SAMPLE_CHARS = 400
# What starts emphasis, code, links, cells, formulas, mentions, issue numbers, and bare addresses ("http:", "www.").
_MARKS = re.compile(r"[\\`*_\[\]|~$#@:]|(?<=www)\.", re.IGNORECASE)
_JOINERS = "\u200c\u200d"  # format characters that Persian and emoji need


def render(rows: SideBySide, scored: Scored, confidence: float) -> str:
    """Return scores, differences and the first answers as markdown."""
    percent = f"{100 * confidence:g} %"
    sections = [
        f"## Scores on {len(rows.ids)} rows, with {percent} intervals",
        _table("metric", scored.scores, signed=False),
        f"## Candidate minus baseline, on the same rows, with {percent} intervals",
        _table("minus", scored.differences, signed=True),
        "\n".join(f"- {name}: {facts_of(name).says}{_BETTER[facts_of(name).better]}" for name in scored.signature),
        "Computed with:",
        "\n".join(f"- `{signature}`" for signature in dict.fromkeys(scored.signature.values())),
        f"## The first {min(_SAMPLES, len(rows.ids))} rows",
        *(_sample(rows, position) for position in range(min(_SAMPLES, len(rows.ids)))),
    ]
    return "\n\n".join(sections) + "\n"


def as_text(text: str, limit_chars: int = _SAMPLE_CHARS) -> str:
    """Escape `text` so that it shows as it is, on one line, in any markdown renderer.

    Markup of HTML becomes entities (renderers that pass HTML through never see a tag), marks of markdown get a
    backslash, line breaks show as ⏎, and control and direction characters, which could hide or reorder what a reviewer
    reads, show as �.
    """
    shown = text if len(text) <= limit_chars else text[:limit_chars] + "…"
    shown = re.sub(r"\s*(?:\r\n|[\n\r\v\f\x85\u2028\u2029])\s*", " ⏎ ", shown.strip()).replace("\t", " ")
    shown = "".join("�" if _hides(character) else character for character in shown)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", shown)


def _hides(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and character not in _JOINERS


def _table(corner: str, figures: Mapping[str, Mapping[str, Interval]], signed: bool) -> str:
    """Return a line a metric and a column a system or baseline."""
    systems = list(figures)
    lines = [_line([corner, *systems]), _line(["---"] + ["---:"] * len(systems))]
    lines += [
        _line([metric, *(_cell(metric, figures[system][metric], signed) for system in systems)])
        for metric in figures[systems[0]]
    ]
    return "\n".join(lines)


def _cell(metric: str, interval: Interval, signed: bool) -> str:
    digits = f"{'+' if signed else ''}.{facts_of(metric).decimals}f"
    return f"{interval.value:{digits}} ({interval.low:{digits}} to {interval.high:{digits}})"


def _sample(rows: SideBySide, position: int) -> str:
    lines = [_line(["", as_text(rows.ids[position][:12])]), _line(["---", "---"])]
    lines.append(_line(["prompt", as_text(rows.prompts[position])]))
    lines.append(_line(["reference", as_text(rows.references[position])]))
    lines += [_line([system, as_text(texts[position])]) for system, texts in rows.answers.items()]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
