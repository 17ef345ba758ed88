import pytest

from tasks.contracts.artifacts import Part
from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.metric_names import DEFAULT_METRICS
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import SideBySide

METRICS = [name for name in DEFAULT_METRICS if name != "perplexity"]
REFERENCES = [f"Return item number {n} of the list of files." for n in range(12)]
BASE = [f"This function takes {n} arguments." for n in range(12)]
CANDIDATE = [f"Return item {n} of the list." for n in range(12)]


def rows_of(answers, slices=(), **more):
    return SideBySide([], [], REFERENCES, answers, list(slices), **more)


def test_every_metric_is_scored_for_every_system_and_baseline():
    answers = {"candidate": CANDIDATE, "champion": BASE, "base": BASE}
    scores, differences, signature, *_ = score_systems(rows_of(answers), EvaluationSection())
    assert list(scores) == ["base", "champion", "candidate"]
    assert list(differences) == ["base", "champion"]
    assert list(signature) == METRICS
    assert all(list(figures) == METRICS for figures in (*scores.values(), *differences.values()))


def test_perplexity_that_some_system_does_not_say_is_left_out_and_the_log_names_it_and_the_system(caplog):
    answers = {"base": BASE, "candidate": CANDIDATE}
    known = {"candidate": ([9.0] * 12, [7.0] * 12)}
    evaluation = EvaluationSection(metrics=("rougeL", "perplexity"), resamples=200, randomisations=1_000)
    assert list(score_systems(rows_of(answers, likelihoods=known), evaluation).scores["base"]) == ["rougeL"]
    assert caplog.messages == ["perplexity is left out: it is not known how likely the references are to base"]
    caplog.clear()
    again = {"candidate": {0: "Something else."}}
    both = {**known, "base": known["candidate"]}
    scored = score_systems(rows_of(answers, likelihoods=both, again=again), evaluation)
    assert list(scored.scores["base"]) == ["rougeL", "perplexity"]
    assert caplog.messages == [], "nor for the few rows that were asked again"


def test_a_difference_is_candidate_minus_baseline():
    scored = score_systems(rows_of({"base": BASE, "candidate": CANDIDATE}), EvaluationSection())
    for metric in METRICS:
        expected = scored.scores["candidate"][metric].value - scored.scores["base"][metric].value
        assert scored.differences["base"][metric].value == pytest.approx(expected, abs=1e-8)
    assert scored.differences["base"]["rougeL"].low > 0
    assert scored.differences["base"]["rougeL"].p_better < 0.001
    assert scored.differences["base"]["rougeL"].p_worse == 1


def test_the_signature_says_how_the_interval_was_made():
    evaluation = EvaluationSection(resamples=200, randomisations=1_000, confidence=0.9, seed=4)
    scored = score_systems(rows_of({"base": BASE, "candidate": CANDIDATE}), evaluation)
    assert all(
        signature.endswith("examples:12|ci:0.9|bs:200|ar:1000|seed:4") for signature in scored.signature.values()
    )


def test_a_slice_is_scored_as_if_it_were_alone():
    slices = ["long", "short"] * 3 + ["long"] * 6
    answers = {"base": BASE, "candidate": CANDIDATE}
    evaluation = EvaluationSection(resamples=200, randomisations=1_000)
    scored = score_systems(rows_of(answers, slices), evaluation)
    assert list(scored.slices) == ["long"]  # three rows of the other say nothing
    places = [place for place, name in enumerate(slices) if name == "long"]
    alone = SideBySide(
        [], [], [REFERENCES[place] for place in places], {k: [v[place] for place in places] for k, v in answers.items()}
    )
    part = scored.slices["long"]
    assert (part.examples, part.scores) == (9, score_systems(alone, evaluation).scores)
    assert part.differences == score_systems(alone, evaluation).differences


def test_a_slice_of_every_row_is_scored_if_it_has_a_name():
    """Who protects it would be told that it has no row."""
    evaluation = EvaluationSection(resamples=200, randomisations=1_000)
    answers = {"base": BASE, "candidate": CANDIDATE}
    scored = score_systems(rows_of(answers, ["legal"] * 12), evaluation)
    assert scored.slices == {"legal": Part(12, scored.scores, scored.differences)}
    assert score_systems(rows_of(answers, [""] * 12), evaluation).slices == {}
    assert score_systems(rows_of(answers), evaluation).slices == {}


def test_perplexity_is_reported_where_every_engine_says_likelihoods():
    answers = {"base": BASE, "candidate": CANDIDATE}
    surprise = {"base": ([20.0] * 12, [10.0] * 12), "candidate": ([10.0] * 12, [10.0] * 12)}
    scored = score_systems(rows_of(answers, likelihoods=surprise), EvaluationSection(resamples=200))
    assert scored.scores["base"]["perplexity"].value == pytest.approx(2.718281828**2)
    assert scored.differences["base"]["perplexity"].high < 0
    assert list(scored.signature) == list(DEFAULT_METRICS)
    only_one = score_systems(rows_of(answers, likelihoods={"base": surprise["base"]}), EvaluationSection(resamples=200))
    assert "perplexity" not in only_one.signature


def test_what_a_client_gets_is_told_with_the_noise_of_answers_that_changed():
    answers = {"base": BASE, "candidate": CANDIDATE}
    again = {"base": {n: BASE[n] for n in range(4)}, "candidate": {0: CANDIDATE[0], 1: "Nothing at all."}}
    seconds = {"base": [1.0, 2.0, 3.0, 10.0], "candidate": []}
    rows = rows_of(answers, again=again, seconds=seconds, bytes={"base": 5, "candidate": 7})
    served = score_systems(rows, EvaluationSection(resamples=200)).served
    base, candidate = served["base"], served["candidate"]
    assert (base.bytes, base.median_seconds, base.asked_again, base.changed, base.noise) == (5, 2.5, 4, 0, {})
    assert base.slow_seconds == pytest.approx(8.95)
    assert (candidate.median_seconds, candidate.slow_seconds) == (None, None)
    assert (candidate.asked_again, candidate.changed) == (2, 1)
    assert candidate.noise["rougeL"].low < candidate.noise["rougeL"].value < 0


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"candidate": CANDIDATE}, "expected base and candidate"),
        ({"base": BASE, "candidate": CANDIDATE, "other": BASE}, "the systems are base, candidate, other"),
        ({"base": BASE, "candidate": CANDIDATE[:5]}, "candidate has 5 answers for 12 references"),
        ({"base": [], "candidate": CANDIDATE}, "base has 0 answers for 12 references"),
    ],
)
def test_systems_that_do_not_fit_the_references_are_an_error(answers, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        score_systems(rows_of(answers), EvaluationSection())
