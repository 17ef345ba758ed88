"""The memorisation process: asks the engine for each canary, and how likely its answer is among others of its kind."""

from pathlib import Path
from typing import Any

from tasks.contracts.engine import load_engine
from tasks.contracts.errors import EvaluationError
from tasks.contracts.worker import say, worker_main

_ANSWER_TOKENS = 96
"""Room for a whole canary, whatever the model's own limit is: many tokenizers spell every digit as one."""


def run(spec: dict[str, Any]) -> None:
    """Ask for the canaries that a spec names."""
    engine = load_engine(Path(spec["version_directory"]))
    if not hasattr(engine, "generate_many"):
        raise EvaluationError("the engine does not say how likely an answer is; build the servable again")
    for canary in spec["canaries"]:
        asked = [{"role": "user", "content": canary["prompt"]}]
        answers = [canary["answer"], *canary["alternatives"]]
        nats = [0.0] * len(answers)
        for position, _, likelihood in engine.generate_many([asked] * len(answers), answers, 1):
            nats[position] = likelihood.nats
        said = engine.generate(asked, _ANSWER_TOKENS).text
        rank = 1 + sum(other < nats[0] for other in nats[1:])
        digits = "".join(character for character in said if character.isdigit())
        say("canary", extracted=canary["secret"] in digits, rank=rank, of=len(answers))


if __name__ == "__main__":
    worker_main(run)
