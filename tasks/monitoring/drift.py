"""Drift of the requests, by a classifier two-sample test.

A classifier learns on one half of each sample to tell requests from training prompts; its area under the ROC curve on
the other halves says how different the two are, and permuting the held-out labels says how often chance does as well.
If both come from one distribution no classifier beats chance, so the p-value is valid whatever the classifier.

What counts is the mixture: traffic that keeps to a small part of the trained kinds differs from their whole, and new
requests show once they are about half of the window.

Source: Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contracts.config import MonitorConfig
from tasks.monitoring.telling_words import telling_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_TRAINING_PROMPTS = 10
_MAX_TEXTS = 1_000  # of each sample: more would cost time and change no verdict
_MAX_TEXT_CHARS = 2_000
_PERMUTATIONS_AT_ONCE = 1_000


@dataclass(frozen=True)
class DriftVerdict:
    """Whether recent requests differ from the training prompts, and by which figures.

    Attributes:
        drifted: the difference is both significant (p-value) and large enough to matter (AUC).
        reason: one sentence with the figures and the limits they were held against.
        auc: held-out area under the ROC curve, 0.5 for no difference; None if nothing was judged.
        p_value: share of label permutations that reach this AUC; None if nothing was judged.
        requests: distinct requests in the window.
        training_rows: distinct training prompts.
        top_features: words (or pairs of characters) that speak most for the requests; empty without drift.
    """

    drifted: bool
    reason: str
    auc: float | None
    p_value: float | None
    requests: int
    training_rows: int
    top_features: tuple[str, ...] = ()


def detect_drift(requests: list[str], training_prompts: list[str], config: MonitorConfig) -> DriftVerdict:
    """Judge whether `requests` are of another kind than `training_prompts`.

    Texts that differ only in white space count once. A prompt repeated a hundred times is one piece of evidence, not a
    hundred: its copies would stand in both halves, where the classifier knows them by heart, and the permutation test
    needs independent texts. A window that one client fills with one prompt is therefore "too few requests".

    The result depends on the texts and the seed, not on their order.

    Args:
        requests: user texts.
        training_prompts: user texts of the rows that the champion was trained on.
        config: limits, permutations and seed.
    """
    recent, trained = _distinct(requests), _distinct(training_prompts)
    if len(recent) < config.min_requests:
        reason = (
            f"too few requests: {len(recent)} distinct of {len(requests)}, "
            f"and a verdict needs {config.min_requests} (monitor.min_requests)"
        )
        return DriftVerdict(False, reason, None, None, len(recent), len(trained))
    if len(trained) < _MIN_TRAINING_PROMPTS:
        reason = f"too few training prompts: {len(trained)} distinct, and a comparison needs {_MIN_TRAINING_PROMPTS}"
        return DriftVerdict(False, reason, None, None, len(recent), len(trained))
    auc, p_value = _two_sample_test(recent, trained, config)
    drifted = auc >= config.min_auc and p_value < config.alpha
    finding = "differ from the" if drifted else "are not shown to differ from the"
    reason = (
        f"{len(recent)} recent requests {finding} {len(trained)} training prompts: a classifier tells them apart with "
        f"AUC {auc:.2f} and p = {p_value:.2g} (drift is an AUC of at least {config.min_auc:g} with p below "
        f"{config.alpha:g})"
    )
    words = telling_words(recent, trained) if drifted else ()
    return DriftVerdict(drifted, reason, auc, p_value, len(recent), len(trained), words)


def _distinct(texts: list[str]) -> list[str]:
    return sorted({" ".join(text.split())[:_MAX_TEXT_CHARS] for text in texts} - {""})


def _two_sample_test(requests: list[str], trained: list[str], config: MonitorConfig) -> tuple[float, float]:
    """Return the held-out AUC and its p-value."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(config.seed)
    (fit_requests, held_requests), (fit_trained, held_trained) = split_halves(requests, trained, generator)
    # Character n-grams need no tokenizer and work in every script; the vocabulary comes from the fitting half alone.
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), lowercase=False, sublinear_tf=True, dtype=np.float32
    )
    features = vectorizer.fit_transform(fit_requests + fit_trained)
    labels = np.repeat([1, 0], [len(fit_requests), len(fit_trained)])
    classifier: Any = LogisticRegression(C=10.0, solver="liblinear", random_state=config.seed)
    classifier.fit(features, labels)
    scores = classifier.decision_function(vectorizer.transform(held_requests + held_trained))
    return auc_with_p_value(scores, len(held_requests), config.permutations, generator)


Halves = tuple[list[str], list[str]]


def split_halves(requests: list[str], trained: list[str], generator: "np.random.Generator") -> tuple[Halves, Halves]:
    """Draw as many texts of each sample and halve both, to fit on the first half and to score on the second.

    As many of each, so that the classifier sees no imbalance. A request that repeats a training prompt is drawn
    together with it and put into the same half: the two tie, which is what "the same kind" means. Apart, the
    classifier would take the copy it learned from for evidence against the other.
    """
    size = min(len(requests), len(trained), _MAX_TEXTS)
    requests = _sample(requests, size, generator)
    asked, known = set(requests), set(trained)
    twins = [text for text in requests if text in known]
    only_requests = [text for text in requests if text not in known]
    only_trained = _sample([text for text in trained if text not in asked], size - len(twins), generator)
    middle = len(twins) // 2
    halves: list[Halves] = []
    for rest in (only_requests, only_trained):
        # The odd text goes to the held-out half if the twins' odd one did not.
        cut = (len(twins) + len(rest)) // 2 - middle
        halves.append((twins[:middle] + rest[:cut], twins[middle:] + rest[cut:]))
    return halves[0], halves[1]


def _sample(texts: list[str], size: int, generator: "np.random.Generator") -> list[str]:
    return [texts[index] for index in generator.permutation(len(texts))[:size]]


def auc_with_p_value(
    scores: "NDArray[np.float64]", positives: int, permutations: int, generator: "np.random.Generator"
) -> tuple[float, float]:
    """Return the area under the ROC curve and its one-sided permutation p-value.

    The area is the Mann-Whitney statistic of the ranks, so a permutation of the labels is a draw of ranks.
    Source of the p-value: Phipson and Smyth, Permutation p-values should never be zero, 2010.

    Args:
        scores: (examples,) the positives first.
        positives: how many of them are positives.
        permutations: random relabellings.
        generator: draws them.
    """
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(scores)  # ties share their mean rank, which counts a tied pair as half
    observed = ranks[:positives].sum()
    hits = 0
    for start in range(0, permutations, _PERMUTATIONS_AT_ONCE):
        count = min(_PERMUTATIONS_AT_ONCE, permutations - start)
        drawn = generator.permuted(np.tile(ranks, (count, 1)), axis=1)[:, :positives].sum(axis=1)
        hits += int((drawn >= observed).sum())  # sums of halves are exact in floating point
    area = (observed - positives * (positives + 1) / 2) / (positives * (len(ranks) - positives))
    return float(area), (1 + hits) / (1 + permutations)
