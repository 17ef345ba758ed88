"""The command line of `llm-retrain`.

Exit codes: 0 promoted or done; 1 failed; 2 wrong usage or configuration; 3 rejected by the gate or a person;
4 inconclusive; 5 better, and waiting for a person's decision; 130 stopped by Ctrl+C.
"""

import os
import sys
from pathlib import Path

import click

from flows.commands import champion, compare, data, join, monitor, plan, ratings, run, services, status
from tasks.contracts.errors import ConfigError, LlmRetrainError, TrainingStopped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm-retrain")
@click.option(
    "--home", type=click.Path(path_type=Path), help="State directory (default: $LLM_RETRAIN_HOME or .llm-retrain)."
)
def cli(home: Path | None) -> None:
    """Keep a fine-tuned language model good: retrain, compare, promote, serve, roll back."""
    if home is not None:
        os.environ["LLM_RETRAIN_HOME"] = str(home.expanduser().resolve())


for command in (
    *(run.run, run.sweep, data.data, plan.plan, join.join),
    *(status.status, status.history, compare.compare, ratings.ratings),
    *(champion.promote, champion.approve, champion.reject, champion.rollback),
    *(monitor.monitor, services.up, services.down, services.doctor),
):
    cli.add_command(command)

_LOOK_FIRST = "; what was done until then is in llm-retrain status: look there before you repeat it"
_OUTSIDE = {
    "mlflow.": ("MLflow refused", "; nothing is lost, run the same command again"),
    # Who else is asked by httpx says so himself. A roll-out may be done when Prefect cannot be told of it.
    "httpx": ("Prefect's server does not answer any more", _LOOK_FIRST),
    "prefect.exceptions": ("Prefect refused", _LOOK_FIRST),
}
"""Errors from outside by the names of their modules: importing these to ask takes seconds."""
_STOPPED = "stopped; run the same command again to go on from what is finished"


def main() -> None:
    """Entry point: every error that a user can mend is one sentence on standard error."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(_STOPPED, err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ConfigError as error:
        click.echo(f"llm-retrain: {error}", err=True)
        sys.exit(2)
    except TrainingStopped as error:  # it heard of Ctrl+C before this process did
        click.echo(f"{error}\n{_STOPPED}", err=True)
        sys.exit(130)
    except LlmRetrainError as error:
        click.echo(f"llm-retrain: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        known = (said for module, said in _OUTSIDE.items() if type(error).__module__.startswith(module))
        what, advice = next(known, ("", ""))
        if not what:
            raise
        click.echo(f"llm-retrain: {what}: {error}{advice}", err=True)
        sys.exit(1)
