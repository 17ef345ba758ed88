"""Which settings of the training go together; every pair of the table of methods is either served or refused."""

import pytest

from tasks.contracts.config import RetrainConfig, load_config
from tasks.contracts.errors import ConfigError
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.methods import METHODS

ENGINES = ("onnx", "transformers")
PREFIXED = {"prefix", "prompt", "p_tuning", "lora_prefix"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", list(METHODS))
def test_an_engine_that_cannot_serve_a_method_is_refused_and_says_why(method, engine):
    chosen = (f"training.method={method}", f"serving.engine={engine}")
    if method in PREFIXED and engine == "onnx":
        with pytest.raises(ConfigError) as raised:
            load_config(None, None, chosen)
        assert str(raised.value) == (
            "serving.engine is 'onnx', which takes no keys and values from outside its graph, as training.method "
            f"{method} trains them; expected serving.engine transformers"
        )
        assert engine not in METHODS[method].engines
    else:
        assert load_config(None, None, chosen).training.method == method
        assert engine in METHODS[method].engines


def test_the_engines_of_the_table_are_those_of_the_configuration():
    assert RetrainConfig.model_fields["serving"].annotation.model_fields["engine"].annotation.__args__ == ENGINES
    assert {engine for method in METHODS.values() for engine in method.engines} == set(ENGINES)
    assert all((PROJECT_ROOT / "triton_models" / engine / "engine.py").is_file() for engine in ENGINES)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            "{method: prefix, target_modules: [q_proj]}",
            r"target_modules names layers, and training\.method prefix adds",
        ),
        ("{method: full, target_modules: [q_proj]}", r"target_modules names layers, and training\.method full adds"),
        ("{method: ia3, new_tokens: [x]}", r"new_tokens needs embeddings .* training\.method ia3 trains none"),
        ("{method: lora_prefix, new_tokens: [x]}", r"new_tokens needs embeddings .* lora_prefix trains none"),
        ("{method: pissa, new_tokens: [x]}", r"new_tokens and training\.method pissa cannot go together: peft"),
        ("{new_tokens: [x, x]}", r"training\.new_tokens is .*expected different tokens"),
        ("{new_tokens: [' ']}", r"training\.new_tokens is .*none of them empty"),
        ("{method: prefix, activation_checkpointing: true}", r"drops the keys and values"),
        ("{precision: fp16, device: cpu}", r"precision is fp16 and training\.device cpu; expected bf16, fp32 or auto"),
        ("{ewc_weight: 1, replay: '12345678'}", r"training\.method lora leaves them as they are; expected full, or 0"),
        ("{method: full, ewc_weight: 1}", r"training\.ewc_weight needs training\.replay"),
        ("{patience: 2}", r"training\.patience needs training\.validation_rows"),
        ("{objective: distillation}", r"training\.teacher is empty; expected a model to learn from"),
        ("{teacher: 'dir:/large'}", r"training\.teacher is 'dir:/large' and training\.objective sft"),
        (
            "{objective: distillation, teacher: large}",
            r"training\.teacher is 'large': expected dir:PATH, hub:ORG/NAME@",
        ),
        ("{objective: distillation, teacher: 'hub:a/b@main'}", r"training\.teacher is .* 40 hex digits of a commit"),
        ("{objective: distillation, teacher: 'dir:/l', new_tokens: [x]}", r"training\.teacher has no opinion on"),
        ("{replay: main}", r"training\.replay is 'main'"),
    ],
)
def test_settings_that_cannot_go_together_are_one_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, None, (f"training={settings}",))


def test_a_replay_digest_of_nothing_but_digits_is_text():
    assert load_config(None, None, ("training.replay=12345678",)).training.replay == "12345678"


def test_paths_of_a_teacher_and_of_a_chat_template_count_from_the_file_they_stand_in(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base_model: {chat_template: template.jinja}\ntraining: {objective: distillation, teacher: 'dir:large'}\n"
    )
    config = load_config(None, file)
    assert config.base_model.chat_template == str(tmp_path / "template.jinja")
    assert config.training.teacher == f"dir:{tmp_path / 'large'}"


def test_the_learning_rate_is_the_methods_own_unless_it_is_named():
    for name, method in METHODS.items():
        engine = "serving.engine=transformers"
        assert (
            load_config(None, None, (f"training.method={name}", engine)).training.peak_learning_rate
            == method.learning_rate
        )
    assert load_config(None, None, ("training.learning_rate=0.25",)).training.peak_learning_rate == 0.25
