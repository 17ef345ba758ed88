"""The Triton model of every engine: a build copies this file as `1/model.py` beside its `engine.py`."""

# Triton adds its types to pb_utils after this file is imported, so annotations must not be evaluated.
from __future__ import annotations

from pathlib import Path

import triton_python_backend_utils as pb_utils

# Triton imports this file as "1.model", so its neighbours are found relative to it.
from .engine import Engine
from .request import parse_request
from .tensors import error_response, string_inputs, string_tensor


class TritonPythonModel:
    """Answers requests one after the other; a bad one gets an error and does not touch the others."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine. An error here is what the load call answers."""
        self._engine = Engine(Path(__file__).resolve().parent)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            fields = string_inputs(request)
            asked = parse_request(fields, request.parameters())
            answer = self._engine.generate(asked.messages, asked.max_new_tokens)
            said = {"text_output": answer.text, "finish_reason": answer.finish_reason}
            said["new_tokens"] = str(answer.new_tokens)
            if "reference" in fields:  # of an evaluation, which asks how likely it is
                ((_, _, likelihood),) = self._engine.generate_many([asked.messages], [fields["reference"]], 1)
                said |= {"reference_nats": repr(likelihood.nats), "reference_tokens": str(likelihood.tokens)}
        except ValueError as error:
            return error_response(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            # Raising would fail the whole batch; this request fails, and the log says why.
            pb_utils.Logger.log_error(f"generation failed: {error!r}")
            return error_response(f"generation failed: {error}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(output_tensors=[string_tensor(*each) for each in said.items()])
