"""The errors of llm-retrain: each names the value, what was expected and the config key to change."""


class LlmRetrainError(Exception):
    """Base of every error that a user can cause and mend. Its text is one sentence meant for the terminal."""


class ConfigError(LlmRetrainError):
    """A configuration file, preset or override that does not describe a run."""


class DataError(LlmRetrainError):
    """A source that cannot be read, or that holds nothing to train on."""


class BaseModelError(LlmRetrainError):
    """A base model that is missing, unsafe to load or not what its digest says."""


class TrainingError(LlmRetrainError):
    """The training process ended without a complete adapter."""


class TrainingStopped(TrainingError):
    """A training that was asked to stop, and that goes on from its checkpoint when the same run is started again."""


class BuildError(LlmRetrainError):
    """An adapter that could not be brought into the form that serves."""


class EvaluationError(LlmRetrainError):
    """Predictions that are missing, miscounted or cannot be scored."""


class RegistryError(LlmRetrainError):
    """A version or alias that MLflow does not hold, or that must not be moved."""


class ServingError(LlmRetrainError):
    """Triton is not reachable, or a model in it does not load or answer."""


class RolloutError(ServingError):
    """A roll-out that was undone: the version before it goes on serving."""


class StoreError(LlmRetrainError):
    """The artifact store cannot be read or written (no space, no permission)."""


class EnvironmentProblem(LlmRetrainError):
    """Something the machine lacks: a package, a port, disk space."""
