"""One contestant of the generation benchmark: loads its model, answers the rows, and says time and tokens.

    python benchmarks/evaluation_generation.py ORDER NAME

ORDER is a JSON file: rows (messages a row), max_new_tokens, hf (a directory of transformers), onnx (precision →
version directory). The first pass is there so that code, caches and memory are in place; it answers eight rows.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

_WARM_ROWS = 8


def main() -> None:
    """Answer and print one JSON line: seconds, new tokens, and the tokens of every answer."""
    order, name = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    kind, *settings = name.split()
    answer = {"ours": ours, "transformers": transformers, "continuous": continuous}[kind](order, *settings)
    answer(order["rows"][:_WARM_ROWS])
    started = time.perf_counter()
    answers = answer(order["rows"])
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "tokens": sum(map(len, answers)), "answers": answers}))


def ours(order: dict[str, Any], precision: str) -> Any:
    """Answer with the engine that serves, many rows together."""
    from tasks.contracts.engine import load_engine

    engine = load_engine(Path(order["onnx"][precision]))
    encode = engine._format._tokenizer.encode

    def answer(rows: list[Any]) -> list[list[int]]:
        found = {position: answer.text for position, answer, _ in engine.generate_many(rows)}
        return [encode(found[position], add_special_tokens=False).ids for position in range(len(rows))]

    return answer


def transformers(order: dict[str, Any], precision: str, batch: str) -> Any:
    """Answer with `generate`, sorted by length, in padded batches of so many."""
    import torch

    model, tokenizer = _load(order, precision)

    def answer(rows: list[Any]) -> list[list[int]]:
        prompts = [tokenizer.apply_chat_template(row, add_generation_prompt=True, tokenize=False) for row in rows]
        by_length = sorted(range(len(rows)), key=lambda position: len(prompts[position]))
        answers: list[list[int]] = [[]] * len(rows)
        size = int(batch)
        for start in range(0, len(rows), size):
            chosen = by_length[start : start + size]
            given = tokenizer(
                [prompts[position] for position in chosen], return_tensors="pt", padding=True, add_special_tokens=False
            )
            with torch.inference_mode():
                output = model.generate(**given, max_new_tokens=order["max_new_tokens"], do_sample=False)
            for position, tokens in zip(chosen, output[:, given["input_ids"].shape[1] :].tolist(), strict=True):
                answers[position] = _normal(tokenizer, tokens)
        return answers

    return answer


def continuous(order: dict[str, Any], precision: str) -> Any:
    """Answer with transformers' own continuous batching."""
    from transformers import GenerationConfig

    model, tokenizer = _load(order, precision, attn_implementation="sdpa")
    config = GenerationConfig(
        max_new_tokens=order["max_new_tokens"],
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    def answer(rows: list[Any]) -> list[list[int]]:
        inputs = [tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=False) for row in rows]
        found = model.generate_batch(inputs=inputs, generation_config=config)
        in_order = sorted(found.items(), key=lambda item: int(item[0].rsplit("_", 1)[-1]))
        return [_normal(tokenizer, output.generated_tokens) for _, output in in_order]

    return answer


def _load(order: dict[str, Any], precision: str, **settings: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    tokenizer = AutoTokenizer.from_pretrained(order["hf"], padding_side="left")
    return AutoModelForCausalLM.from_pretrained(order["hf"], dtype=dtype, **settings).eval(), tokenizer


def _normal(tokenizer: Any, tokens: list[int]) -> list[int]:
    """Spell an answer as ours is compared: up to its end token, without outer white space."""
    end = tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in tokens else len(tokens)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
    return tokenizer.encode(text, add_special_tokens=False)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
