"""The product's training process as a contestant of benchmarks/training.py; or plain peft in fp32 in its loop.

python benchmarks/training_ours.py ORDER OUT fast|fp32
"""

import json
import sys
from pathlib import Path

from tasks.training import process
from tasks.training.fast.runtime import prepare_runtime


def main(order_path: Path, out: Path, way: str) -> None:
    """Train, and say the seconds of the steps."""
    order = json.loads(order_path.read_text(encoding="utf-8"))
    settings = dict(order["training"])
    if way == "fp32":
        from tasks.training.loop import trainee

        settings["precision"] = "fp32"
        trainee.why_not_fast = lambda _: "the plain way is what is measured"
    said = {}
    process.say = lambda event, **facts: said.update({event: facts})
    told = {"base": order["base"], "base_name": order["base"], "rows": order["rows"], "out": str(out)}
    process.run({**told, "training": settings, "system_prompt": "", "replay": "", "teacher": "", "checkpoints": ""})
    print(json.dumps({"seconds": said["measured"]["seconds"], "adapter": str(out)}))


if __name__ == "__main__":
    prepare_runtime()
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
