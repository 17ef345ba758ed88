"""Asking Triton: typed calls over tritonclient, whose errors say which model at which address.

tritonclient's HTTP client belongs to the thread that made it (gevent), so each call opens and closes its own.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypedDict

from tasks.contracts.errors import ServingError

TOKEN_HEADER = "llm-retrain-token"  # noqa: S105 - the header's name, not its value
LIVE_SECONDS = 5.0
"""How long a connection, and a question that costs no work, may take."""
_POLL_SECONDS = 0.1


class RequestRefused(ServingError):
    """The model finds fault with the request; it would find the same fault again."""


class AnswerTimedOut(ServingError):
    """The server did not answer in time, and may still be at work on it."""


@dataclass(frozen=True)
class TritonAddress:
    """Where a Triton server listens on 127.0.0.1, and what loading and unloading models needs.

    Attributes:
        token: required by the model repository API; without it a web page open in a browser here could load models.
    """

    http_port: int
    grpc_port: int
    metrics_port: int
    token: str = ""

    @property
    def http(self) -> str:
        """Host and port of the HTTP endpoint."""
        return f"127.0.0.1:{self.http_port}"


class TritonAnswer(TypedDict):
    """An answer; `served_by` is the model behind a router, None when the model itself was asked."""

    text: str
    finish_reason: str
    served_by: str | None


class ModelState(TypedDict):
    """One line of the repository index."""

    state: str
    reason: str


def is_live(address: TritonAddress, timeout_seconds: float = 0.0) -> bool:
    """Say whether a server answers at the address, after this time at the latest, but for `LIVE_SECONDS` at least."""
    try:
        with _client(address, timeout_seconds) as client:
            return bool(client.is_server_live())
    except ServingError:
        return False


def is_model_ready(address: TritonAddress, model: str) -> bool:
    """Say whether the server answers and the model in it is ready."""
    try:
        with _client(address, LIVE_SECONDS) as client:
            return bool(client.is_model_ready(model))
    except ServingError:
        return False


def repository_index(address: TritonAddress) -> dict[str, ModelState]:
    """Return every model that the server was ever asked to load, with its state and, if it failed, the reason.

    Raises:
        ServingError: the server does not answer.
    """
    with _client(address, LIVE_SECONDS) as client:
        lines: list[dict[str, Any]] = client.get_model_repository_index(headers=_headers(address))
    return {
        line["name"]: ModelState(state=line.get("state", ""), reason=_in_one_line(line.get("reason", "")))
        for line in lines
    }


def load_model(address: TritonAddress, model: str, timeout_seconds: float) -> None:
    """Load a model from the repository and wait until Triton says how that went.

    Raises:
        ServingError: it does not load (with Triton's reason), or not in time.
    """
    with _client(address, timeout_seconds, f"{model} cannot be loaded") as client:
        client.load_model(model, headers=_headers(address))


def unload_model(address: TritonAddress, model: str, timeout_seconds: float) -> None:
    """Unload a model and wait until it is gone; its running requests are answered first.

    Raises:
        ServingError: the server does not answer, or the model is still there after the timeout.
    """
    deadline = time.monotonic() + timeout_seconds
    with _client(address, timeout_seconds, f"{model} cannot be unloaded") as client:
        client.unload_model(model, headers=_headers(address))
    while True:
        state = repository_index(address).get(model)
        if state is None or state["state"] in ("", "UNAVAILABLE"):
            return
        if time.monotonic() > deadline:
            raise ServingError(f"{model} at {address.http} is still loaded {timeout_seconds:g} s after it was unloaded")
        time.sleep(_POLL_SECONDS)


def wait_ready(address: TritonAddress, model: str, timeout_seconds: float) -> None:
    """Wait until a model answers.

    Raises:
        ServingError: loading failed (with Triton's reason), or it is not ready in time (serving.load_timeout_seconds).
    """
    deadline = time.monotonic() + timeout_seconds
    while not is_model_ready(address, model):
        state = repository_index(address).get(model)
        if state is not None and state["state"] == "UNAVAILABLE":
            raise ServingError(f"{model} does not load at {address.http}: {state['reason'] or 'it was unloaded'}")
        if time.monotonic() > deadline:
            raise ServingError(
                f"{model} at {address.http} is not ready after {timeout_seconds:g} s (serving.load_timeout_seconds)"
            )
        time.sleep(_POLL_SECONDS)


def ask(
    address: TritonAddress,
    model: str,
    prompt: str | list[dict[str, str]],
    max_tokens: int | None = None,
    timeout_seconds: float = 120.0,
    request_id: str = "",
) -> TritonAnswer:
    """Ask a model, or the router by its stable name.

    Args:
        address: the server.
        model: model name in Triton.
        prompt: one user turn, or a whole conversation (role and content each).
        max_tokens: longest answer in tokens; None: the model's own limit.
        timeout_seconds: longest wait for the answer.
        request_id: stands in the request log; the router makes one if it is empty.

    Raises:
        ServingError: the server or the model does not answer, or it refuses the request.
    """
    fields = {"text_input": prompt} if isinstance(prompt, str) else {"messages": json.dumps(prompt)}
    if max_tokens is not None:
        fields["sampling_parameters"] = json.dumps({"max_tokens": max_tokens})
    said = infer(address, model, fields, timeout_seconds, request_id)
    return TritonAnswer(text=said["text_output"], finish_reason=said["finish_reason"], served_by=said.get("served_by"))


def infer(
    address: TritonAddress, model: str, fields: dict[str, str], timeout_seconds: float, request_id: str = ""
) -> dict[str, str]:
    """Send string inputs to a model and return its string outputs.

    Raises:
        RequestRefused: the model finds fault with the request.
        AnswerTimedOut: there was no answer in time.
        ServingError: the server or the model does not answer.
    """
    with _client(address, timeout_seconds, f"{model} does not answer") as client:
        inputs = [_string_input(name, value) for name, value in fields.items()]
        result = client.infer(model, inputs, request_id=request_id)
    names = [output["name"] for output in result.get_response()["outputs"]]
    return {name: result.as_numpy(name)[0].decode() for name in names}


def outputs_of(address: TritonAddress, model: str) -> set[str]:
    """Return the names of what a loaded model says.

    Raises:
        ServingError: the server does not answer, or the model is not loaded.
    """
    with _client(address, LIVE_SECONDS, f"{model} does not say what it answers") as client:
        return {output["name"] for output in client.get_model_metadata(model)["outputs"]}


def _string_input(name: str, value: str) -> Any:
    import numpy as np
    from tritonclient.http import InferInput

    tensor = InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode()], dtype=object))
    return tensor


def _in_one_line(message: str) -> str:
    """Leave out the Python traceback that Triton adds to the error of a Python model; its log has it."""
    return " ".join(message.split("\n\nAt:")[0].split())


def _headers(address: TritonAddress) -> dict[str, str]:
    return {TOKEN_HEADER: address.token} if address.token else {}


@contextmanager
def _client(address: TritonAddress, timeout_seconds: float, failure: str = "Triton does not answer") -> Iterator[Any]:
    """Yield an HTTP client of this thread; its errors become a `ServingError` that begins with `failure`."""
    from tritonclient.http import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client = InferenceServerClient(
        address.http, connection_timeout=LIVE_SECONDS, network_timeout=max(timeout_seconds, LIVE_SECONDS)
    )
    try:
        yield client
    except InferenceServerException as error:
        kind = RequestRefused if error.status() == "400" else ServingError
        raise kind(f"{failure} at {address.http}: {_in_one_line(error.message())}") from error
    except TimeoutError as error:
        raise AnswerTimedOut(f"{failure} at {address.http}: {error}") from error
    except (OSError, HTTPException) as error:  # refused, reset, timed out, closed half way
        raise ServingError(f"{failure} at {address.http}: {error or type(error).__name__}") from error
    finally:
        client.close()
