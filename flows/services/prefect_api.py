"""The few questions that `llm-retrain up` asks a Prefect server, over its REST API.

Prefect's own client reads its settings once, when it is imported, and costs seconds; this asks the server it is given.
"""

import ssl
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tasks.contracts.errors import EnvironmentProblem

_HEALTH_SECONDS = 10.0  # nobody there is refused at once; a busy machine takes its time
_REQUEST_SECONDS = 30.0
_BUSY_SECONDS = 60.0
_RETRY_SECONDS = 0.5
# Everything here is plain http to this machine. httpx would read all certificates of the system for each request, 50 ms
# of a processor, while `up` asks three times a second; this context holds none.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def answers(url: str) -> bool:
    """Say whether an HTTP address of this machine answers with success."""
    try:
        # trust_env: a proxy of the environment must not stand between two processes of one machine.
        return httpx.get(url, timeout=_HEALTH_SECONDS, trust_env=False, verify=_NO_CERTIFICATES).is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class PrefectApi:
    """A Prefect server.

    Attributes:
        url: its API, for example http://127.0.0.1:4200/api.
    """

    url: str

    def is_healthy(self) -> bool:
        """Say whether the server answers."""
        return answers(f"{self.url}/health")

    def ensure_work_pool(self, name: str, queues: dict[str, int | None]) -> None:
        """Create a work pool of type process and its queues, or bring what is there to these limits.

        Args:
            name: the pool.
            queues: queue → how many of its runs may be executed at once; None for no limit.

        Raises:
            EnvironmentProblem: the server refused.
        """
        # Without a job template: the first worker of the pool brings the one of its version.
        self._ask("POST", "/work_pools/", {"name": name, "type": "process"}, accept=(409,))
        for queue, limit in queues.items():
            values = {"name": queue, "concurrency_limit": limit}
            self._ask("POST", f"/work_pools/{name}/queues", values, accept=(409,))
            self._ask("PATCH", f"/work_pools/{name}/queues/{queue}", values)

    def ensure_automation(self, automation: dict[str, Any]) -> None:
        """Create an automation, or bring the one of the same name to this definition.

        Raises:
            EnvironmentProblem: the server refused.
        """
        same_name = {"automations": {"name": {"any_": [automation["name"]]}}}
        found = self._ask("POST", "/automations/filter", same_name)
        if found:
            self._ask("PUT", f"/automations/{found[0]['id']}", automation)
        else:
            self._ask("POST", "/automations/", automation)

    def worker_is_online(self, pool: str, worker: str, started: float) -> bool:
        """Say whether a worker of the pool sends heartbeats.

        Args:
            pool: the work pool.
            worker: the worker's name.
            started: when its process started, in seconds since the epoch: those before were another worker's.
        """
        found = self._ask("POST", f"/work_pools/{pool}/workers/filter", {}, accept=(404,))
        return any(
            one["name"] == worker
            and one["status"] == "ONLINE"
            and datetime.fromisoformat(one["last_heartbeat_time"]).timestamp() > started
            for one in found or ()
        )

    def deployments(self, pool: str) -> list[dict[str, Any]]:
        """Return the deployments of a work pool."""
        found = self._ask("POST", "/deployments/filter", {"work_pools": {"name": {"any_": [pool]}}})
        return list(found)

    def set_parameters(self, deployment_id: str, parameters: dict[str, Any]) -> None:
        """Replace a deployment's parameters.

        Raises:
            EnvironmentProblem: they do not match the flow's schema.
        """
        self._ask("PATCH", f"/deployments/{deployment_id}", {"parameters": parameters})

    def unfinished_runs(self, pool: str) -> list[dict[str, Any]]:
        """Return the runs of a work pool that have begun and not ended."""
        unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        query = {"flow_runs": unfinished, "work_pools": {"name": {"any_": [pool]}}}
        return list(self._ask("POST", "/flow_runs/filter", query))

    def unfinished_runs_of_commands(self) -> list[dict[str, Any]]:
        """Return the runs that have begun and not ended, of those that no deployment started."""
        unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        query = {"flow_runs": {**unfinished, "deployment_id": {"is_null_": True}}}
        return list(self._ask("POST", "/flow_runs/filter", query))

    def mark_crashed(self, run_id: str, message: str) -> None:
        """Put a run into the state Crashed, whatever state it is in."""
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def _ask(self, method: str, path: str, body: dict[str, Any], accept: tuple[int, ...] = ()) -> Any:
        answer = self._send(method, path, body)
        deadline = time.monotonic() + _BUSY_SECONDS
        # On sqlite the server says 503, and has done nothing, while another writer holds the database.
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
            answer = self._send(method, path, body)
        if answer.status_code in accept:
            return None
        if not answer.is_success:
            raise EnvironmentProblem(f"the Prefect server refused {method} {path}: {answer.text.strip()[:500]}")
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return httpx.request(
                method, self.url + path, json=body, timeout=_REQUEST_SECONDS, trust_env=False, verify=_NO_CERTIFICATES
            )
        except httpx.TransportError as error:
            raise EnvironmentProblem(f"the Prefect server at {self.url} does not answer ({error})") from error
