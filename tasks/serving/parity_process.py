"""The parity process: takes a model through its forms, from the trained one to the built one, and scores references.

Forms: "trained" (the adapter on its base, in training precision), "merged" (plain weights in fp32, and keys and values
of virtual tokens) and "built" (the engine that serves). All see the same prompt and reference tokens.
"""

import gc
from pathlib import Path
from typing import Any

from tasks.contracts.engine import import_served_module, load_engine
from tasks.contracts.errors import BuildError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.vector_math import settle_vector_math
from tasks.contracts.worker import say, worker_main
from tasks.serving.merging import load_trained, merge


def run(spec: dict[str, Any]) -> None:
    """Measure the forms that a spec names, and say each."""
    settle_vector_math()
    version = Path(spec["version_directory"])
    base, adapter = Path(spec["base"]), Path(spec["adapter"])
    conversations, references = [], []
    for row in list(read_jsonl(Path(spec["rows"])))[: spec["count"]]:
        conversations.append(row["messages"][:-1])
        references.append(row["messages"][-1]["content"])
    served = import_served_module(version, "prompt").PromptFormat(version)
    asked = [
        (served.encode(messages)[0], served.encode_answer(messages, reference))
        for messages, reference in zip(conversations, references, strict=True)
    ]
    tokenizer = adapter if (adapter / "tokenizer.json").is_file() else base
    check_prompts(tokenizer, served, conversations, spec["system_prompt"], [prompt for prompt, _ in asked])
    room = served.context_tokens
    asked = [(prompt, target[: room - len(prompt)]) for prompt, target in asked]
    trained = load_trained(base, adapter, spec["precision"])
    _say_form("trained", [_likelihood(trained, {}, *pair) for pair in asked])
    del trained
    gc.collect()
    merged = merge(base, adapter)
    _say_form("merged", [_likelihood(merged.model, merged.prefix, *pair) for pair in asked])
    del merged
    gc.collect()
    built = load_engine(version).generate_many(conversations, references)
    in_order = [each for _, _, each in sorted(built, key=lambda found: found[0])]
    _say_form("built", [(each.nats, each.likeliest, each.tokens) for each in in_order])


def check_prompts(
    tokenizer_directory: Path,
    served: Any,
    conversations: list[list[dict[str, str]]],
    system_prompt: str,
    prompts: list[list[int]],
) -> None:
    """Hold the served prompts against those of transformers' own template and tokenizer.

    A template that tells the date is left out: a served one always tells the same (DECISIONS.md).

    Raises:
        BuildError: a prompt has other tokens, or the tokenizer's end token does not end an answer.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory, trust_remote_code=False)
    if tokenizer.eos_token_id not in served.stop_token_ids:
        raise BuildError(
            f"the tokenizer's end token is {tokenizer.eos_token_id}, which does not end a served answer "
            f"({sorted(served.stop_token_ids)} do)"
        )
    if "strftime_now" in (tokenizer.chat_template or ""):
        return
    for number, (messages, prompt) in enumerate(zip(conversations, prompts, strict=True), start=1):
        own = system_prompt and not any(message["role"] == "system" for message in messages)
        given = [{"role": "system", "content": system_prompt}, *messages] if own else messages
        expected = tokenizer.apply_chat_template(given, add_generation_prompt=True, return_dict=False)
        if expected != prompt:
            raise BuildError(
                f"prompt {number} has {len(prompt)} tokens as served and {len(expected)} as transformers spells it, "
                "or other ones; the chat template or the tokenizer of the build is not that of the training"
            )


def _likelihood(model: Any, prefix: dict[str, Any], prompt: list[int], target: list[int]) -> tuple[float, int, int]:
    """Return nats of a target after a prompt, how many of its tokens are the likeliest, and how many there are."""
    import torch
    from transformers import DynamicCache

    settings = {}
    if prefix:
        pairs = [(prefix[f"key.{layer}"], prefix[f"value.{layer}"]) for layer in range(len(prefix) // 2)]
        settings["past_key_values"] = DynamicCache(pairs)
    tokens = torch.tensor([prompt + target[:-1]])
    wanted = torch.tensor(target)
    with torch.inference_mode():
        logits = model(input_ids=tokens, **settings).logits[0, -len(target) :].float()  # (target, V)
    nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return float(nats), int((logits.argmax(-1) == wanted).sum()), len(target)


def _say_form(name: str, likelihoods: list[tuple[float, int, int]]) -> None:
    nats, likeliest, tokens = (sum(column) for column in zip(*likelihoods, strict=True))
    figures = {"nats_a_token": nats / tokens, "likeliest": likeliest / tokens}
    figures["of_rows"] = [row_nats / row_tokens for row_nats, _, row_tokens in likelihoods]
    say("form", name=name, rows=len(likelihoods), tokens=tokens, **figures)


if __name__ == "__main__":
    worker_main(run)
