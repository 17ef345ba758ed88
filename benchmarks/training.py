"""The training step side by side with what people use, on the quickstart's rows: one LoRA run each, several times.

    make bench-train          # or: python benchmarks/training.py --quick --peers-python .venv-bench-train/bin/python

Contestants: transformers' Trainer with peft as documented, TRL's SFTTrainer as it comes, LLaMA-Factory where it
installs, and the product's own training process. All train the same rows once, in steps of 8, with the same rank,
learning rate and schedule, each in a process of its own, in turn. Prints a table and writes var/bench/train.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from peak_memory import run_watched
from training_flops import model_flops

HERE = Path(__file__).parent
RESULT = HERE.parent / "var" / "bench" / "train.json"
OURS, FP32, TRAINER, TRL = "ours", "plain peft, fp32", "Trainer + peft", "TRL SFTTrainer"
ROUNDS, ROWS, QUICK_ROWS = 3, 160, 48
LLAMA_FACTORY = "llamafactory==0.9.5"


def main() -> None:
    """Prepare the rows, run the rounds, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, one round: to try the benchmark")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of requirements/bench-train.txt")
    asked = parser.parse_args()
    rows, rounds = (QUICK_ROWS, 1) if asked.quick else (asked.rows, asked.rounds)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-train-", dir=RESULT.parent) as folder:
        order = Path(folder) / "order.json"
        facts = _run([sys.executable, "training_order.py", str(order), str(rows)])[0]
        results: dict[str, dict[str, list[float]]] = {}
        peaks = []
        for number in range(rounds):
            around: list[float] = []
            for place, name in enumerate((TRAINER, TRL, OURS, FP32)):
                if name in (OURS, FP32):  # right before ours and right after it
                    around.append(_run([sys.executable, "training_flops.py", str(order)])[0]["gflops"])
                figures = run_contestant(name, order, Path(folder) / f"{number}-{place}", asked.peers_python)
                for key, value in figures.items():
                    results.setdefault(name, {}).setdefault(key, []).append(value)
                print(f"round {number + 1}, {name}: {facts['tokens'] / figures['seconds']:.0f} tokens/s", flush=True)
            peaks.append(max(around))
        flops = model_flops(json.loads(order.read_text()))
    found = {
        "machine": machine(),
        "rows": rows,
        "rounds": rounds,
        **facts,
        "matmul_peak_gflops": peaks,
        "model_gflop": flops / 1e9,
        "llama_factory": llama_factory(asked.peers_python),
        "contestants": {name: summed_up(figures, facts["tokens"], flops, peaks) for name, figures in results.items()},
    }
    # Tokens that rows share count for each of them above; the processor multiplies them once.
    share = found["contestants"][OURS]["median_share_of_matmul_peak"]
    found["ours_computed_share_of_matmul_peak"] = share * facts["computed_tokens"] / facts["tokens"]
    found["ratios"] = ratios(found["contestants"])
    print(table(found))
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten to {RESULT}")


def run_contestant(name: str, order: Path, out: Path, peers_python: str) -> dict[str, float]:
    """Train once; return seconds without and with loading, the evaluation loss in fp32 and the peak memory."""
    if name in (OURS, FP32):
        command = [sys.executable, "training_ours.py", str(order), str(out), "fp32" if name == FP32 else "fast"]
    else:
        command = [peers_python, "training_peers.py", {TRAINER: "trainer", TRL: "trl"}[name], str(order), str(out)]
    started = time.monotonic()
    said, peak_mb = _run(command)
    whole_s = time.monotonic() - started
    loss = _run([sys.executable, "training_loss.py", str(order), said["adapter"]])[0]["loss"]
    return {"seconds": said["seconds"], "whole_s": whole_s, "loss": loss, "peak_mb": peak_mb}


