import json

import pytest
from tiny_model import CHAT_TEMPLATE, make_tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from tasks.contracts.engine import import_served_module
from tasks.serving.repository import copy_engine

DEFAULT_SYSTEM = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BLOCKS_ON_LINES_OF_THEIR_OWN = """
{{- bos_token }}
{% for message in messages %}
    {% if message['role'] == 'user' %}
[INST] {{ message['content'] | trim }} [/INST]
    {% elif message['role'] == 'assistant' %}
 {{ message['content'] }}{{ eos_token }}
    {% endif %}
{% endfor %}
"""
JSON_AND_LOOP_CONTROLS = (
    "{%- for message in messages -%}{%- if message.role == 'system' -%}{%- continue -%}{%- endif -%}"
    "{{ message | tojson }}{{ '\n' }}{%- endfor -%}"
    "{% if tools is none and documents is none %}[no tools]{% endif %}{{ a_token_that_is_missing }}"
)
GENERATION_MARKS = (
    "{% for message in messages %}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.role }}: {{ message.content }}\n{% endif %}{% endfor %}"
)
ONLY_USERS = (
    "{% for message in messages %}{% if message.role != 'user' %}"
    "{{ raise_exception('only user turns are allowed, found ' + message.role) }}{% endif %}"
    "{{ message.content }}{% endfor %}"
)

CONVERSATIONS = {
    "one turn": [{"role": "user", "content": "What does this do?"}],
    "a system turn": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    "several turns": [
        {"role": "user", "content": "1 < 2 & 'quotes'\n\n  indented"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "你好 {{ 7 * 7 }} é"},
    ],
}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny_tokenizer()


@pytest.fixture
def prompt_format(tmp_path, tokenizer):
    """Build a `PromptFormat` as an engine does, from a version directory."""

    def build(chat_template=CHAT_TEMPLATE, tokenizer=tokenizer, **settings):
        version = tmp_path / "1"
        copy_engine("onnx", version)
        tokenizer.save_pretrained(version)
        content = {
            "chat_template": chat_template,
            "template_date": "2024-02-29",
            "system_prompt": "",
            "bos_token": tokenizer.bos_token,
            "eos_token": tokenizer.eos_token,
            "stop_token_ids": [tokenizer.eos_token_id],
            "max_new_tokens": 12,
            "context_tokens": 256,
        }
        (version / "servable.json").write_text(json.dumps(content | settings))
        return import_served_module(version, "prompt").PromptFormat(version)

    return build


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=list(CONVERSATIONS))
@pytest.mark.parametrize(
    "template",
    [CHAT_TEMPLATE, DEFAULT_SYSTEM, BLOCKS_ON_LINES_OF_THEIR_OWN, JSON_AND_LOOP_CONTROLS, GENERATION_MARKS],
    ids=["chat tokens", "default system turn", "blocks on lines", "json and loop controls", "generation marks"],
)
def test_a_prompt_is_spelled_and_encoded_as_transformers_does(prompt_format, tokenizer, template, conversation):
    expected_text = tokenizer.apply_chat_template(
        conversation, chat_template=template, add_generation_prompt=True, tokenize=False
    )
    expected_tokens = tokenizer.apply_chat_template(
        conversation, chat_template=template, add_generation_prompt=True, return_dict=True
    )["input_ids"]

    form = prompt_format(template)

    assert form.render(conversation) == expected_text
    assert form.encode(conversation)[0] == expected_tokens


def test_the_configured_system_prompt_goes_before_a_conversation_without_one(prompt_format):
    form = prompt_format(system_prompt="Answer in one sentence.")

    assert form.render(CONVERSATIONS["one turn"]).startswith("<|im_start|>system\nAnswer in one sentence.<|im_end|>\n")
    assert "Answer in one sentence." not in form.render(CONVERSATIONS["a system turn"])


def test_a_conversation_that_the_template_refuses_is_an_error_with_the_templates_words(prompt_format):
    with pytest.raises(ValueError, match="only user turns are allowed, found system"):
        prompt_format(ONLY_USERS).render(CONVERSATIONS["a system turn"])


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(prompt_format):
    form = prompt_format(context_tokens=64)
    tokens = len(prompt_format(context_tokens=4096).encode([{"role": "user", "content": "xy" * 100}])[0])

    with pytest.raises(ValueError, match=rf"{tokens} tokens.*context of 64 tokens"):
        form.encode([{"role": "user", "content": "xy" * 100}])


def test_an_answer_may_be_as_long_as_asked_but_no_longer_than_the_room_that_is_left(prompt_format):
    prompt, own_limit = prompt_format().encode(CONVERSATIONS["one turn"])

    assert own_limit == 12
    assert prompt_format().encode(CONVERSATIONS["one turn"], 5)[1] == 5
    assert prompt_format(context_tokens=len(prompt) + 3).encode(CONVERSATIONS["one turn"], 100)[1] == 3


def test_an_answer_has_no_special_tokens_and_no_surrounding_white_space(prompt_format, tokenizer):
    tokens = tokenizer.encode(" Return the sum.\n<|endoftext|>", add_special_tokens=False)

    answer = prompt_format().answer(7, tokens, stopped=True)

    assert answer.text == "Return the sum."
    assert (answer.prompt_tokens, answer.new_tokens, answer.finish_reason) == (7, len(tokens), "stop")


def test_truncation_padding_and_added_tokens_of_the_tokenizer_file_do_not_touch_the_prompt(prompt_format):
    tokenizer = make_tiny_tokenizer()
    expected = tokenizer.apply_chat_template(CONVERSATIONS["one turn"], add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    written = tokenizer.backend_tokenizer
    written.enable_truncation(4)
    written.enable_padding(length=200)
    written.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    form = prompt_format(tokenizer=tokenizer)

    assert form.encode(CONVERSATIONS["one turn"])[0] == expected


def test_a_template_that_writes_the_date_writes_the_servables_own(prompt_format):
    dated = "Today is {{ strftime_now('%d %b %Y %H:%M') }}. {{ messages[0].content }}"

    assert prompt_format(dated).render(CONVERSATIONS["one turn"]).startswith("Today is 29 Feb 2024 00:00. What")


def test_a_template_cannot_reach_out_of_the_sandbox(prompt_format):
    with pytest.raises(ValueError, match="unsafe"):
        prompt_format("{{ messages.__class__.__mro__ }}").render(CONVERSATIONS["one turn"])
