"""Strings in and out of Triton tensors: every input and output is BYTES of shape [1]."""

# Triton adds its types to pb_utils after this file is imported, so annotations must not be evaluated.
from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

INPUTS = ("text_input", "messages", "sampling_parameters", "reference")


def string_inputs(request: pb_utils.InferenceRequest) -> dict[str, str]:
    """Return the string inputs that a request carries.

    Raises:
        ValueError: an input is not UTF-8.
    """
    fields: dict[str, str] = {}
    for name in INPUTS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None:
            continue
        try:
            fields[name] = tensor.as_numpy()[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is not UTF-8") from error
    return fields


def string_output(response: pb_utils.InferenceResponse, name: str) -> str:
    """Return a string output of a response."""
    text: str = pb_utils.get_output_tensor_by_name(response, name).as_numpy()[0].decode("utf-8")
    return text


def string_tensor(name: str, value: str) -> pb_utils.Tensor:
    """Return a tensor that holds one string."""
    return pb_utils.Tensor(name, np.array([value.encode("utf-8")], dtype=object))


def error_response(message: str, code: int) -> pb_utils.InferenceResponse:
    """Return a response that fails this one request."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
