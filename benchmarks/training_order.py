"""Writes what all contestants of benchmarks/training.py are told: base, rows as text and as tokens, hyperparameters.

python benchmarks/training_order.py ORDER ROWS
"""

import json
import sys
from pathlib import Path


def main(order: Path, rows: int) -> None:
    """Bring base and rows into the store as the quickstart does, and write the order."""
    from transformers import AutoTokenizer

    from tasks.contracts.config import load_config
    from tasks.contracts.home import Home
    from tasks.contracts.jsonl import read_jsonl
    from tasks.contracts.store import Store
    from tasks.data.build import build_dataset
    from tasks.data.ingest import Place, ingest
    from tasks.training.base_model import prepare_base_model
    from tasks.training.fast.rows import pack_rows
    from tasks.training.loop.batches import plan_steps
    from tasks.training.loop.examples import RowEncoder, encode_rows

    home, config = Home.from_environment(), load_config("quickstart")
    store = Store(home.store)
    base = prepare_base_model(config.base_model, home, store)
    data, place = config.data.model_copy(update={"train_rows": rows}), Place(home, store)
    dataset = build_dataset(ingest(data, place, data.sources), None, data, place, base)
    named = {"device": "cpu", "learning_rate": config.training.peak_learning_rate}
    training = config.training.model_copy(update=named)
    encoder = RowEncoder(AutoTokenizer.from_pretrained(base.path, trust_remote_code=False), "")
    parts = {
        name: encode_rows(dataset.path / f"{name}.jsonl", encoder, training, training.max_length_tokens).examples
        for name in ("train", "eval")
    }
    train = parts["train"]
    facts = {
        "base": str(base.path),
        "rows": str(dataset.path / "train.jsonl"),
        "training": training.model_dump(mode="json"),
        "messages": [row["messages"] for row in read_jsonl(dataset.path / "train.jsonl")],
        **{name: [[example.prompt_ids, example.answer_ids] for example in part] for name, part in parts.items()},
    }
    order.write_text(json.dumps(facts), encoding="utf-8")
    steps = plan_steps([len(example) for example in train], training)
    computed = sum(len(pack_rows([train[row] for row in step]).ids) for step in steps)
    counted = {"tokens": sum(map(len, train)), "answer_tokens": sum(len(example.answer_ids) for example in train)}
    print(json.dumps({**counted, "computed_tokens": computed, "steps": len(steps)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
