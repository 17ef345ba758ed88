"""The long-lived services of a home: Prefect server, MLflow server, Triton, and the worker of the deployments."""

from flows.services.environment import mlflow_url, quiet_environment
from flows.services.lifecycle import down, prefect_api_url, service_states, up
from flows.services.states import ServiceState, render_states

__all__ = [
    "ServiceState",
    "down",
    "mlflow_url",
    "prefect_api_url",
    "quiet_environment",
    "render_states",
    "service_states",
    "up",
]
