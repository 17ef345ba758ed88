"""What stands beside the scores on the page of a review: what the candidate is made of, its rows, what it cost."""

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, Parity, Predictions, RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.store import damage_of, entry_at
from tasks.data.versions import compare, slices_of
from tasks.evaluation.review.page import Background

_MOST_COMPARED_ROWS = 200_000
_SHOWN_SLICES = 10


def background_of(
    config: RetrainConfig,
    base: BaseModelRef,
    dataset: DatasetRef,
    adapter: AdapterRef,
    answers: dict[str, Predictions],
    champion: RegisteredVersion | None,
    parity: Parity,
) -> Background:
    """Put together what a reviewer wants to know beside the scores."""
    training = config.training
    return Background(
        title=config.registry.model_name,
        champion=champion.version if champion else None,
        settings=[
            ("base model", base.source),
            ("method", training.method),
            ("objective", training.objective),
            ("epochs", f"{training.epochs:g}"),
            ("peak learning rate", f"{training.peak_learning_rate:g}"),
            ("engine", config.serving.engine),
            ("data version", dataset.digest[:12]),
            ("adapter", adapter.digest[:12]),
        ],
        data=_data(dataset, champion),
        forms=[(form.name, f"{form.nats_a_token:.4f}", f"{form.likeliest:.1%}") for form in parity.forms],
        cost=[
            ("training", f"{adapter.seconds:.0f} s, {adapter.tokens} tokens, {adapter.train_rows} rows"),
            *(
                (f"answers of the {system}", f"{each.seconds:.0f} s, {each.rows} rows")
                for system, each in answers.items()
            ),
            *([("peak memory of the training", f"{peak / 1e9:.2f} GB")] if (peak := _peak(adapter)) else []),
        ],
    )


def _peak(adapter: AdapterRef) -> float:
    return adapter.estimate.get("measured_bytes", 0.0)


def _data(dataset: DatasetRef, champion: RegisteredVersion | None) -> list[tuple[str, str, str]]:
    """Compare the rows with the champion's, if these are there and are not too many to compare one by one."""
    after = entry_at(dataset.path)
    if champion is None or damage_of(champion.dataset_path):
        return []
    before = entry_at(champion.dataset_path)
    lines = [
        ("rows to train on", str(before.facts["train_rows"]), str(after.facts["train_rows"])),
        ("rows to evaluate on", str(before.facts["eval_rows"]), str(after.facts["eval_rows"])),
    ]
    if max(before.facts["train_rows"], after.facts["train_rows"]) > _MOST_COMPARED_ROWS:
        return lines
    difference = compare(before, after)
    lines += [
        ("rows that only one has", str(len(difference.removed)), str(len(difference.added))),
        ("same prompt, another answer", "", str(len(difference.changed))),
    ]
    for name in slices_of(difference.profiles)[:_SHOWN_SLICES]:
        counts = [str(sum(each.slices.get(name, {}).values())) for each in difference.profiles]
        lines.append((f"slice {name}", counts[0], counts[1]))
    return lines
