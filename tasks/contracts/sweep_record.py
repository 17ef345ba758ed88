"""What came of a sweep: its trials, and which of them is the best."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

TrialState = Literal["finished", "pruned", "failed", "stopped"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: its place in the sweep, from 0.
        state: finished; pruned (it did worse than others); failed; or stopped (the time was up, and it goes on from its
            checkpoint when it is given more).
        settings: the searched training settings, and their values here.
        loss: validation loss of the weights that it kept, or the last that was measured; None: none was.
        seconds: how long it took.
        reason: why it did not finish.
        run_id: its run in MLflow.
    """

    number: int
    state: TrialState
    settings: dict[str, Any]
    loss: float | None
    seconds: float
    reason: str
    run_id: str


@dataclass(frozen=True)
class SweepRecord:
    """A sweep that has ended.

    Attributes:
        name: of the study in Optuna's storage.
        run_id: its run in MLflow, whose children are the trials.
        experiment: id of the MLflow experiment that it is in.
        ended: why no further trial was begun.
        trials: in their order.
        importances: setting → share of the differences in loss that it explains; empty with too few trials.
    """

    name: str
    run_id: str
    experiment: str
    ended: str
    trials: tuple[TrialRecord, ...]
    importances: dict[str, float]

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the lowest loss, the first of several; None if none finished."""
        return best_of(self.trials)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON facts."""
        return {**asdict(self), "best": asdict(self.best) if self.best else None}


def best_of(trials: tuple[TrialRecord, ...]) -> TrialRecord | None:
    """Return the finished trial with the lowest loss, the first of several; None if none finished."""
    finished = [(trial.loss, trial.number) for trial in trials if trial.state == "finished" and trial.loss is not None]
    return next(trial for trial in trials if trial.number == min(finished)[1]) if finished else None
