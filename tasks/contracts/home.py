"""Where llm-retrain keeps its state: one directory, one name for every place in it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
RUN_BYTES = 3_000_000_000
"""Free space that a run needs: the quickstart writes 2.3 GB (base, merged weights, two servables, a published copy)."""
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def checked_name(name: str, config_key: str) -> str:
    """Return `name` if it may be part of a path, a Triton model name and an MLflow name.

    Raises:
        ConfigError: it has other characters than lowercase letters, digits, dash and underscore.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f"{config_key} is {name!r}; expected 1 to 63 lowercase letters, digits, dashes or underscores"
        )
    return name


@dataclass(frozen=True)
class Home:
    """The state directory. Nothing is created until somebody writes.

    Attributes:
        root: absolute path, from `LLM_RETRAIN_HOME` or `.llm-retrain` in the project.
    """

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """Read `LLM_RETRAIN_HOME`; a relative path counts from the working directory."""
        configured = os.environ.get("LLM_RETRAIN_HOME")
        return cls(Path(configured).expanduser().resolve() if configured else PROJECT_ROOT / ".llm-retrain")

    @property
    def store(self) -> Path:
        """The content-addressed artifact store."""
        return self.root / "store"

    @property
    def downloads(self) -> Path:
        """Wheels that were downloaded for the model inside them."""
        return self.root / "downloads"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's sqlite file, when no tracking server is configured."""
        return self.root / "mlflow" / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifact root, when no tracking server is configured."""
        return self.root / "mlflow" / "artifacts"

    @property
    def unsent(self) -> Path:
        """What MLflow has not taken yet, a file a run."""
        return self.root / "mlflow" / "unsent"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME of the embedded server, so that runs stay visible after `llm-retrain up`."""
        return self.root / "prefect"

    @property
    def triton_repository(self) -> Path:
        """The Triton model repository: every directory in it is complete."""
        return self.root / "triton" / "repository"

    @property
    def triton_incoming(self) -> Path:
        """Model directories being copied; same file system as the repository, so a rename publishes them."""
        return self.root / "triton" / "incoming"

    @property
    def triton_runtime(self) -> Path:
        """Triton's backend directory, assembled from the serving environment."""
        return self.root / "triton" / "runtime"

    def routing_file(self, stable_name: str) -> Path:
        """The routing table that the router model `stable_name` reads."""
        return self.root / "triton" / "routing" / f"{stable_name}.json"

    def request_log(self, stable_name: str) -> Path:
        """The JSONL log of requests and answers that the router model `stable_name` appends to."""
        return self.root / "triton" / "requests" / f"{stable_name}.jsonl"

    def feedback_log(self, stable_name: str) -> Path:
        """The JSONL log of what people said about answers, by the request's id."""
        return self.root / "triton" / "feedback" / f"{stable_name}.jsonl"

    @property
    def sweeps(self) -> Path:
        """The sqlite file in which Optuna keeps the trials of all sweeps."""
        return self.root / "sweeps" / "optuna.db"

    @property
    def sources(self) -> Path:
        """What was fetched from sources that are no local files, with their watermarks."""
        return self.root / "sources"

    @property
    def erased(self) -> Path:
        """The list of erased records."""
        return self.root / "erased.jsonl"

    @property
    def ratings(self) -> Path:
        """Keys of exported rating sheets, and what people filled in, a folder a sheet."""
        return self.root / "ratings"

    @property
    def ledger(self) -> Path:
        """The append-only promotion ledger."""
        return self.root / "ledger.jsonl"

    @property
    def ledger_head(self) -> Path:
        """Number and digest of the ledger's last line: without it, lines that are missing at the end leave no trace."""
        return self.root / "ledger.head"

    @property
    def pids(self) -> Path:
        """Pid files of the services started by `llm-retrain up`."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Logs of the services and of the training process."""
        return self.root / "logs"
