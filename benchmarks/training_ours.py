"""The product's training process as a contestant of benchmarks/training.py; or plain peft in fp32 in its loop.

python benchmarks/training_ours.py ORDER OUT fast|fp32
"""

import json
import sys
from pathlib import Path

from tasks.contracts.config import TrainingSection
from tasks.training import process


def main(order_path: Path, out: Path, way: str) -> None:
    """Train, and say the seconds of the steps."""
    order = json.loads(order_path.read_text(encoding="utf-8"))
    settings = dict(order["training"])
    if way == "fp32":
        from tasks.training.fast import model

        settings["precision"] = "fp32"
        model.why_not_fast = lambda _: "the plain way is what is measured"
    seconds = []
    process.say = lambda event, **facts: seconds.append(facts["seconds"]) if event == "step" else None
    training = TrainingSection.model_validate(settings)
    process.train(Path(order["base"]), Path(order["rows"]), out, training, system_prompt="", base_name=order["base"])
    print(json.dumps({"seconds": seconds[-1], "adapter": str(out)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
