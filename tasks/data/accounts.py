"""Where the rows of a data set went: what was read is trained on, evaluated, or rejected for one reason."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contracts.artifacts import RowSet
from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.data.executors import Result
from tasks.data.index import EVALUATION, FROZEN, SOURCES, Index
from tasks.data.rows import LONG_ROW, SHORT_ANSWER
from tasks.data.split import REASONS, Division

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORIGINS = {SOURCES: "data.sources", EVALUATION: "data.evaluation_sources", FROZEN: "data.frozen_evaluation"}

_LIMITS = {SHORT_ANSWER: ("min_answer_chars", "lower"), LONG_ROW: ("max_row_chars", "raise")}


@dataclass(frozen=True)
class Account:
    """Where the rows of one origin went: rows_read = train_rows + eval_rows + the sum of rejected."""

    rows_read: int
    train_rows: int
    eval_rows: int
    rejected: dict[str, int]


def accounts_of(
    index: Index,
    division: Division,
    row_sets: "Mapping[int, RowSet]",
    origins: "Sequence[int]",
    results: "Sequence[Result]",
) -> dict[int, Account]:
    """Count where the rows of each origin went; they add up, or something is wrong with us.

    Args:
        index: the rows that passed the cleaning line.
        division: where each of them goes.
        row_sets: what was read, by origin; a frozen evaluation set is none of them.
        origins: of the file that each job cleaned.
        results: of each job.
    """
    import numpy as np

    accounts = {}
    for origin in sorted({*row_sets, *origins}):
        rejected: Counter[str] = Counter()
        mine = [result for result, of in zip(results, origins, strict=True) if of == origin]
        read = sum(result["read"] for result in mine)
        if origin in row_sets:
            rejected.update(row_sets[origin].rejected)
            read += rejected.total()
        for result in mine:
            rejected.update(result["dropped"])
        counts = np.bincount(division.reason[index.origin == origin], minlength=len(REASONS))
        rejected.update({reason: int(n) for reason, n in zip(REASONS[1:], counts[1:], strict=True) if n})
        account = Account(
            rows_read=read,
            train_rows=int((index.origin[division.train] == origin).sum()),
            eval_rows=int((index.origin[division.evaluation] == origin).sum()),
            rejected=dict(rejected),
        )
        assert read == account.train_rows + account.eval_rows + rejected.total(), (origin, account)
        accounts[origin] = account
    return accounts


def sum_of_steps(results: list[Result]) -> list[dict[str, Any]]:
    """Return what each step changed and dropped, in the order of the line."""
    steps: dict[str, Counter[str]] = {}
    for result in results:
        for name, counts in result["steps"].items():
            steps.setdefault(name, Counter()).update(counts)
    return [{"step": name, **counts} for name, counts in steps.items()]


def sum_of(accounts: list[Account]) -> Account:
    """Return one account of all origins."""
    rejected: Counter[str] = Counter()
    for account in accounts:
        rejected.update(account.rejected)
    return Account(
        rows_read=sum(account.rows_read for account in accounts),
        train_rows=sum(account.train_rows for account in accounts),
        eval_rows=sum(account.eval_rows for account in accounts),
        rejected=dict(rejected),
    )


def check_not_empty(total: Account, accounts: dict[int, Account], data: DataSection) -> None:
    """Refuse a data set with nothing to train on or nothing to evaluate on.

    Raises:
        DataError: it is one, with its counts and the setting that took most.
    """
    if total.train_rows and total.eval_rows:
        return
    missing, origin = ("evaluate", EVALUATION) if not total.eval_rows else ("train", SOURCES)
    origin = origin if origin in accounts else SOURCES
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(total.rejected.items())) or "none"
    raise DataError(
        f"{ORIGINS[origin]} leaves nothing to {missing} on: of {total.rows_read} rows read, {total.train_rows} are for "
        f"training, {total.eval_rows} for evaluation, rejected: {reasons}; {_advice(accounts[origin].rejected, data)}"
    )


def _advice(rejected: dict[str, int], data: DataSection) -> str:
    most = max(rejected, key=lambda reason: rejected[reason], default="")
    if most not in _LIMITS:
        return "add rows"
    setting, change = _LIMITS[most]
    return f"data.{setting} ({getattr(data, setting)}) rejected most: {change} it or add rows"
