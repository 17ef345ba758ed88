"""Configuration: presets, files and overrides, and one clear sentence for everything else."""

import pytest

from tasks.contracts.config import RetrainConfig, load_config, preset_names
from tasks.contracts.errors import ConfigError


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(preset):
    config = load_config(preset)
    assert RetrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_presets_are_the_ones_the_readme_names():
    assert preset_names() == ["bring-your-own", "gpu", "quickstart"]


def test_a_file_lies_over_the_preset_and_overrides_lie_over_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {rank: 8, alpha: 8}\n")
    config = load_config("quickstart", file, ("training.rank=4",))
    assert (config.training.rank, config.training.alpha, config.data.train_rows) == (4, 8, 300)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.lerning_rate=1", r"training\.lerning_rate is not a config key; did you mean learning_rate\?"),
        ("data.eval_rows=0", r"data\.eval_rows is 0"),
        ("training.rank=many", r"training\.rank is 'many'"),
        ("training", r"--set is 'training'; expected section\.key=value"),
        ("serving.model_name=../etc", r"serving\.model_name is '\.\./etc'"),
        ("base_model.source=pickle:model.bin", r"base_model\.source is 'pickle:model\.bin'.*dir:PATH"),
        ("base_model.source=hub:org/name", r"needs a revision"),
        ("data.eval_rows=10", r"gate\.min_examples is 30 but data\.eval_rows is 10"),
    ],
)
def test_a_bad_value_is_one_sentence_with_its_key(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config("quickstart", None, (override,))


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ConfigError, match=r"--preset is 'quikstart'; expected one of .*quickstart"):
        load_config("quikstart")


@pytest.mark.parametrize(("text", "sentence"), [("[1, 2]", "expected sections"), ("a: [", "not YAML")])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, sentence):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*cannot be read"):
        load_config(None, tmp_path / "nowhere.yaml")


def test_the_configuration_cannot_be_changed_on_its_way():
    config = load_config("quickstart")
    with pytest.raises(ValueError, match="frozen"):
        config.training.rank = 1
