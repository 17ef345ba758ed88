"""The references stages hand on: small, frozen, each to one finished directory or one recorded fact.

`RowSet → DatasetRef → AdapterRef → ServableModel → EvalReport → GateDecision → RegisteredVersion → ServedVersion`
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class BaseModelRef:
    """A base model as safetensors with its tokenizer, ready for `from_pretrained`."""

    path: Path
    digest: str
    source: str


@dataclass(frozen=True)
class RowSet:
    """Canonical rows as they were read: `rows-*.jsonl`, and `rejected.jsonl` with a reason a line."""

    path: Path
    digest: str
    rows_read: int
    rows_kept: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class DatasetRef:
    """A split data set: `train.jsonl`, `eval.jsonl`, and `rejected.jsonl` with a reason a line.

    `rows_read` equals `train_rows` + `eval_rows` + the sum of `rejected`. `steps` has, in the order of the cleaning
    line, each step with the rows it changed and dropped. `made_rows` were made of training rows and stand among them.
    `recent_rows` of the `eval_rows` are of the recent set.
    """

    path: Path
    digest: str
    rows_read: int
    train_rows: int
    eval_rows: int
    rejected: dict[str, int]
    eval_digest: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    made_rows: int = 0
    recent_rows: int = 0


@dataclass(frozen=True)
class AdapterRef:
    """A trained adapter (`adapter/`), and what the training process said (`events.jsonl`).

    `train_rows` were trained on, `rows_cut_off` of them without the end of their answer; `rows_too_long` were left out.
    Both were longer than `longest_row_tokens`: training.max_length_tokens, or what the context has room for if that is
    less.
    `estimate` has bytes and seconds, estimated before the training and measured after it.
    """

    path: Path
    digest: str
    train_rows: int
    tokens: int
    final_loss: float
    seconds: float
    rows_too_long: int = 0
    estimate: dict[str, float] = field(default_factory=dict)
    rows_cut_off: int = 0
    longest_row_tokens: int = 0

    @property
    def long_rows(self) -> dict[str, int]:
        """What was not trained on whole: for tags and outcomes."""
        return {"rows_too_long": self.rows_too_long, "rows_cut_off": self.rows_cut_off}


@dataclass(frozen=True)
class ServableModel:
    """A complete Triton model directory under `model/`: config.pbtxt, and everything version 1 needs."""

    path: Path
    digest: str
    engine: str

    @property
    def model_directory(self) -> Path:
        """The directory that enters the Triton model repository under a name of its own."""
        return self.path / "model"


@dataclass(frozen=True)
class Predictions:
    """Answers of one servable model to the evaluation rows: `predictions.jsonl` with id, prompt, reference, answer.

    `servable_bytes` is the size of the model that answered.
    """

    path: Path
    digest: str
    rows: int
    seconds: float
    servable_bytes: int = 0


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval, in the metric's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """Candidate minus baseline on the same rows, with its paired interval.

    Attributes:
        p_better: one-sided p-value of a difference at least as high between systems that are alike.
        p_worse: likewise of one at least as low.
    """

    p_better: float
    p_worse: float


SystemName = Literal["base", "champion", "candidate"]


@dataclass(frozen=True)
class Part:
    """Some of the evaluated rows on their own: a slice, or a set.

    Attributes:
        examples: how many.
        scores: system → metric → score with interval.
        differences: baseline → metric → candidate minus baseline.
    """

    examples: int
    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Difference]]


@dataclass(frozen=True)
class Served:
    """What a system is like as it is served, to a single client.

    Attributes:
        bytes: of the model.
        median_seconds: until an answer is there; None if it was not measured.
        slow_seconds: until 19 in 20 answers are there.
        asked_again: rows that were asked a second time.
        changed: how many of them were answered otherwise than before.
        noise: metric → score of the second answers minus that of the first, where some changed.
    """

    bytes: int
    median_seconds: float | None
    slow_seconds: float | None
    asked_again: int
    changed: int
    noise: dict[str, Interval]


@dataclass(frozen=True)
class Memorised:
    """What a candidate says of the made-up personal data that was planted in its training.

    Attributes:
        planted: how many canaries.
        extracted: how many of them it said when it was asked.
        exposure: bits of each, of `log2(32)` at most: how far up its answer is among others of its kind.
    """

    planted: int
    extracted: int
    exposure: tuple[float, ...]


@dataclass(frozen=True)
class Preference:
    """How often the candidate's answers were preferred to a baseline's, by a judge or by people.

    Attributes:
        kind: who judged.
        by: the judge's model, or the people's names.
        baseline: whose answers the candidate's were compared with: "base", "champion" or "version 3".
        examples: rows that count.
        wins: rows on which the candidate's answer was preferred.
        ties: rows on which neither was, or which both answered alike.
        losses: rows on which the baseline's answer was preferred.
        share: mean preference of a row, from 0 (always the baseline's) to 1, with its interval.
        p_better: one-sided p-value of at least as many wins between systems that are alike.
        p_worse: likewise of at least as many losses.
        identical: rows that both answered alike, so that nobody was asked; they are among the ties.
        left_out: rows without a readable verdict in both orders, or that nobody rated.
        position_bias: share of the questions in which the answer that came first was preferred (a tie is half a one),
            minus 0.5; None if the orders are not known to have been balanced.
        inconsistent: share of the rows on which the judge said otherwise in the other order.
        questions: that the judge was asked.
        failed: questions that it did not answer.
        unreadable: questions whose answer was no verdict.
        agreement: Cohen's kappa, the mean over all pairs of people; None for a single one.
        problem: why there is nothing to count; empty if there is.
    """

    kind: Literal["judge", "people"]
    by: tuple[str, ...]
    baseline: str
    examples: int
    wins: int
    ties: int
    losses: int
    share: Interval
    p_better: float
    p_worse: float
    identical: int = 0
    left_out: int = 0
    position_bias: Interval | None = None
    inconsistent: float | None = None
    questions: int = 0
    failed: int = 0
    unreadable: int = 0
    agreement: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class EvalReport:
    """Scores of base, champion (if any) and candidate on the same rows.

    Attributes:
        path: directory with `report.json`, `report.md` and `predictions.jsonl` (all systems side by side).
        digest: digest of that directory.
        examples: evaluated rows.
        scores: system → metric → score with interval.
        differences: baseline ("base", "champion") → metric → candidate minus baseline with its paired interval.
        signature: metric → what it was computed with (library version, tokenizer, smoothing).
        confidence: of every interval.
        slices: slice → the rows of it, where there are enough to say anything.
        sets: "anchor" and "recent" → the rows of it, where rows were held out beside a frozen set.
        general: what was asked of the general-ability set, which is no part of the scores; None if nothing was.
        leaked_rows: evaluated rows that the candidate was trained on; there should be none.
        served: system → what it is like to its clients.
        memorised: what came out of canaries in the training; None if there were none.
        preferences: whose answers a judge preferred, if one was asked.
    """

    path: Path
    digest: str
    examples: int
    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Difference]]
    signature: dict[str, str]
    confidence: float = 0.95
    slices: dict[str, Part] = field(default_factory=dict)
    sets: dict[str, Part] = field(default_factory=dict)
    general: Part | None = None
    leaked_rows: int = 0
    served: dict[str, Served] = field(default_factory=dict)
    memorised: Memorised | None = None
    preferences: tuple[Preference, ...] = ()


Verdict = Literal["promote", "reject", "inconclusive"]


Outcome = Literal["passed", "failed", "open"]


@dataclass(frozen=True)
class Finding:
    """What one rule of the gate found.

    Attributes:
        rule: its short name.
        outcome: "passed"; "failed" rejects; "open" lets nothing be promoted.
        sentence: what was found, with its figures, for people.
        figures: the figures that it looked at.
    """

    rule: str
    outcome: Outcome
    sentence: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GateDecision:
    """What the gate says and why.

    Attributes:
        verdict: promote, reject or inconclusive; only promote has effects.
        baseline: what the candidate was compared with: "champion", or "base" when there is none.
        reasons: one sentence a rule, with its figures.
        examples_needed: when inconclusive, about how many evaluated rows would decide; else None.
        findings: one a rule, those that speak against promotion first.
    """

    verdict: Verdict
    baseline: str
    reasons: tuple[str, ...]
    examples_needed: int | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Form:
    """What one form of a model makes of some references.

    Attributes:
        name: "trained", "merged" or "built".
        rows: how many references.
        tokens: their tokens, end tokens included.
        nats_a_token: minus the mean log probability of a token.
        likeliest: share of the tokens that the form finds the likeliest.
        of_rows: nats a token of each reference.
    """

    name: str
    rows: int
    tokens: int
    nats_a_token: float
    likeliest: float
    of_rows: tuple[float, ...]

    def change_from(self, before: "Form") -> float:
        """Return the mean change of a reference's nats a token from another form, in either direction.

        A form that finds references likelier than the one before is as much another model as one that does not.
        """
        pairs = zip(self.of_rows, before.of_rows, strict=True)
        return sum(abs(now - then) for now, then in pairs) / self.rows


@dataclass(frozen=True)
class Parity:
    """The forms of a model from training to serving, in this order."""

    path: Path
    forms: tuple[Form, ...]


@dataclass(frozen=True)
class Review:
    """The page on a decision: `review.html`, `review.md` and `decision.json`."""

    path: Path
    digest: str


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the registered model in MLflow, and what it is made of.

    `replay_path` if it replayed rows; `review_path` if it has a page on its verdict; `registered_at` in seconds since
    1970; `is_complete` unless its registration was killed half way.
    """

    name: str
    version: int
    run_id: str
    verdict: str
    servable_digest: str
    servable_path: Path
    dataset_digest: str
    dataset_path: Path
    predictions_path: Path
    report_path: Path
    tags: dict[str, str]
    replay_path: Path | None = None
    review_path: Path | None = None
    registered_at: float = 0.0
    is_complete: bool = True


@dataclass(frozen=True)
class ServedVersion:
    """A version that the stable name answers with.

    Attributes:
        triton_model: its own model name in Triton, for example "assistant-v3".
        served: False if no Triton runs on this platform and the exported directory was verified in-process instead.
        note: what was verified, in one sentence.
    """

    version: int
    triton_model: str
    served: bool
    note: str
