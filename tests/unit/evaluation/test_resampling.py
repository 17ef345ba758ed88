from dataclasses import astuple

import numpy as np
import pytest

from tasks.contracts.errors import EvaluationError
from tasks.evaluation.resampling import Measured, compare, share_at_least

SENTENCE = "return the value of a key in this mapping or raise an error if it is missing from path name object"


def mean_of_sums(sums, examples):
    return sums[:, 0] / examples


def compared(statistics, score_sums=mean_of_sums, resamples=1_000, randomisations=1_000, confidence=0.95, seed=17):
    """Compare systems by one metric."""
    return compare({"it": Measured(statistics, score_sums)}, resamples, randomisations, confidence, seed)["it"]


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
    difference = compared({"base": scores, "candidate": scores.copy()}).differences["base"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_rounding_noise_does_not_break_a_tie():
    scores = per_example_scores()["base"]
    difference = compared({"base": scores, "candidate": scores + 1e-15}).differences["base"]
    assert (difference.value, difference.low) == (0.0, 0.0)


def test_the_interval_of_two_systems_of_equal_quality_contains_zero():
    difference = compared(per_example_scores()).differences["base"]
    assert difference.low < 0 < difference.high


def test_the_interval_of_a_clear_improvement_excludes_zero():
    difference = compared(per_example_scores(better_by=0.1)).differences["base"]
    assert 0 < difference.low < difference.value < difference.high


def test_pairing_makes_the_difference_surer_than_the_scores():
    intervals = compared(per_example_scores())
    difference, score = intervals.differences["base"], intervals.scores["candidate"]
    assert difference.high - difference.low < 0.9 * np.sqrt(2) * (score.high - score.low)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    scores = per_example_scores(examples=400)
    interval = compared(scores, resamples=4_000).scores["base"]
    half_width = 1.96 * scores["base"].std() / np.sqrt(400)
    assert interval.value == pytest.approx(scores["base"].mean())
    assert interval.low == pytest.approx(interval.value - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(interval.value + half_width, abs=0.1 * half_width)


def test_the_seed_determines_the_intervals():
    scores = per_example_scores()
    first = compared(scores)
    assert first == compared(scores)
    assert first != compared(scores, seed=18)


def test_more_confidence_means_a_wider_interval():
    narrow, wide = (compared(per_example_scores(), confidence=c) for c in (0.8, 0.99))
    assert wide.scores["base"].low < narrow.scores["base"].low < narrow.scores["base"].high < wide.scores["base"].high


def test_resampling_in_several_portions_gives_all_resamples(monkeypatch):
    monkeypatch.setattr("tasks.evaluation.resampling._CELLS_AT_ONCE", 6_500)  # 101 resamples of 64 rows at once
    seen = []

    def counting(sums, examples):
        seen.append(len(sums))
        return mean_of_sums(sums, examples)

    compared(per_example_scores(), counting, resamples=1_000, randomisations=2_000)
    assert sum(seen) == 2 * (1_000 + 2_000 + 1)  # two systems: resamples, swaps, and the observed score
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
    ours = compared(statistics, metric.score_sums, resamples=2_000)
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


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_p_values_agree_with_the_approximate_randomisation_of_sacrebleu(metric, sacrebleu_metrics, monkeypatch):
    """Theirs is two-sided. On these corpora it lies between 0.01 and 0.6, where 10,000 swaps tell it to 0.01."""
    from sacrebleu.significance import PairedTest

    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    (name,) = metric.names
    for seed in (5, 6, 8):
        references, worse, better = corrupted_corpus(rows=40, seed=seed)
        answers = {"base": worse, "candidate": better}
        statistics = {
            system: metric.compute(predictions=texts, references=references)["statistics"][name]
            for system, texts in answers.items()
        }
        difference = compared(statistics, metric.score_sums, randomisations=10_000).differences["base"]
        theirs = {name: sacrebleu_metrics[name]()}
        _, columns = PairedTest(list(answers.items()), theirs, [references], test_type="ar", n_samples=10_000)()
        columns.pop("System")
        ((_, result),) = columns.values()
        ours = min(1.0, 2 * min(difference.p_better, difference.p_worse))
        assert 0.001 < ours < 0.9
        assert ours == pytest.approx(result.p_value, abs=0.02, rel=0.1)


def test_the_p_value_of_a_mean_is_that_of_all_swaps():
    """Six rows have 64 swaps, which can be counted."""
    base, candidate = np.array([1.0, 2, 3, 4, 5, 6])[:, None], np.array([2.0, 4, 3, 6, 5, 9])[:, None]
    change = (candidate - base)[:, 0]
    swaps = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1)
    exact = float(((change @ swaps) >= change.sum()).mean())
    difference = compared({"base": base, "candidate": candidate}, randomisations=40_000).differences["base"]
    assert difference.p_better == pytest.approx(exact, abs=0.01)
    assert difference.p_worse == pytest.approx(float(((change @ swaps) <= change.sum()).mean()), abs=0.01)


def test_what_was_seen_is_among_its_own_draws():
    assert share_at_least(np.zeros(99), 1.0) == 1 / 100
    assert share_at_least(np.full(99, 1.0), 1.0) == 1


def test_every_baseline_is_swapped_with_the_candidate_alone():
    scores = per_example_scores(better_by=0.05)
    alike = {"base": scores["base"], "champion": scores["candidate"], "candidate": scores["candidate"].copy()}
    differences = compared(alike).differences
    assert differences["champion"].p_better == differences["champion"].p_worse == 1
    assert differences["base"] == compared(scores).differences["base"]


def test_metrics_are_compared_together_as_they_are_alone():
    scores, others = per_example_scores(seed=1), per_example_scores(seed=2, better_by=0.03)
    together = compare(
        {"one": Measured(scores, mean_of_sums), "two": Measured(others, mean_of_sums)}, 1_000, 1_000, 0.95, 17
    )
    for name, alone in (("one", compared(scores)), ("two", compared(others))):
        assert astuple(together[name].differences["base"]) == pytest.approx(astuple(alone.differences["base"]))
        assert astuple(together[name].scores["candidate"]) == pytest.approx(astuple(alone.scores["candidate"]))


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
        compared(statistics)
