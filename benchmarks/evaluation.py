"""Generation, scoring and resampling beside what people use, on the quickstart's rows, several times in turn.

    make bench-eval           # or: python benchmarks/evaluation.py --quick

Generation: the engine that serves, many rows together, beside transformers' `generate` in batches of 1, 8 and 32 and
its continuous batching; each in a process of its own, after a warm-up. Scoring: ROUGE-1/2/L/Lsum beside the package
rouge-score (which `evaluate`'s module calls), on one core. Resampling: intervals of 2,000 pairs from 1,000 resamples.
Prints a table and writes var/bench/eval.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from training import machine

HERE = Path(__file__).parent
RESULT = HERE.parent / "var" / "bench" / "eval.json"
ROUNDS, ROWS, QUICK_ROWS, MAX_NEW_TOKENS = 3, 64, 32, 48
OURS_FP32, OURS_INT8 = "ours fp32", "ours int8"
BATCH_1, BATCH_8, BATCH_32 = (f"transformers fp32 {size}" for size in (1, 8, 32))
BF16_8, CONTINUOUS = "transformers bf16 8", "continuous fp32"
CONTESTANTS = (OURS_FP32, BATCH_8, OURS_INT8, BF16_8, BATCH_1, BATCH_32, CONTINUOUS)
SCORED_PAIRS, PEER_PAIRS, RESAMPLED_PAIRS, RESAMPLES = 6_000, 600, 2_000, 1_000


def main() -> None:
    """Prepare model and rows, run the rounds, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, one round: to try the benchmark")
    asked = parser.parse_args()
    rows, rounds = (QUICK_ROWS, 1) if asked.quick else (asked.rows, asked.rounds)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-eval-", dir=RESULT.parent) as folder:
        order = prepare(Path(folder), rows)
        figures: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        scoring: dict[str, list[float]] = {}
        for number in range(rounds):
            for name in CONTESTANTS:
                found = run_contestant(name, order)
                if found is None:
                    continue
                figures[name].append(found)
                print(f"round {number + 1}, {name}: {found['tokens'] / found['seconds']:.0f} tokens/s", flush=True)
            for key, value in score_and_resample(json.loads(order.read_text())["texts"]).items():
                scoring.setdefault(key, []).append(value)
    found = {
        "machine": machine(),
        "rows": rows,
        "rounds": rounds,
        "generation": {name: summed_up(runs) for name, runs in figures.items()},
        "same_tokens": same_tokens(figures),
        "scoring": {key: {"median": median(values), "all": values} for key, values in scoring.items()},
    }
    found["ratios"] = ratios(found)
    print(table(found))
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten to {RESULT}")


