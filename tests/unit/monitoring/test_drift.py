import itertools
import random
from collections import defaultdict

import numpy as np
import pytest

from tasks.contracts.config import MonitorConfig
from tasks.monitoring.drift import auc_with_p_value, detect_drift, split_halves

INSTRUCTION = "Write one sentence that says what this Python function does.\n\n"


def prompts(codes):
    return [INSTRUCTION + code for code in codes]


@pytest.mark.slow
def test_under_the_null_p_values_are_uniform_and_drift_is_as_rare_as_alpha(stdlib_functions):
    """100 splits of one kind of text: a p-value below 0.05 in about 5, below 0.5 in about 50, drift in about 1."""
    codes, p_values, drifts = sorted(stdlib_functions), [], 0
    for seed in range(100):
        drawn = [code[:120] for code in random.Random(seed).sample(codes, 160)]
        config = MonitorConfig(seed=seed, permutations=200)
        verdict = detect_drift(drawn[:40], drawn[40:], config)
        p_values.append(verdict.p_value)
        drifts += verdict.drifted
    assert 1 <= sum(p < 0.05 for p in p_values) <= 12
    assert 35 <= sum(p < 0.5 for p in p_values) <= 65
    assert drifts <= 4


def test_sixty_functions_of_another_library_are_drift_nearly_always(stdlib_functions, sklearn_functions):
    codes, found = sorted(stdlib_functions), 0
    for seed in range(10):
        chosen = random.Random(seed)
        requests, training = chosen.sample(sklearn_functions, 60), chosen.sample(codes, 300)
        found += detect_drift(prompts(requests), prompts(training), MonitorConfig(seed=seed)).drifted
    assert found >= 9


def test_a_drifted_verdict_says_by_which_figures_and_words(stdlib_functions, sklearn_functions):
    requests, training = prompts(sklearn_functions[:80]), prompts(sorted(stdlib_functions)[::5][:200])
    verdict = detect_drift(requests, training, MonitorConfig())
    assert verdict.drifted
    assert verdict.requests == 80
    assert verdict.training_rows == 200
    assert verdict.auc > 0.8
    assert verdict.p_value == pytest.approx(1 / 1001)
    assert f"AUC {verdict.auc:.2f} and p = 0.001 (drift is an AUC of at least 0.65 with p below 0.01)" in verdict.reason
    assert {"X", "np", "sample_weight", "fit"} & set(verdict.top_features)


def test_requests_copied_from_the_training_prompts_are_the_same_kind_even_if_all_are_of_one_module(stdlib_functions):
    """The champion was trained on exactly these: nothing is new in them, however one-sided the choice."""
    by_module = defaultdict(list)
    for code, module in sorted(stdlib_functions.items()):
        by_module[module].append(code)
    turtle = by_module["turtle"]
    others = [code for code in sorted(stdlib_functions) if code not in set(turtle)]
    training = random.Random(3).sample(others, 200) + turtle[:40]
    copied = detect_drift(prompts(turtle[:40]), prompts(training), MonitorConfig())
    assert not copied.drifted
    assert copied.auc == pytest.approx(0.5)
    without_copies = detect_drift(prompts(turtle[:40]), prompts(training[:200]), MonitorConfig())
    assert without_copies.drifted


def test_fewer_distinct_requests_than_the_minimum_give_too_few_and_no_figures(sklearn_functions, stdlib_functions):
    verdict = detect_drift(prompts(sklearn_functions[:29]), prompts(sorted(stdlib_functions)[:100]), MonitorConfig())
    assert not verdict.drifted
    assert verdict.reason == "too few requests: 29 distinct of 29, and a verdict needs 30 (monitor.min_requests)"
    assert (verdict.auc, verdict.p_value, verdict.top_features) == (None, None, ())


def test_one_prompt_repeated_a_hundred_times_is_one_request(stdlib_functions):
    repeated = ["What is the weather in Oslo?", "What is  the weather\nin Oslo? "] * 50
    verdict = detect_drift(repeated, prompts(sorted(stdlib_functions)[:100]), MonitorConfig())
    assert (verdict.drifted, verdict.requests) == (False, 1)
    assert verdict.reason.startswith("too few requests: 1 distinct of 100,")


def test_a_champion_with_nine_distinct_prompts_cannot_be_compared(sklearn_functions):
    verdict = detect_drift(
        prompts(sklearn_functions[:50]), ["a", "b", "c", "d", "e", "f", "g", "h", "i"] * 9, MonitorConfig()
    )
    assert not verdict.drifted
    assert verdict.reason.startswith("too few training prompts: 9 distinct")


