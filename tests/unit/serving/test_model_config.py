from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tasks.serving.model_config import engine_config, router_config


def parse(text):
    return text_format.Parse(text, pb.ModelConfig())


def test_an_engine_takes_optional_strings_and_returns_text_and_reason_and_what_an_evaluation_asks():
    config = parse(engine_config())

    assert config.backend == "python"
    assert config.max_batch_size == 0
    assert not config.model_transaction_policy.decoupled
    assert [tensor.name for tensor in config.input] == ["text_input", "messages", "sampling_parameters", "reference"]
    assert all(tensor.optional for tensor in config.input)
    names = ["text_output", "finish_reason", "new_tokens", "reference_nats", "reference_tokens"]
    assert [tensor.name for tensor in config.output] == names
    assert {tensor.data_type for tensor in [*config.input, *config.output]} == {pb.TYPE_STRING}
    assert {tuple(tensor.dims) for tensor in [*config.input, *config.output]} == {(1,)}
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, pb.ModelInstanceGroup.KIND_CPU)]


def test_an_engine_has_no_name_so_that_it_can_be_served_under_any():
    assert parse(engine_config()).name == ""


def test_a_router_knows_its_files_says_who_answered_and_has_two_instances():
    config = parse(router_config(Path("/state/routing/a.json"), Path('/state/requests/odd "name".jsonl')))

    assert config.parameters["routing_file"].string_value == "/state/routing/a.json"
    assert config.parameters["request_log"].string_value == '/state/requests/odd "name".jsonl'
    assert [tensor.name for tensor in config.input] == ["text_input", "messages", "sampling_parameters"]
    assert [tensor.name for tensor in config.output] == ["text_output", "finish_reason", "served_by"]
    assert config.instance_group[0].count == 2
