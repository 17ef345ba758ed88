"""The Prefect tasks of the serving stage."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, Parity, ServableModel
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.serving import build, parity
from tasks.serving.tritonserver import ensure_triton, why_triton_cannot_run

log = logging.getLogger("llm_retrain.serving")


@task(name="build servable", cache_policy=NO_CACHE)
def build_servable(
    base: BaseModelRef, adapter: AdapterRef | None, config: RetrainConfig, home: Home, store: Store
) -> ServableModel:
    """Bring base and adapter into the form that serves."""
    return build.build_servable(base, adapter, config.serving, store, home.logs / "build.log")


@task(name="check parity", cache_policy=NO_CACHE)
def check_parity(
    base: BaseModelRef,
    adapter: AdapterRef,
    servable: ServableModel,
    dataset: DatasetRef,
    config: RetrainConfig,
    home: Home,
    store: Store,
) -> Parity:
    """Refuse a build that lost too much of what was trained."""
    log_path = home.logs / "parity.log"
    return parity.measure_parity(base, adapter, servable, dataset, config.serving, store, log_path)


@task(name="prepare server", cache_policy=NO_CACHE)
def prepare_server(config: RetrainConfig, home: Home) -> None:
    """Start Triton, if it can run here, before anything long: a port in use is said now and not after training."""
    missing = why_triton_cannot_run()
    if missing and config.evaluation.through == "server":
        raise EnvironmentProblem(f"evaluation.through is server, and {missing}; expected process")
    if missing:
        log.warning("No Triton: %s. The exported repository will be verified in-process, and not served.", missing)
        return
    address = ensure_triton(home, config.serving)
    log.info("Triton answers at http://%s", address.http)
