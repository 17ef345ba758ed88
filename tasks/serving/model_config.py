"""config.pbtxt, built through Triton's protobuf so that what is written is what Triton will parse.

No name stands inside: Triton takes the directory's, and so the evaluated directory can be served under any name
byte for byte.
"""

from pathlib import Path
from typing import Any

ROUTER_INSTANCES = 2
_ASKED = ("text_input", "messages", "sampling_parameters")


def engine_config() -> str:
    """Return the config.pbtxt of a model that generates: one instance, because it uses all cores.

    An evaluation may send a reference along, and is told how likely that is; the router takes none.
    """
    outputs = ("text_output", "finish_reason", "new_tokens", "reference_nats", "reference_tokens")
    return _spell(_python_model((*_ASKED, "reference"), outputs, instances=1))


def router_config(routing_file: Path, request_log: Path) -> str:
    """Return the config.pbtxt of a router; several instances, so that a waiting request holds up no other."""
    config = _python_model(_ASKED, ("text_output", "finish_reason", "served_by"), ROUTER_INSTANCES)
    config.parameters["routing_file"].string_value = str(routing_file)
    config.parameters["request_log"].string_value = str(request_log)
    return _spell(config)


def _python_model(inputs: tuple[str, ...], outputs: tuple[str, ...], instances: int) -> Any:
    from tritonclient.grpc import model_config_pb2 as pb

    return pb.ModelConfig(
        backend="python",
        max_batch_size=0,
        input=[pb.ModelInput(name=name, data_type=pb.TYPE_STRING, dims=[1], optional=True) for name in inputs],
        output=[pb.ModelOutput(name=name, data_type=pb.TYPE_STRING, dims=[1]) for name in outputs],
        instance_group=[pb.ModelInstanceGroup(count=instances, kind=pb.ModelInstanceGroup.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def _spell(config: Any) -> str:
    from google.protobuf import text_format

    spelled: str = text_format.MessageToString(config)
    return spelled
