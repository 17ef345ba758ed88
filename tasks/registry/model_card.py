"""The model card of a version: what it is, what it learned from, how it scored, and how to use it."""

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, EvalReport, GateDecision
from tasks.contracts.config import RetrainConfig


def model_card(
    base: BaseModelRef,
    dataset: DatasetRef,
    adapter: AdapterRef,
    report: EvalReport,
    decision: GateDecision,
    config: RetrainConfig,
) -> str:
    """Return the card as Markdown."""
    training = config.training
    rows = "\n".join(_score_row(report, metric) for metric in report.scores["candidate"])
    systems = " | ".join(report.scores)
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    return f"""# {config.registry.model_name}

A LoRA adapter for `{base.source}` (rank {training.rank}, alpha {training.alpha}).

## Training

- {adapter.train_rows} rows, {adapter.tokens} tokens, {training.epochs:g} epochs
- {adapter.rows_too_long} rows left out, longer than {training.max_length_tokens} tokens
- peak learning rate {training.learning_rate:g}
- data set `{dataset.digest}`
- base model `{base.digest}`
- adapter `{adapter.digest}`

## Evaluation

On {report.examples} held-out rows, in the form that is served ({config.serving.engine}), with
{config.evaluation.confidence:.0%} intervals:

| metric | {systems} |
| --- |{" --- |" * len(report.scores)}
{rows}

Verdict: **{decision.verdict}** (against {decision.baseline})

{reasons}

## Use

`adapter/` loads with `peft.PeftModel.from_pretrained(base, "adapter")`; `tokenizer/` holds the tokenizer and its chat
template. The served form is built from these by llm-retrain.
"""


def _score_row(report: EvalReport, metric: str) -> str:
    cells = []
    for scores in report.scores.values():
        interval = scores[metric]
        cells.append(f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
    return f"| {metric} | {' | '.join(cells)} |"
