"""What a job of the data stage is, wherever it runs: JSON facts in, JSON facts out, and files beside them."""

import importlib
import platform
from collections.abc import Callable
from typing import Any

from tasks.contracts.store import code_digest
from tasks.contracts.worker import error_facts

Job = dict[str, Any]
Result = dict[str, Any]
Done = Callable[[int, int, Result], None]
"""Called in the caller's thread when a job is done: how many are, which one it was, and its result."""

CODE = ("tasks/data", "tasks/contracts")
"""The code that a result depends on."""


def function_of(work: str) -> Callable[[Job], Result]:
    """Return the function that "module:function" names."""
    module, _, name = work.partition(":")
    function: Callable[[Job], Result] = getattr(importlib.import_module(module), name)
    return function


def largest_first(sizes: list[int]) -> list[int]:
    """Return the numbers of the jobs in the order in which they are begun: what takes longest must not begin last."""
    return sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))


def versions_here() -> dict[str, str]:
    """Return what must be the same wherever jobs of one run are done, or the same rows become another data set."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]), "llm-retrain code": code_digest(*CODE)[:12]}


def run_elsewhere(work: str, job: Job, versions: dict[str, str]) -> dict[str, Any]:
    """Run a job on another machine.

    Args:
        work: "module:function".
        job: what it is called with.
        versions: those of who asks for it.

    Returns:
        `result`; or `error`, what `error_facts` says of a failure, so that no exception has to travel; or `differs`,
        what is another version here and on which machine.
    """
    here = versions_here()
    differing = [
        f"{name} {here[name]} instead of {versions[name]}" for name in versions if here[name] != versions[name]
    ]
    if differing:
        return {"differs": f"{' and '.join(differing)} on {platform.node()}"}
    try:
        return {"result": function_of(work)(job)}
    except Exception as error:  # its traceback stays in this machine's log
        return {"error": error_facts(error)}
