"""The generation process: loads the engine from a servable directory and asks it every row, one at a time.

One at a time because that is how it serves: a padded batch of the onnx engine gave other answers to 44 of 64 rows.
"""

from pathlib import Path
from typing import Any

from tasks.contracts.engine import load_engine
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.worker import say, worker_main


def run(spec: dict[str, Any]) -> None:
    """Answer the rows that a spec names."""
    engine = load_engine(Path(spec["version_directory"]))
    predictions = []
    for row in read_jsonl(Path(spec["rows"])):
        prompt, reference = row["messages"][:-1], row["messages"][-1]["content"]
        answer = engine.generate(prompt)
        predictions.append(
            {
                "id": row["id"],
                "messages": prompt,
                "reference": reference,
                "answer": answer.text,
                "new_tokens": answer.new_tokens,
            }
        )
        say("answer", row=len(predictions), new_tokens=answer.new_tokens)
    write_jsonl(Path(spec["out"]), predictions)


if __name__ == "__main__":
    worker_main(run)
