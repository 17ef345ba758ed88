"""Code in Markdown: what stands in fences and between backticks, which no rule for prose may touch."""

import re

_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<rest>[^\n]*)$", re.MULTILINE)
_LINE_WITH_BACKTICK = re.compile(r"`[^\n]*")
_BACKTICKS = re.compile("`+")


def prose_spans(text: str) -> list[tuple[int, int]]:
    """Return the spans outside Markdown code; the first begins at 0. A fence that nothing closes runs to the end."""
    if "`" not in text and "~~~" not in text:
        return [(0, len(text))]
    spans: list[tuple[int, int]] = []
    start = 0
    opened = ""
    for line in _FENCE.finditer(text):
        fence = line["fence"]
        if not opened and not (fence[0] == "`" and "`" in line["rest"]):
            spans += _around_inline_code(text, start, line.start())
            opened = fence
        elif opened and fence.startswith(opened) and not line["rest"].strip():
            start, opened = line.end(), ""
    return spans if opened else spans + _around_inline_code(text, start, len(text))


def _around_inline_code(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Return the spans outside inline code: it ends on its line, at the next run of as many backticks."""
    spans = []
    for line in _LINE_WITH_BACKTICK.finditer(text, start, end):
        runs = list(_BACKTICKS.finditer(text, line.start(), line.end()))
        later: dict[int, list[re.Match[str]]] = {}
        for run in reversed(runs):
            later.setdefault(len(run[0]), []).append(run)
        for run in runs:
            same = later[len(run[0])]
            same.pop()  # this one: they come in the order of the line
            if run.start() >= start and same:
                spans.append((start, run.start()))
                start = same[-1].end()
    return [*spans, (start, end)]
