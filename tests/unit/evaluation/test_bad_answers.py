"""Answers that are no answers: every metric has a defined score for them, and none of them is promoted."""

import math

import pytest

from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.metric_names import BUILT_IN
from tasks.contracts.store import Store
from tasks.evaluation.gate import decide
from tasks.evaluation.report import load_report, write_report
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import SideBySide

ROWS = 40
REFERENCES = [f"Return item number {n} of the list." for n in range(ROWS)]
SENSIBLE = [f"Return item {n}." for n in range(ROWS)]
EVALUATION = EvaluationSection(metrics=tuple(BUILT_IN), resamples=200, randomisations=1_000)

BAD = {
    "empty": [""] * ROWS,
    "constant": ["Return the list."] * ROWS,
    "form feeds": ["\f"] * ROWS,
    "form feeds between words": [f"Return\fitem\f{n}\x0b\x1c\x85\u2028." for n in range(ROWS)],
    "NUL and controls": ["\x00\x07\x1b[31m"] * ROWS,
    "one very long word": ["a" * 20_000] * ROWS,
    "the same word for ever": ["the " * 3_000] * ROWS,
    "brackets": ["[" * 5_000] * ROWS,
}


def report_of(tmp_path, candidate, base=SENSIBLE, references=REFERENCES):
    rows = SideBySide(
        ids=[f"{n:064x}" for n in range(len(references))],
        prompts=["?"] * len(references),
        references=references,
        answers={"base": base, "candidate": candidate},
    )

    def write(out):
        scored = score_systems(rows, EVALUATION)
        return write_report(out, rows, scored, EVALUATION, {})

    return load_report(Store(tmp_path / "store").produce("report", {}, write).path)


@pytest.mark.parametrize("kind", BAD)
def test_bad_answers_have_defined_scores_and_are_never_promoted(kind, tmp_path):
    report = report_of(tmp_path, BAD[kind])
    for figures in (*report.scores.values(), *report.differences.values()):
        for interval in figures.values():
            assert all(math.isfinite(end) for end in (interval.value, interval.low, interval.high))
    assert decide(report, GateSection(), has_champion=False).verdict != "promote"
    assert len(list(read_jsonl(report.path / "predictions.jsonl"))) == ROWS


@pytest.mark.parametrize("kind", ["empty", "constant", "form feeds"])
def test_a_candidate_that_is_as_bad_as_the_base_is_a_tie(kind, tmp_path):
    report = report_of(tmp_path, BAD[kind], base=BAD[kind])
    decision = decide(report, GateSection(), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert report.differences["base"]["rougeL"].p_better == 1


def test_answers_in_which_form_feeds_stand_for_spaces_are_scored_as_words(tmp_path):
    """Programs that split files into lines at a form feed would count more answers than there are."""
    spaced = report_of(tmp_path / "a", [f"Return item {n} ." for n in range(ROWS)])
    fed = report_of(tmp_path / "b", [f"Return\fitem\f{n}\f." for n in range(ROWS)])
    for metric in ("rouge1", "rougeL", "token_f1", "chrf", "bleu"):
        assert fed.scores["candidate"][metric] == spaced.scores["candidate"][metric], metric


def test_references_without_a_word_are_scored(tmp_path):
    report = report_of(tmp_path, SENSIBLE, base=["."] * ROWS, references=["..."] * ROWS)
    assert report.scores["candidate"]["rougeL"].value == 0
    assert report.scores["candidate"]["length_ratio"].value == 0
    assert decide(report, GateSection(), has_champion=False).verdict != "promote"


def test_one_example_is_scored_and_decides_nothing(tmp_path):
    report = report_of(tmp_path, SENSIBLE[:1], base=["No."], references=REFERENCES[:1])
    assert report.examples == 1
    assert report.differences["base"]["rougeL"].value > 0
    decision = decide(report, GateSection(min_examples=2), has_champion=False)
    assert (decision.verdict, decision.examples_needed) == ("inconclusive", 2)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"base": SENSIBLE, "candidate": SENSIBLE[:-1]}, f"candidate has {ROWS - 1} answers for {ROWS} references"),
        (
            {"base": SENSIBLE, "candidate": [*SENSIBLE, "more"]},
            f"candidate has {ROWS + 1} answers for {ROWS} references",
        ),
        ({"base": SENSIBLE, "candidate": [*SENSIBLE[:-1], None]}, f"number {ROWS - 1} of the predictions is None"),
        (
            {"base": SENSIBLE, "candidate": ["\ud800", *SENSIBLE[1:]]},
            "number 0 of the predictions holds half of a surrog",
        ),
    ],
)
def test_answers_that_do_not_belong_to_the_references_are_an_error(answers, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        score_systems(SideBySide([], [], REFERENCES, answers), EVALUATION)


def test_rows_that_hold_line_separators_stay_one_line_of_their_file(tmp_path):
    text = "one\ftwo\x0bthree\x1cfour\x85five\u2028six\u2029seven\r\neight"
    write_jsonl(tmp_path / "rows.jsonl", [{"answer": text}, {"answer": "next"}])
    assert [line["answer"] for line in read_jsonl(tmp_path / "rows.jsonl")] == [text, "next"]
