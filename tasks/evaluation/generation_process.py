"""The generation process: loads the engine from a servable directory and asks it every row.

An engine answers many rows together where that gives the answers that it serves one by one. That this is so is tried on
some rows, which are asked again alone; the times of these are those that a client would wait.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.contracts.engine import load_engine
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.worker import say, worker_main


def run(spec: dict[str, Any]) -> None:
    """Answer the rows that a spec names."""
    engine = load_engine(Path(spec["version_directory"]))
    rows = list(read_jsonl(Path(spec["rows"])))
    predictions: list[dict[str, Any]] = [{}] * len(rows)
    answers = answers_of(engine, rows, spec.get("max_new_tokens"))
    for count, (position, answer, likelihood) in enumerate(answers, start=1):
        predictions[position] = record_of(rows[position], answer, likelihood)
        say("answer", row=count, new_tokens=answer.new_tokens)
    for place in spec["asked_again"]:
        started = time.perf_counter()
        predictions[place]["again"] = engine.generate(rows[place]["messages"][:-1]).text
        predictions[place]["seconds"] = time.perf_counter() - started
        say("again")
    write_jsonl(Path(spec["out"]), predictions)


def answers_of(
    engine: Any, rows: list[dict[str, Any]], max_new_tokens: int | None = None
) -> Iterator[tuple[int, Any, Any]]:
    """Yield a row's position, its answer and how likely its reference is, as far as the engine says.

    The engine of a version that was built before engines answered many rows answers one.
    """
    conversations = [row["messages"][:-1] for row in rows]
    if hasattr(engine, "generate_many"):
        yield from engine.generate_many(conversations, [row["messages"][-1]["content"] for row in rows], max_new_tokens)
        return
    for position, messages in enumerate(conversations):
        yield position, engine.generate(messages, max_new_tokens), None


def record_of(row: dict[str, Any], answer: Any, likelihood: Any) -> dict[str, Any]:
    """Return the line of a prediction."""
    return {
        "id": row["id"],
        "slice": row["slice"],
        **({"set": row["set"]} if "set" in row else {}),
        "messages": row["messages"][:-1],
        "reference": row["messages"][-1]["content"],
        "answer": answer.text,
        "new_tokens": answer.new_tokens,
        "finish_reason": answer.finish_reason,
        **({"reference_nats": likelihood.nats, "reference_tokens": likelihood.tokens} if likelihood else {}),
    }


if __name__ == "__main__":
    worker_main(run)