def test_the_verdict_depends_on_the_texts_and_the_seed_and_not_on_their_order(stdlib_functions):
    drawn = random.Random(5).sample(sorted(stdlib_functions), 130)
    requests, training = prompts(drawn[:50]), prompts(drawn[50:])
    verdict = detect_drift(requests, training, MonitorConfig())
    assert detect_drift(requests[::-1], training[::-1], MonitorConfig()) == verdict
    assert detect_drift(requests, training, MonitorConfig(seed=4)) != verdict


def test_a_significant_difference_below_min_auc_is_no_drift(stdlib_functions, sklearn_functions):
    config = MonitorConfig(min_auc=1.0)
    half = prompts(sklearn_functions[:60]) + prompts(sorted(stdlib_functions)[::9][:60])
    verdict = detect_drift(half, prompts(sorted(stdlib_functions)[1::9][:300]), config)
    assert verdict.p_value < config.alpha
    assert not verdict.drifted


def test_an_auc_above_min_auc_that_chance_reaches_is_no_drift(stdlib_functions):
    codes, by_chance = sorted(stdlib_functions), []
    for seed in range(12):
        drawn = random.Random(seed).sample(codes, 80)
        verdict = detect_drift(drawn[:40], drawn[40:], MonitorConfig(min_auc=0.5, seed=seed))
        if verdict.auc >= 0.5 and verdict.p_value >= 0.01:
            by_chance.append(verdict)
    assert len(by_chance) >= 3
    assert not any(verdict.drifted for verdict in by_chance)


@pytest.mark.parametrize(
    ("asked", "known", "twins"), [(30, 100, 0), (100, 30, 7), (31, 50, 5), (20, 20, 20), (33, 33, 4)]
)
def test_halves_are_as_large_in_both_samples_and_a_text_of_both_stands_in_the_same_half(asked, known, twins):
    shared = [f"shared {n}" for n in range(twins)]
    requests = shared + [f"asked {n}" for n in range(asked - twins)]
    trained = shared + [f"known {n}" for n in range(known - twins)]
    halves = split_halves(requests, trained, np.random.default_rng(0))
    (fit_requests, held_requests), (fit_trained, held_trained) = halves
    size = min(asked, known)
    assert len(fit_requests) == len(fit_trained) == size // 2
    assert len(held_requests) == len(held_trained) == size - size // 2
    assert len({*fit_requests, *held_requests}) == len({*fit_trained, *held_trained}) == size
    assert not {*fit_requests, *fit_trained} & {*held_requests, *held_trained}


def test_texts_without_words_in_common_are_compared_by_their_characters():
    chosen = random.Random(1)
    poems = ["".join(chosen.choices("春夏秋冬花鳥風月山川", k=30)) for _ in range(40)]
    prices = ["".join(chosen.choices("円元角分価格税込割引", k=30)) for _ in range(40)]
    verdict = detect_drift(prices, poems, MonitorConfig())
    assert len(verdict.top_features) == 8
    assert set("".join(verdict.top_features)) <= set("円元角分価格税込割引")


def test_a_word_of_fewer_than_three_requests_is_not_shown():
    chosen = random.Random(1)
    requests = [f"buy {chosen.randrange(10**9)} shares now" for _ in range(40)]
    requests[0] += " for topsecret"
    requests[1] += " for topsecret"
    training = [f"sing {chosen.randrange(10**9)} songs today" for _ in range(40)]
    assert set(detect_drift(requests, training, MonitorConfig()).top_features) == {"buy", "shares", "now"}


def test_auc_counts_a_tied_pair_as_half():
    from sklearn.metrics import roc_auc_score

    scores = np.array([3.0, 1.0, 1.0, 2.0, 1.0, 0.0, 2.0])
    auc, _ = auc_with_p_value(scores, 4, 10, np.random.default_rng(0))
    assert auc == pytest.approx(roc_auc_score([1, 1, 1, 1, 0, 0, 0], scores))


def test_the_permutation_p_value_agrees_with_all_relabellings():
    scores = np.array([0.9, 0.4, 0.7, 0.8, 0.1, 0.5, 0.3, 0.2, 0.6, 0.05])
    ranks = scores.argsort().argsort()
    sums = [sum(ranks[list(chosen)]) for chosen in itertools.combinations(range(10), 4)]
    exact = np.mean(np.array(sums) >= ranks[:4].sum())
    _, p_value = auc_with_p_value(scores, 4, 20_500, np.random.default_rng(0))
    assert p_value == pytest.approx(exact, abs=0.005)


def test_a_p_value_is_never_zero():
    _, p_value = auc_with_p_value(np.arange(100, 0, -1.0), 50, 199, np.random.default_rng(0))
    assert p_value == pytest.approx(1 / 200)
