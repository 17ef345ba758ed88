"""Registers versions in several threads, all at once; started several times by a test, beside itself.

Run as `python registers_at_once.py HOME FIRST COUNT PIPE`: candidates FIRST to FIRST + COUNT - 1, once the other end of
PIPE is closed. Writes the versions they became, as JSON.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.contracts.artifacts import (
    AdapterRef,
    BaseModelRef,
    DatasetRef,
    EvalReport,
    GateDecision,
    Interval,
    Predictions,
    Review,
    ServableModel,
)
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import Candidate, register_version


def candidate_of(folder: Path, number: int) -> Candidate:
    """Make the smallest candidate that can be registered; each has another servable."""
    key = f"{number:064x}"
    places = {kind: folder / kind / key for kind in ("base", "rows", "adapter", "servable", "answers", "report")}
    for place in (*places.values(), folder / "review" / key, places["adapter"] / "adapter"):
        place.mkdir(parents=True, exist_ok=True)
    (places["adapter"] / "adapter" / "adapter_model.safetensors").write_text(f"weights {number}")
    score = {"rougeL": Interval(0.5, 0.4, 0.6)}
    return Candidate(
        base=BaseModelRef(places["base"], "b" * 64, "dir:base"),
        dataset=DatasetRef(places["rows"], "d" * 64, 110, 90, 20, {}, "e" * 64),
        adapter=AdapterRef(places["adapter"], "a" * 64, 84, 9_000, 1.0, 1.0),
        servable=ServableModel(places["servable"], key, "onnx"),
        predictions=Predictions(places["answers"], "p" * 64, 20, 1.0),
        report=EvalReport(places["report"], "r" * 64, 20, {"base": score, "candidate": score}, {}, {}),
        decision=GateDecision("promote" if number % 2 else "reject", "base", ("a reason",)),
        review=Review(folder / "review" / key, "v" * 64),
    )


def main() -> None:
    """Wait for the others, then register."""
    home, first, count, pipe = Home(Path(sys.argv[1])), *map(int, sys.argv[2:5])
    config = RetrainConfig()

    def register(number: int) -> tuple[int, int]:
        candidate = candidate_of(home.root / "made", number)
        with tracked_run(config, home, f"candidate {number}", {}) as run:
            return number, register_version(candidate, config, run, None, home).version

    import mlflow  # noqa: F401  what takes long comes before they all begin

    os.read(pipe, 1)
    with ThreadPoolExecutor(count) as together:
        done = list(together.map(register, range(first, first + count)))
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()
