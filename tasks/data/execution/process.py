"""The worker process of the data stage: asks for a job, runs it, says its result, and asks again."""

from typing import Any

from tasks.contracts.worker import received, say, worker_main
from tasks.data.execution.jobs import function_of


def run(spec: dict[str, Any]) -> None:
    """Run the jobs that are sent with the function that `spec["work"]` names, until no more come."""
    function = function_of(spec["work"])
    say("free")
    for job in received():
        say("result", result=function(job))
        say("free")


if __name__ == "__main__":
    worker_main(run)
