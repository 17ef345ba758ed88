"""The model card of a version: what it is, what it learned from, how it scored, and how to use it."""

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, EvalReport, GateDecision
from tasks.contracts.config import RetrainConfig
from tasks.contracts.methods import LORA_METHODS
from tasks.contracts.metric_names import facts_of
from tasks.contracts.training_config import TrainingSection


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

{_what_it_is(base, training)}

## Training

- {adapter.train_rows} rows, {adapter.tokens} tokens, {training.epochs:g} epochs{_objective(training)}
{_long_rows(adapter)}
- peak learning rate {training.peak_learning_rate:g}, {training.schedule}{_guards(training)}
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

{_use(training)} `tokenizer/` holds the tokenizer and its chat template. The served form is built from these by
llm-retrain.
"""


def _what_it_is(base: BaseModelRef, training: TrainingSection) -> str:
    """Say what was trained, with the settings that the method has."""
    method = training.chosen
    if method.trains_weights:
        return f"All weights of `{base.source}`, fine-tuned."
    settings = []
    if training.method in LORA_METHODS:
        settings.append(f"rank {training.rank}, alpha {training.alpha}")
    if method.has_virtual_tokens:
        settings.append(f"{training.virtual_tokens} virtual tokens")
    said = f" ({', '.join(settings)})" if settings else ""
    article = "An" if method.title[0] in "AEIO" else "A"
    return f"{article} {method.title} adapter for `{base.source}`{said}."


def _objective(training: TrainingSection) -> str:
    if training.objective == "dpo":
        return f", preference tuning (DPO, beta {training.dpo_beta:g})"
    if training.objective == "distillation":
        return f", distillation from `{training.teacher}` (weight {training.teacher_weight:g})"
    return ""


def _long_rows(adapter: AdapterRef) -> str:
    limit = f"longer than {adapter.longest_row_tokens} tokens"
    lines = [f"- {adapter.rows_too_long} rows left out, {limit}"]
    if adapter.rows_cut_off:
        lines.append(f"- {adapter.rows_cut_off} rows trained on without the end of their answer, {limit}")
    return "\n".join(lines)


def _guards(training: TrainingSection) -> str:
    lines = []
    if training.new_tokens:
        lines.append(f"{len(training.new_tokens)} new tokens in the vocabulary")
    if training.replay:
        lines.append(
            f"{training.replay_share:.0%} of the rows of an epoch replayed from data version `{training.replay}`"
        )
    if training.ewc_weight:
        lines.append(f"elastic weight consolidation, weight {training.ewc_weight:g}")
    return "".join(f"\n- {line}" for line in lines)


def _use(training: TrainingSection) -> str:
    if training.chosen.trains_weights:
        return '`adapter/` is the whole model: `transformers.AutoModelForCausalLM.from_pretrained("adapter")`;'
    if training.method == "lora_prefix":
        return (
            '`adapter/` has the added layers: `model = peft.PeftModel.from_pretrained(base, "adapter")'
            ".merge_and_unload()`; the prefix comes on top: `peft.PeftModel.from_pretrained(model, "
            '"adapter/virtual_tokens")`;'
        )
    resized = " after `base.resize_token_embeddings(len(tokenizer))`" if training.new_tokens else ""
    return f'`adapter/` loads with `peft.PeftModel.from_pretrained(base, "adapter")`{resized};'


def _score_row(report: EvalReport, metric: str) -> str:
    cells = []
    for scores in report.scores.values():
        interval = scores[metric]
        digits = f".{facts_of(metric).decimals}f"
        cells.append(f"{interval.value:{digits}} [{interval.low:{digits}}, {interval.high:{digits}}]")
    return f"| {metric} | {' | '.join(cells)} |"
