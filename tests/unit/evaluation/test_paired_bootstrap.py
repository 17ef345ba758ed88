import numpy as np
import pytest

from tasks.contracts.artifacts import EvalReport
from tasks.contracts.config import GateSection
from tasks.contracts.errors import EvaluationError
from tasks.evaluation.gate import decide
from tasks.evaluation.statistics import paired_bootstrap

SENTENCE = "return the value of a key in this mapping or raise an error if it is missing from path name object"


def mean_of_sums(sums, examples):
    return sums[:, 0] / examples


def per_example_scores(examples=64, seed=3, better_by=0.0):
    """Scores of a baseline and a candidate whose examples are correlated, as those of two tuned models are."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0.3, 0.12, examples)
    baseline = difficulty + generator.normal(0, 0.08, examples)
    candidate = difficulty + generator.normal(0, 0.08, examples) + better_by
    return {"base": baseline[:, None], "candidate": candidate[:, None]}


def corrupted_corpus(rows=64, seed=5):
    """References, and answers of a worse and a better system: references with words replaced."""
    generator = np.random.default_rng(seed)
    references = [list(generator.choice(SENTENCE.split(), 12)) for _ in range(rows)]

    def corrupt(share):
        return [
            " ".join(word if generator.random() > share else generator.choice(SENTENCE.split()) for word in reference)
            for reference in references
        ]

    return [" ".join(reference) for reference in references], corrupt(0.5), corrupt(0.4)


def test_identical_systems_differ_by_exactly_zero():
    scores = per_example_scores()["base"]
    difference = paired_bootstrap(
        {"base": scores, "candidate": scores.copy()}, mean_of_sums, 1000, 0.95, 17
    ).differences["base"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_rounding_noise_does_not_break_a_tie():
    scores = per_example_scores()["base"]
    difference = paired_bootstrap(
        {"base": scores, "candidate": scores + 1e-15}, mean_of_sums, 1000, 0.95, 17
    ).differences["base"]
    assert (difference.value, difference.low) == (0.0, 0.0)


def test_the_interval_of_two_systems_of_equal_quality_contains_zero():
    difference = paired_bootstrap(per_example_scores(), mean_of_sums, 1000, 0.95, 17).differences["base"]
    assert difference.low < 0 < difference.high


def test_the_interval_of_a_clear_improvement_excludes_zero():
    difference = paired_bootstrap(per_example_scores(better_by=0.1), mean_of_sums, 1000, 0.95, 17).differences["base"]
    assert 0 < difference.low < difference.value < difference.high


def test_pairing_makes_the_difference_surer_than_the_scores():
    intervals = paired_bootstrap(per_example_scores(), mean_of_sums, 1000, 0.95, 17)
    difference, score = intervals.differences["base"], intervals.scores["candidate"]
    assert difference.high - difference.low < 0.9 * np.sqrt(2) * (score.high - score.low)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    scores = per_example_scores(examples=400)
    interval = paired_bootstrap(scores, mean_of_sums, 4000, 0.95, 17).scores["base"]
    half_width = 1.96 * scores["base"].std() / np.sqrt(400)
    assert interval.value == pytest.approx(scores["base"].mean())
    assert interval.low == pytest.approx(interval.value - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(interval.value + half_width, abs=0.1 * half_width)


def test_the_seed_determines_the_intervals():
    scores = per_example_scores()
    first = paired_bootstrap(scores, mean_of_sums, 1000, 0.95, 17)
    assert first == paired_bootstrap(scores, mean_of_sums, 1000, 0.95, 17)
    assert first != paired_bootstrap(scores, mean_of_sums, 1000, 0.95, 18)


def test_more_confidence_means_a_wider_interval():
    narrow, wide = (paired_bootstrap(per_example_scores(), mean_of_sums, 1000, c, 17) for c in (0.8, 0.99))
    assert wide.scores["base"].low < narrow.scores["base"].low < narrow.scores["base"].high < wide.scores["base"].high


def test_resampling_in_several_portions_gives_all_resamples(monkeypatch):
    monkeypatch.setattr("tasks.evaluation.statistics._DRAWS_AT_ONCE", 6_500)  # 101 resamples of 64 rows at once
    seen = []

    def counting(sums, examples):
        seen.append(len(sums))
        return mean_of_sums(sums, examples)

    paired_bootstrap(per_example_scores(), counting, 1000, 0.95, 17)
    assert sum(seen) == 2 * 1000 + 2  # two systems, and the observed score of each
    assert max(seen) == 101


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_intervals_agree_with_the_paired_bootstrap_of_sacrebleu(metric, sacrebleu_metrics, monkeypatch):
    from sacrebleu.significance import PairedTest

    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    (name,) = metric.names
    references, worse, better = corrupted_corpus()
    answers = {"base": worse, "candidate": better}
    statistics = {
        system: metric.compute(predictions=texts, references=references)["statistics"][name]
        for system, texts in answers.items()
    }
    ours = paired_bootstrap(statistics, metric.score_sums, 2000, 0.95, 17)
    test = PairedTest(
        list(answers.items()), {name: sacrebleu_metrics[name]()}, [references], test_type="bs", n_samples=2000
    )
    _, columns = test()
    systems = columns.pop("System")
    (results,) = columns.values()
    for system, result in zip(systems, results, strict=True):
        interval = ours.scores[system]
        assert interval.value == pytest.approx(result.score)
        assert (interval.high - interval.low) / 2 == pytest.approx(result.ci, rel=0.1)
        assert (interval.high + interval.low) / 2 == pytest.approx(result.mean, abs=0.1 * float(result.ci))
    assert results[1].p_value < 0.05
    assert ours.differences["base"].low > 0


def test_a_gate_fed_with_equal_systems_promotes_no_more_than_the_interval_allows():
    """One side of a 95 % interval: 2.5 % of A/A comparisons, and three standard errors of counting them."""
    comparisons, promoted = 1000, 0
    gate = GateSection(guarded_metrics=())
    for seed in range(comparisons):
        intervals = paired_bootstrap(per_example_scores(seed=seed), mean_of_sums, 500, 0.95, seed)
        report = EvalReport(
            path=None,
            digest="",
            examples=64,
            scores={},
            differences={"base": {"rougeL": intervals.differences["base"]}},
            signature={},
        )
        promoted += decide(report, gate, has_champion=False).verdict == "promote"
    assert 0 < promoted / comparisons <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / comparisons)


@pytest.mark.parametrize(
    ("statistics", "sentence"),
    [
        ({"base": np.ones((3, 1))}, "one named candidate"),
        ({"base": np.ones((3, 1)), "candidate": np.ones((2, 1))}, "the same number"),
        ({"base": np.ones((0, 1)), "candidate": np.ones((0, 1))}, "at least 1"),
    ],
)
def test_systems_that_cannot_be_paired_are_an_error(statistics, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        paired_bootstrap(statistics, mean_of_sums, 100, 0.95, 17)
