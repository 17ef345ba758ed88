"""Cleaned rows split into training and evaluation rows, with no twin of an evaluation row in training.

Twins are rows with the same prompt but for case and white space, whatever they answer. Which rows are chosen is
decided by hashes of their content and the seed, so it does not depend on the order in which they were read.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import DatasetRef, RowSet
from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import canonical_json, digest_of, read_jsonl, write_jsonl
from tasks.contracts.store import Store, code_digest
from tasks.contracts.twins import folded
from tasks.data.clean import LONG_ROW, SHORT_ANSWER, Sifted, clean, rejected_row
from tasks.data.rows import Row, prompt_of

TWIN = "twin of an evaluation row"
NOT_SELECTED = "not selected"

SOURCES = "data.sources"
EVALUATION_SOURCES = "data.evaluation_sources"

# What the data set depends on; the sources and what counts as malformed are in the rows' own digest.
_SETTINGS = {"train_rows", "eval_rows", "seed", "min_answer_chars", "max_row_chars"}

HELD_OUT_PERCENT = 30
"""Prompts held out at most: a quota for large files would leave a small one with nothing to train on."""

_LIMITS = {SHORT_ANSWER: ("min_answer_chars", "lower"), LONG_ROW: ("max_row_chars", "raise")}


@dataclass(frozen=True)
class Split:
    """Rows for training and for evaluation, each sorted by id, and records of the others.

    Attributes:
        train: training rows.
        evaluation: evaluation rows.
        rejected: origin (config key) → records of its rows that are in neither.
        evaluation_origin: the config key of the sources that the evaluation rows come from.
    """

    train: list[Row]
    evaluation: list[Row]
    rejected: dict[str, list[dict[str, Any]]]
    evaluation_origin: str


@dataclass(frozen=True)
class Account:
    """Where the rows of one origin went: rows_read = train_rows + eval_rows + the sum of rejected."""

    rows_read: int
    train_rows: int
    eval_rows: int
    rejected: dict[str, int]


def build_dataset(rows: RowSet, evaluation_rows: RowSet | None, data: DataSection, store: Store) -> DatasetRef:
    """Clean and split rows; without `evaluation_rows`, evaluation rows are held out from `rows`.

    Writes `train.jsonl` and `eval.jsonl` sorted by id, and `rejected.jsonl` with every row or line that is in neither
    and its reason. (The line numbers of malformed lines stand in the row set's own `rejected.jsonl`.)

    Raises:
        DataError: nothing is left to train on or to evaluate on.
    """
    inputs = {
        "rows": rows.digest,
        "evaluation_rows": evaluation_rows.digest if evaluation_rows else None,
        "config": data.model_dump(mode="json", include=_SETTINGS),
        "code": code_digest("tasks/data", "tasks/contracts"),
    }
    row_sets = {SOURCES: rows} | ({EVALUATION_SOURCES: evaluation_rows} if evaluation_rows else {})

    def write(directory: Path) -> dict[str, Any]:
        contents = {key: load_rows(row_set.path / "rows.jsonl") for key, row_set in row_sets.items()}
        parts = split(contents[SOURCES], contents.get(EVALUATION_SOURCES), data)
        return _write_dataset(directory, parts, row_sets, data)

    entry = store.produce("dataset", inputs, write)
    facts = {name: value for name, value in entry.facts.items() if name != "origins"}
    return DatasetRef(path=entry.path, digest=entry.digest, **facts)


def load_rows(path: Path) -> list[Row]:
    """Read the rows of a finished `rows.jsonl`, `train.jsonl` or `eval.jsonl`."""
    return list(read_jsonl(path))


def split(rows: list[Row], own_evaluation: list[Row] | None, data: DataSection) -> Split:
    """Clean and split rows; without `own_evaluation`, evaluation rows are held out from `rows`."""
    cleaned = clean(rows, data)
    rejected: dict[str, list[dict[str, Any]]] = {}
    if own_evaluation is None:
        origin, evaluation = SOURCES, hold_out(cleaned.rows, data)
        held_out = {row["id"] for row in evaluation}
        left = [row for row in cleaned.rows if row["id"] not in held_out]
    else:
        candidates = clean(own_evaluation, data)
        chosen = select(candidates.rows, data.eval_rows, data.seed, "data.eval_rows")
        origin, evaluation, left = EVALUATION_SOURCES, chosen.rows, cleaned.rows
        rejected[EVALUATION_SOURCES] = candidates.rejected + chosen.rejected
    apart = without_twins(left, evaluation)
    training = select(apart.rows, data.train_rows, data.seed, "data.train_rows")
    rejected[SOURCES] = cleaned.rejected + apart.rejected + training.rejected
    return Split(_by_id(training.rows), _by_id(evaluation), rejected, origin)


def hold_out(rows: list[Row], data: DataSection) -> list[Row]:
    """Choose evaluation rows: the first row of each of at most `data.eval_rows` prompts, and of at most 30 % of all."""
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_prompt[folded(prompt_of(row))].append(row)
    quota = min(data.eval_rows, max(1, len(by_prompt) * HELD_OUT_PERCENT // 100))
    prompts = sorted(by_prompt, key=lambda prompt: digest_of([data.seed, prompt]))
    return [by_prompt[prompt][0] for prompt in prompts[:quota]]


def without_twins(rows: list[Row], evaluation: list[Row]) -> Sifted:
    """Reject the rows that have the prompt of an evaluation row."""
    evaluated = {folded(prompt_of(row)): row["id"] for row in evaluation}
    apart, twins = [], []
    for row in rows:
        twin = evaluated.get(folded(prompt_of(row)))
        if twin is None:
            apart.append(row)
        else:
            twins.append(rejected_row(row, TWIN, f"the prompt is that of row {twin}"))
    return Sifted(apart, twins)


def select(rows: list[Row], quota: int, seed: int, config_key: str) -> Sifted:
    """Choose at most `quota` rows in an order that only the seed and their content decide."""
    ordered = _in_seeded_order(rows, seed)
    detail = f"{config_key} is {quota}"
    return Sifted(ordered[:quota], [rejected_row(row, NOT_SELECTED, detail) for row in ordered[quota:]])


def _in_seeded_order(rows: list[Row], seed: int) -> list[Row]:
    return sorted(rows, key=lambda row: digest_of([seed, row["id"]]))


def _by_id(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["id"]))


def _write_dataset(directory: Path, parts: Split, row_sets: dict[str, RowSet], data: DataSection) -> dict[str, Any]:
    origins = {key: _account(parts, key, row_set) for key, row_set in row_sets.items()}
    total = _sum_of(list(origins.values()))
    _check_not_empty(total, origins, data)
    records = [record for key, row_set in row_sets.items() for record in _malformed(row_set) + parts.rejected[key]]
    write_jsonl(directory / "train.jsonl", parts.train)
    write_jsonl(directory / "eval.jsonl", parts.evaluation)
    write_jsonl(directory / "rejected.jsonl", sorted(records, key=canonical_json))
    eval_digest = digest_of([row["id"] for row in parts.evaluation])
    return {**asdict(total), "eval_digest": eval_digest, "origins": {k: asdict(a) for k, a in origins.items()}}


def _account(parts: Split, key: str, row_set: RowSet) -> Account:
    account = Account(
        rows_read=row_set.rows_read,
        train_rows=len(parts.train) if key == SOURCES else 0,
        eval_rows=len(parts.evaluation) if key == parts.evaluation_origin else 0,
        rejected=dict(Counter(row_set.rejected) + Counter(record["reason"] for record in parts.rejected[key])),
    )
    assert account.rows_read == account.train_rows + account.eval_rows + sum(account.rejected.values()), account
    return account


def _sum_of(accounts: list[Account]) -> Account:
    rejected: Counter[str] = Counter()
    for account in accounts:
        rejected.update(account.rejected)
    return Account(
        rows_read=sum(account.rows_read for account in accounts),
        train_rows=sum(account.train_rows for account in accounts),
        eval_rows=sum(account.eval_rows for account in accounts),
        rejected=dict(rejected),
    )


def _malformed(row_set: RowSet) -> list[dict[str, Any]]:
    """Return the records of lines that never became rows, without the line numbers that depend on the file's order."""
    records = read_jsonl(row_set.path / "rejected.jsonl")
    return [{key: value for key, value in record.items() if key != "line"} for record in records]


def _check_not_empty(total: Account, origins: dict[str, Account], data: DataSection) -> None:
    if total.train_rows and total.eval_rows:
        return
    missing, key = ("evaluate", EVALUATION_SOURCES) if not total.eval_rows else ("train", SOURCES)
    key = key if key in origins else SOURCES
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(total.rejected.items())) or "none"
    raise DataError(
        f"{key} leaves nothing to {missing} on: of {total.rows_read} rows read, {total.train_rows} are for training, "
        f"{total.eval_rows} for evaluation, rejected: {reasons}; {_advice(origins[key].rejected, data)}"
    )


def _advice(rejected: dict[str, int], data: DataSection) -> str:
    most = max(rejected, key=lambda reason: rejected[reason], default="")
    if most not in _LIMITS:
        return "add rows"
    setting, change = _LIMITS[most]
    return f"data.{setting} ({getattr(data, setting)}) rejected most: {change} it or add rows"
