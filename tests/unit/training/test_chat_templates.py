"""A chat template can be given to a tokenizer that has none; one that cannot be used is one sentence."""

import json

import pytest
from tiny_model import CHAT_TEMPLATE, make_tiny_base_model

from tasks.contracts.config import BaseModelSection
from tasks.contracts.errors import BaseModelError
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.training.base_model import prepare_base_model, prepare_teacher


@pytest.fixture
def mute(tmp_path):
    """Return a model whose tokenizer has no chat template."""
    model = make_tiny_base_model(tmp_path / "mute")
    (model / "chat_template.jinja").unlink()
    return model


def prepare(model, template, tmp_path):
    section = BaseModelSection(source=f"dir:{model}", chat_template=str(template or ""))
    return prepare_base_model(section, Home(tmp_path / "home"), Store(tmp_path / "store"))


def written(tmp_path, text, name="given.jinja"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_tokenizer_without_one_says_that_one_can_be_given_and_takes_it(mute, tmp_path):
    from transformers import AutoTokenizer

    with pytest.raises(BaseModelError, match=r"has no chat template; one can be given by base_model\.chat_template"):
        prepare(mute, None, tmp_path)
    base = prepare(mute, written(tmp_path, CHAT_TEMPLATE), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    asked = [{"role": "user", "content": "Name it."}]
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True).endswith("assistant\n")


def test_a_given_template_counts_before_the_tokenizers_own_and_is_known_by_its_content(tmp_path):
    from transformers import AutoTokenizer

    model = make_tiny_base_model(tmp_path / "model")
    other = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    own, given = prepare(model, None, tmp_path), prepare(model, written(tmp_path, other), tmp_path)
    assert own.digest != given.digest
    assert AutoTokenizer.from_pretrained(given.path).chat_template == other
    again = prepare(model, written(tmp_path, other, "moved.jinja"), tmp_path)
    assert again.path == given.path


def test_of_several_templates_one_can_be_given(tmp_path):
    model = make_tiny_base_model(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = [{"name": name, "template": CHAT_TEMPLATE} for name in ("default", "tool_use")]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BaseModelError, match=r"several chat templates; expected one; one can be given"):
        prepare(model, None, tmp_path)
    assert prepare(model, written(tmp_path, CHAT_TEMPLATE), tmp_path).path.is_dir()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("line\n{% for message in messages %}", r"does not parse: line 2: Unexpected end of template"),
        ("{{ messages[0]['content'] ", r"does not parse: line 1"),
        ("{{ messages[9]['content']['x'] }}", r"cannot spell a question: the chat template refuses .*no element 9"),
        ("{{ ''.__class__.__mro__ }}{{ messages[0]['content'] }}", r"cannot spell a question: .*unsafe"),
        ("Hello {{ messages | length }}", r"leaves out what the user asked"),
        (" \n", r"is empty"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_sentence_with_its_key(mute, tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(BaseModelError, match=rf"^base_model\.chat_template is '{path}', which {says}"):
        prepare(mute, path, tmp_path)
    assert list(Store(tmp_path / "store").entries("base")) == []


NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['content'] }}{% endif %}{% endfor %}"
)
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NO_SYSTEM, r"leaves out serving\.system_prompt; expected a template with a system role"),
        (REFUSES, r"cannot spell serving\.system_prompt: the chat template refuses .*: no system role; expected"),
    ],
)
def test_a_template_that_does_not_take_the_system_prompt_is_refused_also_for_a_base_that_is_kept(
    mute, tmp_path, text, says
):
    path = written(tmp_path, text)
    section, home, store = (
        BaseModelSection(source=f"dir:{mute}", chat_template=str(path)),
        Home(tmp_path),
        Store(tmp_path),
    )
    kept = prepare_base_model(section, home, store)
    with pytest.raises(BaseModelError, match=rf"^base_model\.chat_template is '{path}', which {says}"):
        prepare_base_model(section, home, store, "Answer in one sentence.")
    assert prepare_base_model(section, home, store, "") == kept


def test_a_template_that_takes_the_system_prompt_is_fine(mute, tmp_path):
    section = BaseModelSection(source=f"dir:{mute}", chat_template=str(written(tmp_path, CHAT_TEMPLATE)))
    assert prepare_base_model(section, Home(tmp_path), Store(tmp_path), " Answer in one sentence. \n").path.is_dir()


def test_a_file_that_cannot_be_read_is_one_sentence(mute, tmp_path):
    with pytest.raises(BaseModelError, match=r"chat_template is '.*gone\.jinja', which cannot be read \(No such file"):
        prepare(mute, tmp_path / "gone.jinja", tmp_path)
    (tmp_path / "latin.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(BaseModelError, match="which is not UTF-8 text"):
        prepare(mute, tmp_path / "latin.jinja", tmp_path)


def test_a_template_of_the_models_own_that_does_not_parse_names_the_model(tmp_path):
    model = make_tiny_base_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(
        BaseModelError, match=rf"^base_model\.source is 'dir:{model}', whose chat template does not parse"
    ):
        prepare(model, None, tmp_path)


def test_a_teacher_is_prepared_as_a_base_model_and_its_errors_name_its_key(tmp_path):
    home, store, base = Home(tmp_path / "home"), Store(tmp_path / "store"), BaseModelSection()
    assert prepare_teacher(TrainingSection(), base, home, store) is None
    model = make_tiny_base_model(tmp_path / "model")
    training = TrainingSection(objective="distillation", teacher=f"dir:{model}")
    teacher = prepare_teacher(training, base, home, store)
    assert teacher == prepare_base_model(BaseModelSection(source=f"dir:{model}"), home, store)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=rf"^training\.teacher is 'dir:{model}', which has no \*\.safetensors"):
        prepare_teacher(training, base, home, store)
