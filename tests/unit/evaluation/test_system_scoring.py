import pytest

from tasks.contracts.config import EvaluationSection
from tasks.contracts.errors import EvaluationError
from tasks.evaluation.scoring import score_systems

METRICS = ["rouge1", "rouge2", "rougeL", "bleu", "chrf"]
REFERENCES = [f"Return item number {n} of the list of files." for n in range(12)]
BASE = [f"This function takes {n} arguments." for n in range(12)]
CANDIDATE = [f"Return item {n} of the list." for n in range(12)]


def test_every_metric_is_scored_for_every_system_and_baseline():
    answers = {"candidate": CANDIDATE, "champion": BASE, "base": BASE}
    scores, differences, signature = score_systems(answers, REFERENCES, EvaluationSection())
    assert list(scores) == ["base", "champion", "candidate"]
    assert list(differences) == ["base", "champion"]
    assert list(signature) == METRICS
    assert all(list(figures) == METRICS for figures in (*scores.values(), *differences.values()))


def test_a_difference_is_candidate_minus_baseline():
    scored = score_systems({"base": BASE, "candidate": CANDIDATE}, REFERENCES, EvaluationSection())
    for metric in METRICS:
        expected = scored.scores["candidate"][metric].value - scored.scores["base"][metric].value
        assert scored.differences["base"][metric].value == pytest.approx(expected, abs=1e-8)
        assert scored.differences["base"][metric].low > 0


def test_the_signature_says_how_the_interval_was_made():
    evaluation = EvaluationSection(resamples=200, confidence=0.9, seed=4)
    scored = score_systems({"base": BASE, "candidate": CANDIDATE}, REFERENCES, evaluation)
    assert all(signature.endswith("examples:12|ci:0.9|bs:200|seed:4") for signature in scored.signature.values())


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
        score_systems(answers, REFERENCES, EvaluationSection())
