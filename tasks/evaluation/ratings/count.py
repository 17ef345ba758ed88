"""What people prefer, counted like a metric, and how far they agree."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from tasks.contracts.artifacts import Preference
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.evaluation.preference import figures_of

Ratings = Mapping[str, Mapping[str, str]]
"""Person → row → "candidate", "baseline" or "tie"."""

_SHARES = {"candidate": 1.0, "tie": 0.5, "baseline": 0.0}


def people_s_preference(
    ratings: Ratings, identical: int, left_out: int, baseline: str, evaluation: EvaluationSection
) -> Preference:
    """Count a row once, by the mean of those who rated it: rows are what is drawn at random, and not people.

    Args:
        ratings: what each person said; there is at least one rating.
        identical: rows that both answered alike, which count as ties.
        left_out: rows of sheets that nobody rated.
        baseline: whose answers the candidate's were compared with.
        evaluation: how the interval is made.
    """
    by_row: dict[str, list[float]] = {}
    for said in ratings.values():
        for row, preferred in said.items():
            by_row.setdefault(row, []).append(_SHARES[preferred])
    shares = [sum(each) / len(each) for _, each in sorted(by_row.items())] + [0.5] * identical
    return Preference(
        kind="people",
        by=tuple(sorted(ratings)),
        baseline=baseline,
        **figures_of(shares, evaluation),
        identical=identical,
        left_out=left_out,
        agreement=agreement(ratings),
    )


def agreement(ratings: Ratings) -> float | None:
    """Return the mean of Cohen's kappa over all pairs of people who rated the same rows (Light, Measures of Response
    Agreement for Qualitative Data, 1971), None if there is no such pair."""
    kappas = []
    for one, other in combinations(sorted(ratings), 2):
        both = sorted(ratings[one].keys() & ratings[other].keys())
        if both:
            kappas.append(kappa([ratings[one][row] for row in both], [ratings[other][row] for row in both]))
    return sum(kappas) / len(kappas) if kappas else None


def kappa(first: list[str], second: list[str]) -> float:
    """Return how far two people agree beyond chance (Cohen, A Coefficient of Agreement for Nominal Scales, 1960).

    1 where both say the same one thing throughout, where the formula has no value.
    """
    rows = len(first)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / rows
    ours, theirs = Counter(first), Counter(second)
    expected = sum(ours[said] * theirs[said] for said in ours) / rows**2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)
