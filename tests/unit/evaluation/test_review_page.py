"""The page of a review: complete, self-contained, and what models and rows say is text in it."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from tasks.contracts.artifacts import Difference, Interval, Preference
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import LookupOnlyStore, NotInStore, Store
from tasks.evaluation.gate import decide
from tasks.evaluation.report import load_report, write_report
from tasks.evaluation.review.figures import bars, histogram, intervals, reading
from tasks.evaluation.review.page import Background, render_page
from tasks.evaluation.review.review import write_review
from tasks.evaluation.review.words import compared
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import SideBySide
from tasks.evaluation.significance import expanded

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7 * 7 }} {% raw %} </pre></details> "
    "</style><style>body{display:none}</style> <!-- \x1b[31mred \u202egnp.exe \x00 &lt;b&gt;"
)
ROWS = 40
BACKGROUND = Background(
    "assistant",
    3,
    [("method", "lora")],
    [(f"slice {HOSTILE}", "1", "2")],
    [("built", "2.1", "50 %")],
    [("training", "60 s")],
)


def rows_of():
    numbers = range(ROWS)
    return SideBySide(
        ids=[f"{n:02x}" * 32 for n in numbers],
        prompts=[HOSTILE if n == 0 else f"What does function {n} do?" for n in numbers],
        references=[HOSTILE if n == 0 else f"Return item number {n} of the list." for n in numbers],
        answers={
            "base": [f"It takes {n} things." for n in numbers],
            "champion": [HOSTILE if n == 1 else f"It returns {n}." for n in numbers],
            "candidate": [{2: HOSTILE, 5: "Nonsense"}.get(n, f"Return item {n} of the list.") for n in numbers],
        },
        slices=[HOSTILE if n % 2 else "code" for n in numbers],
        seconds={"base": [0.5, 0.6], "champion": [0.4], "candidate": [0.3, 0.9]},
        bytes={"base": 1_000_000, "champion": 2_000_000, "candidate": 3_000_000},
    )


@pytest.fixture
def reviewed(tmp_path):
    """A report in a store, the gate's decision, and what makes the page of them."""
    evaluation = EvaluationSection(resamples=200, randomisations=1_000)
    rows = rows_of()

    def write(out):
        scored = score_systems(rows, evaluation)
        return write_report(out, rows, scored, evaluation, {})

    report = load_report(Store(tmp_path / "store").produce("report", {}, write).path)
    return SimpleNamespace(
        report=report,
        decision=decide(report, GateSection(), has_champion=True),
        rows=list(read_jsonl(report.path / "predictions.jsonl")),
        store=Store(tmp_path / "store"),
    )


@pytest.fixture
def page(reviewed):
    return render_page(reviewed.report, reviewed.decision, "rougeL", reviewed.rows, BACKGROUND)


