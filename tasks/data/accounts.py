"""Where the rows of a data set went: what was read is trained on, evaluated, or rejected for one reason."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contracts.artifacts import RowSet
from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.data.advice import advice
from tasks.data.division.index import EVALUATION, FROZEN, SOURCES, Index
from tasks.data.division.split import REASONS, Division
from tasks.data.execution.jobs import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORIGINS = {SOURCES: "data.sources", EVALUATION: "data.evaluation_sources", FROZEN: "data.frozen_evaluation"}


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


def check_not_empty(
    accounts: dict[int, Account],
    row_sets: "Mapping[int, RowSet]",
    origins: "Sequence[int]",
    results: "Sequence[Result]",
    data: DataSection,
) -> None:
    """Refuse a data set with nothing to train on or nothing to evaluate on.

    Args:
        accounts: by origin, of what follows (`accounts_of`).
        row_sets: what was read, by origin.
        origins: of the file that each job cleaned.
        results: of each job.
        data: the settings.

    Raises:
        DataError: it is one, with its counts and the setting or the step that took most.
    """
    total = sum_of(list(accounts.values()))
    if total.train_rows and total.eval_rows:
        return
    missing, origin = ("evaluate", EVALUATION) if not total.eval_rows else ("train", SOURCES)
    origin = origin if origin in accounts else SOURCES
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(total.rejected.items())) or "none"
    mine = [result for result, of in zip(results, origins, strict=True) if of == origin]
    unreadable = sum(row_sets[origin].rejected.values())
    raise DataError(
        f"{ORIGINS[origin]} leaves nothing to {missing} on: of {total.rows_read} rows read, {total.train_rows} are for "
        f"training, {total.eval_rows} for evaluation, rejected: {reasons}; "
        f"{advice(accounts[origin].rejected, unreadable, mine, data)}"
    )