def _run(command: list[str]) -> tuple[dict[str, Any], float]:
    """Run one of the scripts beside this one; return the facts of its last line and its peak memory in MB.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done, peak = run_watched([command[0], str(HERE / command[1]), *command[2:]], environment)
    if done.returncode != 0:
        raise SystemExit(f"{command[1]} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts, peak.all_mb


def llama_factory(python: str) -> str:
    """Ask pip whether LLaMA-Factory goes beside the libraries that the others are measured with."""
    pins = ["torch==2.13.0", "transformers==5.23.0"]
    command = [python, "-m", "pip", "install", "--dry-run", "--quiet", LLAMA_FACTORY, *pins]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return f"{LLAMA_FACTORY} would install beside {' and '.join(pins)}, but is not measured here yet"
    said = [line.strip() for line in done.stderr.splitlines() if "llamafactory" in line and "depends on" in line]
    reason = said[0] if said else (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    return f"not run: {LLAMA_FACTORY} does not install beside {' and '.join(pins)} ({reason})"


def summed_up(
    figures: dict[str, list[float]], tokens: int, flops: float, peaks: list[float]
) -> dict[str, list[float] | float]:
    """Return every run's figures, lowest first, and the medians that the ratios are made of."""
    speeds = sorted(tokens / seconds for seconds in figures["seconds"])
    # Against the peak of the same round: the machine itself is faster at one time than at another.
    shares = sorted(flops / s / (peak * 1e9) for s, peak in zip(figures["seconds"], peaks, strict=True))
    return {
        "tokens_per_s": speeds,
        "share_of_matmul_peak": shares,
        "loss": sorted(figures["loss"]),
        "peak_mb": sorted(figures["peak_mb"]),
        "whole_process_s": sorted(figures["whole_s"]),
        "median_tokens_per_s": median(speeds),
        "median_share_of_matmul_peak": median(shares),
        "median_loss": median(figures["loss"]),
    }


def ratios(contestants: dict[str, Any]) -> dict[str, float]:
    """Return the four figures that goals are set for."""
    ours, plain = contestants[OURS], contestants[FP32]["median_loss"]
    return {
        "tokens_per_s_vs_trl_default": ours["median_tokens_per_s"] / contestants[TRL]["median_tokens_per_s"],
        "tokens_per_s_vs_trainer_peft": ours["median_tokens_per_s"] / contestants[TRAINER]["median_tokens_per_s"],
        "share_of_matmul_peak": ours["median_share_of_matmul_peak"],
        "loss_difference_vs_fp32": abs(ours["median_loss"] - plain) / plain,
    }


def machine() -> dict[str, Any]:
    """Say what it ran on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def table(found: dict[str, Any]) -> str:
    """Lay the results out for reading."""
    lines = [
        f"\n{found['rows']} rows, {found['tokens']} tokens, of which {found['answer_tokens']} are learned; "
        f"bf16 matrix products {median(found['matmul_peak_gflops']):.0f} GFLOP/s "
        f"({min(found['matmul_peak_gflops']):.0f}-{max(found['matmul_peak_gflops']):.0f}); ours computes "
        f"{found['computed_tokens'] / found['tokens']:.0%} of the tokens, as rows share their beginning: "
        f"{found['ours_computed_share_of_matmul_peak']:.1%} of that peak is multiplied",
        f"{'contestant':<20}{'tokens/s':>9}{'spread':>12}{'of peak':>9}{'loss':>8}{'MB':>7}{'whole s':>9}",
    ]
    for name, one in found["contestants"].items():
        speeds = one["tokens_per_s"]
        lines.append(
            f"{name:<20}{median(speeds):>9.0f}{f'{speeds[0]:.0f}-{speeds[-1]:.0f}':>12}"
            f"{one['median_share_of_matmul_peak']:>9.1%}{one['median_loss']:>8.4f}{median(one['peak_mb']):>7.0f}"
            f"{median(one['whole_process_s']):>9.1f}"
        )
    lines.append(f"LLaMA-Factory: {found['llama_factory']}")
    lines += [f"{key}: {value:.4g}" for key, value in found["ratios"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
