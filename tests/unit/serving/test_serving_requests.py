import json

import pytest

from tasks.contracts.engine import import_served_module
from tasks.serving.repository import TRITON_MODELS

USER = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def request_module():
    return import_served_module(TRITON_MODELS, "request")


@pytest.fixture(scope="module")
def parse(request_module):
    return request_module.parse_request


def test_one_prompt_becomes_a_conversation_of_one_user_turn(parse):
    request = parse({"text_input": "hello"})

    assert request.messages == [USER]
    assert request.max_new_tokens is None


def test_a_conversation_is_taken_as_it_is_with_its_limit(parse):
    messages = [{"role": "system", "content": "Be brief."}, USER]

    request = parse({"messages": json.dumps(messages), "sampling_parameters": '{"max_tokens": 7}'})

    assert request.messages == messages
    assert request.max_new_tokens == 7


def test_a_client_may_say_that_it_wants_no_stream(parse):
    assert parse({"text_input": "hello"}, '{"stream": false}').messages == [USER]


def test_a_request_has_the_id_that_the_client_gave_it(parse, request_module):
    assert parse({"text_input": "hello"}, '{"id": "seven"}').messages == [USER]
    assert request_module.id_of("", '{"id": "seven"}') == "seven"
    assert request_module.id_of("", '{"id": 7}') == "7"
    assert request_module.id_of("eight", "") == "eight"
    assert request_module.id_of("", "") is None


@pytest.mark.parametrize(
    ("fields", "parameters", "sentence"),
    [
        ({}, "", "exactly one of text_input and messages is needed, neither given"),
        ({"text_input": "a", "messages": "[]"}, "", "exactly one of text_input and messages is needed, both given"),
        ({"text_input": " \n"}, "", "text_input is empty"),
        ({"messages": "[{"}, "", "messages is not JSON"),
        ({"messages": "[" * 100_000}, "", "messages is nested too deeply"),
        ({"messages": "[]"}, "", "messages must be a JSON list"),
        ({"messages": '{"role": "user", "content": "a"}'}, "", "messages must be a JSON list"),
        ({"messages": '["a"]'}, "", "message 1 must be an object with role and content"),
        ({"messages": '[{"role": "user"}]'}, "", "message 1 must be an object with role and content"),
        ({"messages": '[{"role": "user", "content": "a", "name": "b"}]'}, "", "and nothing else"),
        ({"messages": '[{"role": "tool", "content": "a"}]'}, "", "the role 'tool'; expected one of system, user"),
        ({"messages": '[{"role": ["user"], "content": "a"}]'}, "", "expected one of system, user"),
        ({"messages": '[{"role": "user", "content": 3}]'}, "", "message 1 has no text as content"),
        ({"messages": '[{"role": "user", "content": "\\ud83d"}]'}, "", "half of a surrogate pair"),
        ({"text_input": "a", "sampling_parameters": "3"}, "", "sampling_parameters must be a JSON object"),
        ({"text_input": "a", "sampling_parameters": "{"}, "", "sampling_parameters is not JSON"),
        ({"text_input": "a", "sampling_parameters": '{"temperature": 0}'}, "", "'temperature'"),
        ({"text_input": "a", "sampling_parameters": '{"max_tokens": 0}'}, "", "max_tokens is 0; expected a whole"),
        ({"text_input": "a", "sampling_parameters": '{"max_tokens": true}'}, "", "max_tokens is True"),
        ({"text_input": "a", "sampling_parameters": '{"max_tokens": 2.5}'}, "", "max_tokens is 2.5"),
        ({"text_input": "a"}, '{"max_tokens": 5}', "unknown field 'max_tokens'"),
        ({"text_input": "a"}, '{"stream": true}', "unknown field 'stream'"),
    ],
)
def test_a_bad_request_is_refused_with_one_sentence(parse, fields, parameters, sentence):
    with pytest.raises(ValueError) as caught:
        parse(fields, parameters)

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
