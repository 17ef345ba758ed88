"""The stable name that clients ask: forwards each request to the champion and logs question and answer."""

# Triton adds its types to pb_utils after this file is imported, so annotations must not be evaluated.
from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from .request import conversation_of, id_of
from .request_log import append_record
from .routing_table import RoutingTable
from .tensors import INPUTS, error_response, string_inputs, string_output, string_tensor

OUTPUTS = ["text_output", "finish_reason"]


class TritonPythonModel:
    """Business logic scripting: the answer of the model that the routing table names, plus that name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the two paths from config.pbtxt."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._name: str = args["model_name"]
        self._table = RoutingTable(Path(parameters["routing_file"]), pb_utils.Logger.log_error)
        self._request_log = Path(parameters["request_log"])

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        started = time.perf_counter()
        served_by, response = self._ask_champion(request)
        record: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": id_of(request.request_id(), request.parameters()) or uuid.uuid4().hex,
            "served_by": served_by,
            "messages": _conversation_for_log(request),
        }
        if response.has_error():
            record["error"] = response.error().message()
        else:
            record["answer"] = string_output(response, "text_output")
        record["latency_ms"] = round(1000 * (time.perf_counter() - started), 1)
        self._write_log(record)
        return response

    def _ask_champion(self, request: pb_utils.InferenceRequest) -> tuple[str | None, pb_utils.InferenceResponse]:
        champion = self._table.champion()
        response = self._forward(request, champion)
        if champion is not None and response.has_error() and not pb_utils.is_model_ready(champion):
            # A switch between reading the table and asking: the model is unloaded, the table names the next one.
            champion = self._table.champion(read_again=True)
            response = self._forward(request, champion)
        return champion, response

    def _forward(self, request: pb_utils.InferenceRequest, champion: str | None) -> pb_utils.InferenceResponse:
        if champion is None:
            return error_response(f"{self._name} has no champion yet", pb_utils.TritonError.UNAVAILABLE)
        inputs = [pb_utils.get_input_tensor_by_name(request, name) for name in INPUTS]
        parameters = request.parameters()
        forwarded = pb_utils.InferenceRequest(
            model_name=champion,
            request_id=request.request_id(),
            inputs=[tensor for tensor in inputs if tensor is not None],
            requested_output_names=OUTPUTS,
            parameters=json.loads(parameters) if parameters else {},
        )
        try:
            answered = forwarded.exec()
        except pb_utils.TritonModelException as error:
            return error_response(f"{champion} cannot be asked: {error}", pb_utils.TritonError.UNAVAILABLE)
        if answered.has_error():
            return answered
        return pb_utils.InferenceResponse(
            output_tensors=[
                *(string_tensor(name, string_output(answered, name)) for name in OUTPUTS),
                string_tensor("served_by", champion),
            ]
        )

    def _write_log(self, record: dict[str, Any]) -> None:
        """Log the request; the client gets its answer even if the log cannot be written."""
        try:
            append_record(self._request_log, record)
        except OSError as error:
            pb_utils.Logger.log_error(f"request {record['id']} is not in {self._request_log}: {error}")


def _conversation_for_log(request: pb_utils.InferenceRequest) -> list[dict[str, str]]:
    """Return the conversation, empty if it is malformed: then the error says how."""
    try:
        return conversation_of(string_inputs(request))
    except ValueError:
        return []
