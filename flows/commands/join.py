"""`llm-retrain join`: this machine takes part in a training that another one runs."""

from pathlib import Path

import click

from flows.commands.options import config_options, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home


@click.command()
@config_options
@click.option("--node", type=click.IntRange(min=1), required=True, help="This machine's number; the first one is 0.")
def join(preset: str | None, file: Path | None, overrides: tuple[str, ...], node: int) -> None:
    """Lend this machine's devices to the training of a run on another one, with the same configuration."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json=False) as console:
        from tasks.contracts.store import Store
        from tasks.training.base_model import prepare_base_model
        from tasks.training.distributed.node import join_training

        base = prepare_base_model(config.base_model, home, Store(home.store))
        where = f"{config.training.main_address}:{config.training.main_port}"
        console.print(f"Machine {node} of {config.training.nodes} waits for {where}", markup=False)
        join_training(config.training, node, base, home.logs / "training.log")
        console.print("The training has ended; its results are on machine 0.", markup=False)
