"""The worker process of the data stage: runs the jobs it is given, one after the other, and says each result."""

from typing import Any

from tasks.contracts.worker import say, worker_main
from tasks.data.executors import function_of


def run(spec: dict[str, Any]) -> None:
    """Run `spec["jobs"]` (number → job) with the function that `spec["work"]` names."""
    function = function_of(spec["work"])
    for number, job in spec["jobs"].items():
        say("result", job=int(number), result=function(job))


if __name__ == "__main__":
    worker_main(run)