class Elements(HTMLParser):
    """Collects elements with their attributes, and all text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_text_is_text_and_never_markup(page):
    found = Elements(page)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "iframe", "link", "object", "a", "form", "base"}
    assert [tag for tag, _ in found.elements].count("style") == 1
    assert not any(name.startswith("on") or name in ("src", "href") for _, each in found.elements for name in each)
    text = "".join(found.text)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text and "49" not in re.findall(r"\b49\b", page)
    assert not any(character in page for character in "\x1b\u202e\x00")
    assert "&lt;b&gt;" in text


def test_the_page_loads_nothing(page):
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|@import", page)


def test_every_system_metric_and_finding_stands_in_the_page(page, reviewed):
    text = "".join(Elements(page).text)
    for metric in reviewed.report.scores["candidate"]:
        assert metric in text
    for finding in reviewed.decision.findings:
        assert finding.sentence in text
    for words in ("base", "champion", "candidate", "version 3", "method", "60 s", "Worst regressions", "Best gains"):
        assert words in text
    assert all(signature in text for signature in reviewed.report.signature.values())


def test_what_a_judge_preferred_stands_in_page_and_markdown_as_text(reviewed):
    share, bias = Interval(0.66, 0.56, 0.75), Interval(0.125, 0.0625, 0.25)
    said = Preference("judge", (HOSTILE,), "champion", 40, 20, 13, 7, share, 0.01, 0.99, 4, 2, bias, 0.375, 72, 3, 1)
    failed = Preference("judge", ("n",), "champion", 0, 0, 0, 0, Interval(0.5, 0, 1), 1, 1, problem=HOSTILE)
    report = dataclasses.replace(reviewed.report, preferences=(said, failed))
    found = Elements(render_page(report, reviewed.decision, "rougeL", reviewed.rows, BACKGROUND))
    text = "".join(found.text)
    assert "Preferred by the judge: <script>alert(1)" in text and not {"script", "img"} & {
        tag for tag, _ in found.elements
    }
    for figure in ("20, 13, 7", "0.660 [0.560, 0.750]", "0.01, 0.99", "+0.125 [+0.062, +0.250]", "37.5%", "72, 3, 1"):
        assert figure in text
    written = write_review(report, reviewed.decision, "rougeL", BACKGROUND, reviewed.store)
    markdown = (written.path / "review.md").read_text(encoding="utf-8")
    assert "<script" not in markdown and "| 20, 13, 7 |" in markdown
    assert "Preferred by" not in "".join(Elements(render_page(reviewed.report, *given_of(reviewed))).text)


def given_of(reviewed):
    return reviewed.decision, "rougeL", reviewed.rows, BACKGROUND


def test_worst_and_best_rows_are_those_whose_score_changed_most(page, reviewed):
    scores = {row["id"][:12]: row["scores"] for row in reviewed.rows}
    change = {row: each["candidate"]["rougeL"] - each["champion"]["rougeL"] for row, each in scores.items()}
    losses, gains = page.split("<h2>Worst regressions</h2>")[1].split("<h2>Best gains</h2>")
    shown = [re.findall(r'<p class="quiet">([0-9a-f]{12})', part) for part in (losses, gains)]
    assert len(shown[1]) == 5
    assert "05" * 6 not in shown[1]
    assert all(change[row] < 0 for row in shown[0])
    assert sorted((change[row] for row in shown[1]), reverse=True) == sorted(change.values(), reverse=True)[:5]


def test_words_that_only_one_answer_has_are_marked():
    before, after = compared("Return the list of items", "Return a list of 返回值 items")
    assert [piece.text for piece in before if not piece.is_common] == ["the"]
    assert "".join(piece.text for piece in after if not piece.is_common) == "a返回值 "
    assert "".join(piece.text for piece in before) == "Return the list of items"
    assert [piece.is_common for piece in compared("same", "same")[0]] == [True]
    assert compared("", "") == ([], [])


def texts_of(pieces):
    return "".join(piece.text for piece in pieces), [piece.text for piece in pieces if not piece.is_common]


def test_long_answers_are_compared_around_their_first_difference_and_said_to_be_cut():
    """A reader who sees two answers of 600 characters that are alike takes the whole answers for alike."""
    common = "返回列表中的第一个元素" * 200
    before, after = map(texts_of, compared(common[:900] + "甲" + common, common[:900] + "乙" + common))
    assert (before[1], after[1]) == (["甲"], ["乙"])
    for shown, sign in ((before[0], "甲"), (after[0], "乙")):
        assert len(shown) == 602 and shown.startswith("…") and shown.endswith("…")
        assert shown.index(sign) == 301


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("字" * 600, "字" * 600, ("字" * 600, "字" * 600)),
        ("字" * 601, "字" * 601, ("字" * 600 + "…", "字" * 600 + "…")),
        ("字" * 900, "字" * 899 + "甲", ("…" + "字" * 600, "…" + "字" * 599 + "甲")),
        ("甲" + "字" * 600, "字" * 601, ("甲" + "字" * 599 + "…", "字" * 600 + "…")),
        ("字" * 900 + "甲" * 900, "字" * 900, ("…" + "字" * 300 + "甲" * 300 + "…", "…" + "字" * 300)),
        ("", "字" * 700, ("", "字" * 600 + "…")),
    ],
)
def test_what_is_left_out_of_an_answer_is_marked_on_its_side(first, second, shown):
    assert tuple(texts_of(pieces)[0] for pieces in compared(first, second)) == shown


def test_a_difference_behind_2000_characters_stands_in_the_page(reviewed):
    words = "and then it goes on " * 150
    rows = [{**row, "champion": f"{words}before", "candidate": f"{words}afterwards"} for row in reviewed.rows]
    page = render_page(reviewed.report, reviewed.decision, "rougeL", rows, BACKGROUND)
    assert "<del>before</del>" in page and "<ins>afterwards</ins>" in page


def test_a_word_of_any_length_does_not_fill_the_page():
    before, after = map(texts_of, compared("a" * 100_000, "b" + "a" * 100_000))
    assert len(before[0]) == len(after[0]) == 600 * 40 + 1


def test_slices_are_drawn_if_they_are_not_every_row(reviewed):
    whole = next(iter(reviewed.report.slices.values()))
    assert "<h2>rougeL by slice</h2>" in render_page(reviewed.report, *given_of(reviewed))
    report = dataclasses.replace(reviewed.report, slices={"code": dataclasses.replace(whole, examples=ROWS)})
    assert "<h2>rougeL by slice</h2>" not in render_page(report, *given_of(reviewed))


def test_an_interval_is_drawn_where_it_is():
    drawn = str(intervals([("up", "rougeL", Difference(0.5, 0.25, 1.0, 0.01, 0.99))]))
    (line,) = re.findall(r'<line class="better" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', drawn)
    (centre,) = re.findall(r'<line class="zero" x1="([\d.]+)"', drawn)
    (dot,) = re.findall(r'<line class="point better" x1="([\d.]+)"', drawn)
    low, high, zero, value = float(line[0]), float(line[1]), float(centre), float(dot)
    assert (low - zero) / (high - zero) == pytest.approx(0.25, abs=0.01)
    assert (value - zero) / (high - zero) == pytest.approx(0.5, abs=0.01)


def test_what_is_no_number_is_said_and_not_drawn():
    broken, good = Difference(math.nan, -math.inf, math.inf, 1, 1), Difference(0.5, 0.25, 1.0, 0.01, 0.99)
    drawn = str(intervals([("a", "rougeL", broken), ("b", "rougeL", good)], common_scale=True))
    assert "nan [-inf, +inf]" in drawn and not re.search(r'"-?(nan|inf)', drawn)
    assert len(re.findall('class="point', drawn)) == 1 and 'x2="385.2"' in drawn


def test_parts_are_drawn_with_the_interval_that_the_gate_goes_by(reviewed):
    """The rule said one interval and the plot beside it another."""
    part = dataclasses.replace(next(iter(reviewed.report.slices.values())), examples=5)
    report = dataclasses.replace(reviewed.report, slices={"code": part})
    difference = part.differences[reviewed.decision.baseline]["rougeL"]
    judged = expanded(difference, 5, report.confidence)
    assert judged.high > difference.high
    page = render_page(report, *given_of(reviewed))
    assert f"{judged.value:+.3f} [{judged.low:+.3f}, {judged.high:+.3f}]" in page


def test_colours_follow_what_is_better():
    up, around = Difference(1.0, 0.5, 2.0, 0.01, 0.99), Difference(0.0, -1.0, 1.0, 0.5, 0.5)
    assert (reading("rougeL", up), reading("perplexity", up), reading("length_ratio", up)) == (
        "better",
        "worse",
        "open",
    )
    assert reading("rougeL", around) == "open"


def test_labels_of_plots_are_escaped():
    drawn = intervals([(HOSTILE[:20], "rougeL", Difference(0, 0, 0, 1, 1))]), histogram({HOSTILE: [1.0]}, "words")
    assert not any("<script" in str(each) for each in (*drawn, bars({HOSTILE: (1, 2)}, "s")))
    assert str(histogram({"nobody": []}, "words")) == ""


@pytest.mark.parametrize("what", ["id", "slice", "prompt", "reference", "champion", "candidate"])
def test_no_text_of_a_shown_row_can_hide_or_reorder_what_is_read(what, reviewed):
    rows = [{**row, what: f"{n}\u202etxt\x1b\x00"} for n, row in enumerate(reviewed.rows)]
    page = render_page(reviewed.report, reviewed.decision, "rougeL", rows, BACKGROUND)
    assert "�txt��" in "".join(Elements(page).text)
    assert not any(character in page for character in "\x1b\u202e\x00")


def test_labels_of_plots_show_what_would_hide_or_reorder_them(reviewed):
    """Names of slices come from the rows."""
    name = "a\u202etxt\x1b\x00"
    difference = Difference(0, 0, 0, 1, 1)
    drawn = (intervals([(name, "rougeL", difference)]), histogram({name: [1.0]}, "words"), bars({name: (1, 2)}, "s"))
    for svg in drawn:
        assert ">a�txt��</span>" in svg
    part = next(iter(reviewed.report.slices.values()))
    report = dataclasses.replace(reviewed.report, slices={name: part})
    page = render_page(report, *given_of(reviewed))
    assert f">a�txt�� ({part.examples})</span>" in page
    assert not any(character in page for character in "\x1b\u202e\x00")


def test_the_review_is_written_once_and_anew_when_anything_changes(reviewed):
    given = (reviewed.report, reviewed.decision, "rougeL", BACKGROUND)
    first = write_review(*given, reviewed.store)
    assert {path.name for path in first.path.iterdir()} >= {"review.html", "review.md", "decision.json"}
    assert write_review(*given, LookupOnlyStore(reviewed.store.root)) == first
    other = Background("assistant", 4, [], [], [], [])
    with pytest.raises(NotInStore):
        write_review(*given[:3], other, LookupOnlyStore(reviewed.store.root))


def test_the_markdown_of_a_review_holds_no_markup_of_models(reviewed):
    written = write_review(reviewed.report, reviewed.decision, "rougeL", BACKGROUND, reviewed.store)
    markdown = (written.path / "review.md").read_text(encoding="utf-8")
    assert "<script" not in markdown and "<img" not in markdown
    assert f"# Verdict: {reviewed.decision.verdict}" in markdown
