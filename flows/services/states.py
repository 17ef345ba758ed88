"""What is told about the services: name, state, address, and a note."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["running", "not answering", "stopped", "unavailable"]
_COLOURS: dict[State, str] = {"running": "green", "not answering": "red", "stopped": "dim", "unavailable": "yellow"}


@dataclass(frozen=True)
class ServiceState:
    """A service as it was found, or as a command left it.

    Attributes:
        name: "prefect", "mlflow", "triton" or "worker".
        state: unavailable means that it cannot run on this machine; the note says why.
        address: where a person or a client reaches it; empty if it is not running.
        pid: its process id; None if it is not running here.
        note: one clause, for example "already running".
        log: its log file; empty if there is none.
    """

    name: str
    state: State
    address: str = ""
    pid: int | None = None
    note: str = ""
    log: str = ""


def render_states(console: "Console", states: list[ServiceState]) -> None:
    """Show the services as a table."""
    table = Table(title="Services", title_justify="left")
    for column in ("service", "state", "address", "note"):
        table.add_column(column, overflow="fold")
    for state in states:
        colour = _COLOURS[state.state]
        table.add_row(state.name, f"[{colour}]{state.state}[/]", escape(state.address), escape(state.note))
    console.print(table)
