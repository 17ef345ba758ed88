"""The evaluation loss of an adapter: fp32, one row at a time, no code of any contestant.

python benchmarks/training_loss.py ORDER ADAPTER
"""

import json
import sys
from pathlib import Path


def main(order_path: Path, adapter: str) -> None:
    """Say the mean cross-entropy of the held-out rows' answer tokens, in nats."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    order = json.loads(order_path.read_text(encoding="utf-8"))
    base = AutoModelForCausalLM.from_pretrained(order["base"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).float().eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for prompt, answer in order["eval"]:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
            tokens += len(answer)
    print(json.dumps({"loss": total / tokens}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
