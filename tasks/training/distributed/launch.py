"""The launcher of several training processes: accelerate's own, which a stop, a death and an orphan get past unharmed.

It is a worker to its parent, and its processes say their events on its standard output. Each of them dies with it.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.worker import say, worker_main
from tasks.training.distributed.joining import LAUNCHER, LOST_PEER, ON_CPU

_STOP_STATUS = 1


@dataclass(frozen=True)
class Machines:
    """Where processes are started, and where they meet.

    Attributes:
        processes: on this machine.
        nodes: machines in all.
        node: this machine's number; 0 is where the events and the files are.
        address: of machine 0, as the others reach it.
        port: on which machine 0 waits for the others; 0 on a single machine: any that is free.
        on_cpu: no GPU is used.
    """

    processes: int
    nodes: int
    node: int
    address: str
    port: int
    on_cpu: bool


def run(spec: dict[str, Any]) -> None:
    """Start the processes of an order, and wait for their end.

    Args:
        spec: an order (see `TrainingJob.order`), whose `training` says how many processes and machines there are; on
            another machine than the first also `node`, its number.

    Raises:
        TrainingError: a process ended otherwise than well, and which; or there are fewer GPUs than processes.
        TrainingStopped: somebody asked to stop.
    """
    stop = _StopForwarder()
    machines = machines_of(spec)
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ[ON_CPU] = str(machines.on_cpu).lower()
    if machines.nodes == 1:  # what the processes tell each other stays on the machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    problem = _launch(machines, Path(sys.argv[1]))
    if stop.requested:
        raise TrainingStopped("the training was asked to stop; the same run goes on from its newest checkpoint")
    if problem:
        raise TrainingError(problem)


def machines_of(spec: dict[str, Any]) -> Machines:
    """Read from an order where processes are started, and count the GPUs if it does not say how many.

    Raises:
        TrainingError: there are fewer GPUs than processes.
    """
    import torch

    training = spec["training"]
    gpus = 0 if training["device"] == "cpu" else torch.cuda.device_count()
    if gpus and training["processes"] > gpus:
        raise TrainingError(
            f"training.processes is {training['processes']}, and this machine has {gpus} GPUs; expected at most "
            f"{gpus}, or 0 for all"
        )
    return Machines(
        processes=training["processes"] or gpus or 1,
        nodes=training["nodes"],
        node=spec.get("node", 0),
        address=training["main_address"] or "127.0.0.1",
        port=training["main_port"] if training["nodes"] > 1 else 0,
        on_cpu=not gpus,
    )


def arguments(machines: Machines, spec_path: Path, config: Path) -> list[str]:
    """Return the arguments of `accelerate launch`.

    Args:
        machines: where processes are started.
        spec_path: what each process reads.
        config: a file of accelerate's settings, so that none of the user's own is taken into account.
    """
    threads = max(1, (os.cpu_count() or 1) // machines.processes)
    settings: dict[str, Any] = {
        "config_file": config,
        "num_processes": machines.processes * machines.nodes,
        "num_machines": machines.nodes,
        "machine_rank": machines.node,
        "main_process_ip": machines.address,
        "main_process_port": machines.port,
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "num_cpu_threads_per_process": os.environ.get("OMP_NUM_THREADS", threads),
    }
    flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    # --multi_gpu is how accelerate calls its launcher of several processes; whether there are GPUs it is told apart.
    return [*flags, "--same_network", "--multi_gpu", "--module", "tasks.training.process", str(spec_path)]


def _launch(machines: Machines, spec_path: Path) -> str:
    """Run accelerate's launcher and return what went wrong; the empty string if nothing did."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    config = spec_path.with_name("accelerate.json")
    config.write_text(
        json.dumps(
            {"distributed_type": "MULTI_GPU", "mixed_precision": "no", "use_cpu": machines.on_cpu, "debug": False}
        )
    )
    chosen = launch_command_parser().parse_args(arguments(machines, spec_path, config))
    chosen.signals_to_handle = "SIGHUP"  # SIGTERM and SIGINT are passed on here, with time to save
    try:
        launch_command(chosen)
    except ChildFailedError as error:
        ends = [(failure.timestamp, rank, failure.exitcode) for rank, failure in error.failures.items()]
        return explain_ends(ends, machines.processes * machines.nodes)
    return ""


def explain_ends(ends: list[tuple[int, int, int]], size: int) -> str:
    """Return a sentence about the process whose end ended the others.

    Args:
        ends: when it ended, its rank and its exit status, negative for a signal.
        size: processes in all.
    """
    # Others were ended because of it: they lost the connection, or got SIGTERM from the launcher, or SIGKILL later.
    consequences = (-signal.SIGTERM, LOST_PEER)
    _, rank, status = min(ends, key=lambda end: (end[2] in consequences, end[2] == LOST_PEER, end[0], end[1]))
    if status == LOST_PEER:
        return "the connection to the processes on another machine was lost; that machine's log says why"
    if status == -signal.SIGKILL:
        return (
            f"process {rank} of {size} was killed (SIGKILL), most often because memory ran out, and the others "
            "were ended; lower training.micro_batch_tokens or training.max_length_tokens"
        )
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"process {rank} of {size} {ended}, and the others were ended; the log says more"


class _StopForwarder:
    """Passes SIGTERM and SIGINT on to the processes, which stop together; without any it ends this process.

    A thread does it: the main thread may wait in native code for other machines, where Python runs no handler.
    """

    def __init__(self) -> None:
        self.requested = False
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._forward, args=(read_end,), daemon=True).start()

    def _forward(self, read_end: int) -> None:
        import psutil

        while os.read(read_end, 1):
            self.requested = True
            children = psutil.Process().children()
            if not children:
                say("error", message="the training was asked to stop before it began", error=TrainingStopped.__name__)
                os._exit(_STOP_STATUS)
            for child in children:
                child.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    worker_main(run, shares_output=True)
