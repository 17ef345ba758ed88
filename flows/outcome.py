"""What a retraining run came to: what the terminal shows, `--json` prints and the flow returns."""

import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tasks.contracts.artifacts import EvalReport, GateDecision, RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.jsonl import read_jsonl
from tasks.evaluation.preference_sentence import sentence

Status = Literal["promoted", "rejected", "inconclusive", "unchanged", "waiting"]

EXIT_CODES: dict[str, int] = {"promoted": 0, "rejected": 3, "inconclusive": 4, "waiting": 5}
_SHORT = 110


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        status: promoted, rejected or inconclusive; "waiting" for a person's decision; "unchanged" if an earlier run
            holds the result already.
        verdict: the gate's verdict, now or then.
        version: the registered version.
        reasons: the gate's reasons.
        examples: evaluated rows.
        scores: system → metric → {value, low, high}.
        differences: baseline → metric → {value, low, high}.
        samples: three rows: prompt, reference, and an answer a system.
        served: what answers for the stable name now, if this run switched it.
        question: the evaluated prompt in the curl line, with its evaluated answer.
        curl: asks the served model; empty if it is not served.
        places: where to look: mlflow run, prefect flow run, report.
        seconds: how long the run took.
        overruled: "rolled back" if it was champion and a person went back from it, "refused" if a person did not want
            it, else ""; only a person promotes it again.
        waits_until: when a request for a person's decision lapses, in ISO 8601; empty if nobody is asked.
        judged: the metrics that the gate judges by, the primary one first.
        preferences: whose answers a judge preferred, a sentence each.
        long_rows: training rows that were left out (`rows_too_long`) or cut off (`rows_cut_off`), being too long.
    """

    status: Status
    verdict: str
    version: int
    reasons: tuple[str, ...]
    examples: int
    scores: dict[str, dict[str, dict[str, float]]]
    differences: dict[str, dict[str, dict[str, float]]]
    samples: tuple[dict[str, str], ...]
    served: dict[str, Any] | None
    question: dict[str, str]
    curl: str
    places: dict[str, str]
    seconds: float = 0.0
    overruled: str = ""
    waits_until: str = ""
    judged: tuple[str, ...] = ()
    long_rows: dict[str, int] = field(default_factory=dict)
    preferences: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The process's exit status: 0 promoted (now or before), 3 rejected (by the gate, or by a person, who refused
        it or went back from it), 4 inconclusive, 5 waiting."""
        if self.overruled:
            return EXIT_CODES["rejected"]
        by_verdict = {"promote": "promoted", "reject": "rejected", "inconclusive": "inconclusive"}
        return EXIT_CODES[by_verdict[self.verdict] if self.status == "unchanged" else self.status]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON facts."""
        return {**asdict(self), "exit_code": self.exit_code}


def outcome_of(
    report: EvalReport,
    decision: GateDecision,
    version: RegisteredVersion,
    served: ServedVersion | None,
    config: RetrainConfig,
    places: dict[str, str],
) -> Outcome:
    """Put together what a person wants to see at the end of a run."""
    statuses: dict[str, Status] = {"promote": "promoted", "reject": "rejected", "inconclusive": "inconclusive"}
    rows = list(read_jsonl(report.path / "predictions.jsonl"))
    predictions = list(read_jsonl(version.predictions_path / "predictions.jsonl"))
    asked = min(predictions, key=lambda row: (sum(len(m["content"]) for m in row["messages"]), row["id"]))
    is_served = served is not None and served.served
    return Outcome(
        status=statuses[decision.verdict],
        verdict=decision.verdict,
        version=version.version,
        reasons=decision.reasons,
        examples=report.examples,
        scores=_plain(report.scores),
        differences=_plain(report.differences),
        samples=tuple({k: v for k, v in row.items() if k not in ("id", "slice", "set", "scores")} for row in rows[:3]),
        served=asdict(served) if served else None,
        question={"prompt": asked["messages"][-1]["content"], "answer": asked["answer"]} if is_served else {},
        curl=curl_line(asked["messages"], config) if is_served else "",
        places=places,
        judged=tuple(dict.fromkeys((config.gate.primary_metric, *config.gate.guarded_metrics))),
        preferences=tuple(sentence(preference) for preference in report.preferences),
    )


def curl_line(messages: list[dict[str, str]], config: RetrainConfig) -> str:
    """Return the shell line that asks the stable name this prompt."""
    single = len(messages) == 1 and messages[0]["role"] == "user"
    body = {"text_input": messages[0]["content"]} if single else {"messages": json.dumps(messages, ensure_ascii=False)}
    line = json.dumps(body, ensure_ascii=False)
    if not line.isprintable():
        line = json.dumps(body)
    url = f"http://127.0.0.1:{config.serving.http_port}/v2/models/{config.serving.model_name}/generate"
    return f"curl -s {url} -d {shlex.quote(line)}"


def one_line(text: str, limit: int = _SHORT) -> str:
    """Return text on one line, shortened with an ellipsis; what would steer a terminal is shown as a question mark."""
    flat = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _plain(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {metric: asdict(interval) for metric, interval in row.items()} for name, row in table.items()}