def prepare(folder: Path, rows: int) -> Path:
    """Build the quickstart's base model in every form, choose rows, and write the order for the contestants."""
    from tasks.contracts.config import RetrainConfig, ServingSection
    from tasks.contracts.home import Home
    from tasks.contracts.jsonl import read_jsonl
    from tasks.contracts.store import Store
    from tasks.data.build import build_dataset
    from tasks.data.ingest import Place, ingest
    from tasks.serving.build import build_servable
    from tasks.training.base_model import prepare_base_model

    config, home = RetrainConfig(), Home(RESULT.parent / "eval-home")
    store = Store(home.store)
    base = prepare_base_model(config.base_model, home, store)
    place = Place(home, store, config.serving)
    dataset = build_dataset(ingest(config.data, place, config.data.sources), None, config.data, place, base)
    serving = {"max_new_tokens": MAX_NEW_TOKENS}
    onnx = {}
    for precision in ("fp32", "int8"):
        section = ServingSection(onnx_precision=precision, **serving)
        onnx[precision] = build_servable(base, None, section, store, home.logs / "build.log").model_directory / "1"
    evaluated = list(read_jsonl(dataset.path / "eval.jsonl"))[:rows]
    texts = [row["messages"][-1]["content"] for row in read_jsonl(dataset.path / "train.jsonl")]
    order = folder / "order.json"
    facts = {
        "rows": [row["messages"][:-1] for row in evaluated],
        "texts": texts,
        "hf": str(base.path),
        "onnx": {precision: str(path) for precision, path in onnx.items()},
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    order.write_text(json.dumps(facts), encoding="utf-8")
    return order


def run_contestant(name: str, order: Path) -> dict[str, Any] | None:
    """Run a contestant in a process of its own; None if it cannot run here, whose last words are printed."""
    command = [sys.executable, str(HERE / "evaluation_generation.py"), str(order), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    if done.returncode:
        print(f"{name} does not run here: {done.stderr.strip().splitlines()[-1][:200]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def score_and_resample(texts: list[str]) -> dict[str, float]:
    """Score pairs on one core with ours and with rouge-score, and resample; return rates, milliseconds, and the largest
    difference of a score."""
    import numpy as np
    import torch
    from rouge_score.rouge_scorer import RougeScorer

    from tasks.evaluation.metrics.bleu import Bleu
    from tasks.evaluation.metrics.rouge import Rouge
    from tasks.evaluation.resampling import Measured, compare

    torch.set_num_threads(1)
    draw = np.random.default_rng(17)
    references = [texts[place] for place in draw.integers(0, len(texts), SCORED_PAIRS)]
    answers = [_altered(text, draw, texts) for text in references]
    rouge = Rouge()
    seconds, result = _timed(lambda: rouge.compute(predictions=answers, references=references))
    scorer = RougeScorer(list(rouge.names), use_stemmer=False)
    pairs = list(zip(references, answers, strict=True))[:PEER_PAIRS]
    peer_seconds, peers = _timed(lambda: [scorer.score(*pair) for pair in pairs])
    differences = [
        abs(pair[name].fmeasure - result["statistics"][name][place, 0])
        for place, pair in enumerate(peers)
        for name in rouge.names
    ]
    found = {
        "pairs_per_s": SCORED_PAIRS / seconds,
        "rouge_score_pairs_per_s": PEER_PAIRS / peer_seconds,
        "largest_difference": max(differences),
    }
    statistics = result["statistics"]["rougeL"]
    other = draw.permutation(SCORED_PAIRS)
    measured = Measured(
        {"base": statistics[other[:RESAMPLED_PAIRS]], "candidate": statistics[:RESAMPLED_PAIRS]}, rouge.score_sums
    )
    found["bootstrap_ms"] = 1_000 * _timed(lambda: compare({"rougeL": measured}, RESAMPLES, 1, 0.95, 17))[0]
    bleu = Bleu()
    counts = bleu.compute(predictions=answers, references=references)["statistics"]["bleu"]
    measured = Measured(
        {"base": counts[other[:RESAMPLED_PAIRS]], "candidate": counts[:RESAMPLED_PAIRS]}, bleu.score_sums
    )
    found["bootstrap_bleu_ms"] = 1_000 * _timed(lambda: compare({"bleu": measured}, RESAMPLES, 1, 0.95, 17))[0]
    found["randomisation_ms"] = 1_000 * _timed(lambda: compare({"bleu": measured}, 1, 10_000, 0.95, 17))[0]
    return found


def _altered(text: str, draw: Any, texts: list[str]) -> str:
    """Return an answer like a text: some words left out, some of another text put in."""
    words = [word for word in text.split() if draw.random() > 0.3]
    other = texts[int(draw.integers(0, len(texts)))].split()
    place = int(draw.integers(0, len(words) + 1))
    return " ".join([*words[:place], *other[:4], *words[place:]])


def _timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def summed_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of a contestant's runs; empty if it never ran."""
    rates = [run["tokens"] / run["seconds"] for run in runs]
    return {"tokens_per_s": {"median": median(rates), "all": rates}, "tokens": runs[0]["tokens"]} if runs else {}


def same_tokens(figures: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Say of how many rows the answers are the same tokens: with the same numbers, and ours from run to run."""
    pairs = {
        "ours fp32 = transformers fp32, batch 1": (OURS_FP32, BATCH_1),
        "transformers fp32, batch 8 = batch 1": (BATCH_8, BATCH_1),
    }
    said = {}
    for what, (first, second) in pairs.items():
        if figures[first] and figures[second]:
            both = zip(figures[first][0]["answers"], figures[second][0]["answers"], strict=True)
            equal = [one == other for one, other in both]
            said[what] = f"{sum(equal)} of {len(equal)} rows"
    return said


def ratios(found: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures that are goals."""
    generation, scoring = found["generation"], found["scoring"]

    def rate(name: str) -> float | None:
        figures = generation[name]
        return figures["tokens_per_s"]["median"] if figures else None

    def ratio(first: str, second: str) -> float | None:
        ours, theirs = rate(first), rate(second)
        return ours / theirs if ours and theirs else None

    pairs_per_s = scoring["pairs_per_s"]["median"]
    return {
        "generation_vs_transformers_batch8": ratio(OURS_FP32, BATCH_8),
        "generation_int8_vs_transformers_bf16_batch8": ratio(OURS_INT8, BF16_8),
        "scoring_pairs_per_s": pairs_per_s,
        "scoring_vs_rouge_score": pairs_per_s / scoring["rouge_score_pairs_per_s"]["median"],
        "bootstrap_ms_2000x1000": scoring["bootstrap_ms"]["median"],
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"\n{found['rows']} rows, {found['rounds']} rounds", f"{'generation':<24}{'tokens/s':>10}   (all rounds)"]
    for name, figures in found["generation"].items():
        if figures:
            rates = figures["tokens_per_s"]
            spread = ", ".join(f"{rate:.0f}" for rate in rates["all"])
            lines.append(f"{name:<24}{rates['median']:>10.0f}   ({spread})")
        else:
            lines.append(f"{name:<24}{'–':>10}   does not run here")
    lines += [f"{what}: {said}" for what, said in found["same_tokens"].items()]
    lines += ["", f"{'scoring and resampling':<32}{'median':>14}"]
    lines += [f"{name:<32}{figures['median']:>14.4g}" for name, figures in found["scoring"].items()]
    lines += [
        "",
        *(f"{name:<46}{'–' if value is None else f'{value:.4g}':>10}" for name, value in found["ratios"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
