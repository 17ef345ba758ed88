"""The local tritonserver process: start it, find it again, stop it. It outlives the run that started it."""

import hashlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil

from tasks.contracts.config import ServingSection
from tasks.contracts.errors import EnvironmentProblem, ServingError
from tasks.contracts.home import Home, checked_name
from tasks.contracts.locks import held_lock
from tasks.serving.ports import refuse_port_in_use
from tasks.serving.repository import publish_router
from tasks.serving.routing import read_routing
from tasks.serving.server_record import forget_record, read_record, write_record
from tasks.serving.serving_environment import ServingEnvironment, find_serving_environment, why_triton_cannot_run
from tasks.serving.triton_client import (
    TOKEN_HEADER,
    TritonAddress,
    is_live,
    is_model_ready,
    load_model,
    repository_index,
)

__all__ = [
    "ServingEnvironment",
    "ensure_triton",
    "find_serving_environment",
    "running_triton",
    "start_tritonserver",
    "stop_tritonserver",
    "why_triton_cannot_run",
]

log = logging.getLogger("llm_retrain.serving")

SLOW_SECONDS = 30.0
"""What does not answer for so long is taken for hung, and is replaced."""
_STUB_SECONDS = 120  # a cold disk can take longer than Triton's 30 s to import numpy and onnxruntime
_EXIT_SECONDS = 10
_POLL_SECONDS = 0.1
_TAIL_LINES = 12
_PASSED_ON = ("HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def ensure_triton(home: Home, serving: ServingSection) -> TritonAddress:
    """Return the server of this home with the router of `serving.model_name` loaded; start what is not running.

    Raises:
        EnvironmentProblem: Triton cannot run here, a port is in use, or the server of this home uses other ports.
        ServingError: the server does not start, or the router does not load.
    """
    address = running_triton(home)
    if address is None:
        start_tritonserver(home, serving)
        address = running_triton(home, SLOW_SECONDS)
        if address is None:
            raise ServingError(f"Triton stopped just after it was ready; its log is {_log_file(home)}")
    if address.http_port != serving.http_port:
        raise EnvironmentProblem(
            f"the Triton of {home.root} listens on port {address.http_port} and serving.http_port is "
            f"{serving.http_port}; stop it with `llm-retrain down` or set serving.http_port={address.http_port}"
        )
    if not is_model_ready(address, serving.model_name):
        publish_router(home, serving.model_name)
        load_model(address, serving.model_name, serving.load_timeout_seconds)
    return address


def start_tritonserver(home: Home, serving: ServingSection) -> int:
    """Start the server as a daemon, with the routers of this home and their champions, and wait until it answers.

    A champion that does not load is logged and does not stop the server: a roll-back needs it.

    Returns:
        The pid; that of the running server if there is one.

    Raises:
        EnvironmentProblem: Triton cannot run here, or a port is in use.
        ServingError: the server died or did not answer in time; names its log and shows the end of it.
    """
    environment = find_serving_environment()
    with held_lock(home.pids / "triton.lock"):
        record = read_record(home)
        if record is not None and running_triton(home, SLOW_SECONDS) is not None:
            return record.pid
        stop_tritonserver(home)  # one that is alive and does not answer, or what a crash left
        for key in ("http_port", "grpc_port", "metrics_port"):
            refuse_port_in_use(getattr(serving, key), f"serving.{key}")
        publish_router(home, serving.model_name)
        _assemble_backends(environment, home.triton_runtime)
        address = TritonAddress(serving.http_port, serving.grpc_port, serving.metrics_port, secrets.token_urlsafe(24))
        models = _models_to_load(home, serving.model_name)
        log_file = _log_file(home)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                _command(home, environment, address, models),
                env=_environment_variables(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        write_record(home, process.pid, address)
        _wait_until_live(process, address, serving.load_timeout_seconds * len(models), log_file, log_start)
        _report_models_not_loaded(address, models)
        return process.pid


def running_triton(home: Home, patience_seconds: float = 0.0) -> TritonAddress | None:
    """Return where the server of this home answers; None if it is not running or does not answer.

    Args:
        home: the state directory.
        patience_seconds: how long a server whose process lives may take; on a busy machine even "live" takes seconds.
    """
    deadline = time.monotonic() + patience_seconds
    while (record := read_record(home)) is not None:
        left = deadline - time.monotonic()
        if is_live(record.address, left):
            return record.address
        if left <= 0:
            return None
        time.sleep(_POLL_SECONDS)
    return None


def stop_tritonserver(home: Home, timeout_seconds: float = 20.0) -> bool:
    """Stop the server of this home: running requests are finished first, unless that takes longer than the timeout.

    Returns:
        Whether one was running.
    """
    record = read_record(home)
    if record is not None:
        try:
            process = psutil.Process(record.pid)
            family = [process, *process.children(recursive=True)]
            process.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs(family, timeout=timeout_seconds)
            for survivor in alive:
                log.warning("%s (pid %d) did not stop in %g s; killed", survivor.name(), survivor.pid, timeout_seconds)
                survivor.kill()
            psutil.wait_procs(alive, timeout=timeout_seconds)
        except psutil.NoSuchProcess:
            log.info("Triton stopped by itself")
    forget_record(home)
    _clear_remains(home)
    return record is not None


def _command(home: Home, environment: ServingEnvironment, address: TritonAddress, models: list[str]) -> list[str]:
    # These interfaces can run code or read memory (a load call may carry files): they need the token.
    guarded = f"model-repository,shared-memory,trace,logging:{TOKEN_HEADER}={address.token}"
    return [
        str(environment.tritonserver),
        f"--model-repository={home.triton_repository}",
        f"--backend-directory={home.triton_runtime / 'backends'}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=false",
        f"--exit-timeout-secs={_EXIT_SECONDS}",
        *("--http-address=127.0.0.1", f"--http-port={address.http_port}", f"--http-restricted-api={guarded}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={address.grpc_port}", f"--grpc-restricted-protocol={guarded}"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={address.metrics_port}"),
        f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(home)}",
        f"--backend-config=python,stub-timeout-seconds={_STUB_SECONDS}",
    ]


def _environment_variables(environment: ServingEnvironment) -> dict[str, str]:
    """A list of what is passed on, so that neither the caller's Python paths nor its secrets reach the server."""
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    threads = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    return variables | {
        # The embedded interpreter finds its environment through the first python on PATH.
        "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": environment.library_path,
        "PYTHONNOUSERSITE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": threads,
    }


def _models_to_load(home: Home, stable_name: str) -> list[str]:
    """Every router that was published, and every champion that a routing table names."""
    routers = {stable_name}
    routers |= {table.stem for table in home.routing_file(stable_name).parent.glob("*.json")}
    models: list[str] = []
    for router in sorted(routers):
        champion = read_routing(home.routing_file(router)).champion
        for model in (router, champion):
            if model is None:
                continue
            if (home.triton_repository / checked_name(model, "a model in the routing table")).is_dir():
                models.append(model)
            else:
                log.error("%s is in the routing table and not in %s", model, home.triton_repository)
    return models


def _assemble_backends(environment: ServingEnvironment, runtime: Path) -> None:
    """Put the Python backend and its stub for Python 3.11 side by side, as the server wants them."""
    backend = runtime / "backends" / "python"
    shutil.rmtree(runtime, ignore_errors=True)
    backend.mkdir(parents=True)
    for source in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(environment.python_backend / source, backend / source)
    shutil.copy2(environment.stub, backend / environment.stub.name)


def _wait_until_live(
    process: subprocess.Popen[bytes], address: TritonAddress, timeout_seconds: float, log_file: Path, log_start: int
) -> None:
    """Triton opens its ports when the models it starts with are loaded or have failed."""
    deadline = time.monotonic() + timeout_seconds
    while not is_live(address):
        code = process.poll()
        if code is not None:
            raise ServingError(f"Triton ended with code {code}: {_tail(log_file, log_start)} (log: {log_file})")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ServingError(
                f"Triton does not answer at {address.http} after {timeout_seconds:g} s "
                f"(serving.load_timeout_seconds): {_tail(log_file, log_start)} (log: {log_file})"
            )
        time.sleep(_POLL_SECONDS)


def _report_models_not_loaded(address: TritonAddress, models: list[str]) -> None:
    index = repository_index(address)
    for model in models:
        if not is_model_ready(address, model):
            log.error("%s did not load: %s", model, index[model]["reason"] if model in index else "it was not found")


def _tail(log_file: Path, start: int) -> str:
    with log_file.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    # Without a GPU Triton complains about CUDA and NVML and goes on; that is not why it ended.
    errors = [line for line in lines if line[:1] == "E" and "CudaDriver" not in line and "NVML" not in line]
    return " | ".join((errors or lines)[-_TAIL_LINES:]) or "it wrote nothing"


def _shared_memory_prefix(home: Home) -> str:
    """Two servers on one host must not share regions."""
    return f"llmretrain-{hashlib.sha256(str(home.root).encode()).hexdigest()[:12]}-"


def _clear_remains(home: Home) -> None:
    """End what a killed server of this home left behind, and a server whose record was lost; delete shared memory."""
    prefix, own = _shared_memory_prefix(home), f"--model-repository={home.triton_repository}"
    marks = {"triton_python_backend_stub": prefix, "tritonserver": own}
    orphans = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if (mark := marks.get(process.info["name"]))
        and any(argument.startswith(mark) for argument in process.info["cmdline"] or ())
    ]
    for orphan in orphans:
        try:
            orphan.kill()
        except psutil.NoSuchProcess:
            log.debug("%d ended by itself", orphan.pid)
    psutil.wait_procs(orphans, timeout=_EXIT_SECONDS)
    for region in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - where Triton puts them
        region.unlink(missing_ok=True)


def _log_file(home: Home) -> Path:
    return home.logs / "triton.log"
