"""Configuration: presets, files and overrides, and one clear sentence for everything else."""

import pytest

from tasks.contracts.config import RetrainConfig, load_config, monitor_config, preset_names
from tasks.contracts.errors import ConfigError
from tasks.contracts.home import PROJECT_ROOT


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(preset):
    config = load_config(preset)
    assert RetrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_presets_are_the_ones_the_readme_names():
    assert preset_names() == ["bring-your-own", "gpu", "quickstart"]
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in readme.splitlines() if line.startswith("Presets to start from"))
    assert all(f"`{name}`" in line for name in preset_names())


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
        ("serving.model_name=../etc", r"^serving\.model_name is '\.\./etc': expected 1 to 63 lowercase letters"),
        ("registry.model_name=../etc", r"^registry\.model_name is '\.\./etc': expected 1 to 63 lowercase letters"),
        ("serving.model_name=mine-v2", r"^serving\.model_name is 'mine-v2': expected a name that does not end in -v2"),
        ("registry.model_name=mine-v10", r"^registry\.model_name is 'mine-v10': expected a name .* end in -v10"),
        ("training.learning_rate=.inf", r"^training\.learning_rate is inf: Input should be a finite number"),
        ("gate.min_improvement=.nan", r"^gate\.min_improvement is nan: Input should be a finite number"),
        (
            "serving.load_timeout_seconds=.inf",
            r"^serving\.load_timeout_seconds is inf: Input should be a finite number",
        ),
        (
            "serving.grpc_port=8000",
            r"^serving\.http_port, grpc_port and metrics_port are 8000, 8000 and 8002; expected three different ports$",
        ),
        ("base_model.source=pickle:model.bin", r"base_model\.source is 'pickle:model\.bin'.*dir:PATH"),
        ("base_model.source=hub:org/name@main", r"expected hub:ORG/NAME@COMMIT with the 40 hex digits"),
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


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {rank: 4}\ndata: {seed: 1}\ntraining: {alpha: 8}\n", "training"),
        ("training:\n  rank: 4\n  alpha: 8\n  rank: 8\n", "rank"),
        ("data:\n  sources:\n    - {kind: files, path: a, path: b}\n", "path"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_file(tmp_path, text, key):
    file = tmp_path / "twice.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"^--config is '.*twice\.yaml', in which the key '{key}' stands twice \("):
        load_config(None, file)


def test_a_key_that_stands_twice_in_an_override_is_named_with_the_override():
    with pytest.raises(ConfigError, match=r"^--set is 'training=.*', in which the key 'rank' stands twice"):
        load_config(None, None, ("training={rank: 4, alpha: 8, rank: 8}",))


def test_a_key_that_replaces_a_merged_one_does_not_stand_twice(tmp_path):
    file = tmp_path / "merged.yaml"
    file.write_text("data:\n  sources:\n    - &a {kind: files, path: /a}\n    - {<<: *a, path: /b}\n")
    assert [source.path for source in load_config(None, file).data.sources] == ["/a", "/b"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*cannot be read"):
        load_config(None, tmp_path / "nowhere.yaml")


def test_the_configuration_cannot_be_changed_on_its_way():
    config = load_config("quickstart")
    with pytest.raises(ValueError, match="frozen"):
        config.training.rank = 1


def test_relative_paths_count_from_the_file_they_stand_in_or_else_from_the_working_directory(tmp_path, monkeypatch):
    folder, here = tmp_path / "settings", tmp_path / "here"
    folder.mkdir(), here.mkdir()
    monkeypatch.chdir(here)
    file = folder / "mine.yaml"
    file.write_text(
        "base_model: {source: 'dir:base'}\n"
        "data:\n"
        "  sources: [{kind: files, path: rows.jsonl}, {kind: docstrings}, {kind: files, path: /elsewhere/rows.jsonl}]\n"
        "  evaluation_sources: [{kind: files, path: held-out.jsonl}]\n"
        "monitor: {requests_path: asked.jsonl}\n"
    )
    config = load_config("bring-your-own", file)
    assert config.base_model.source == f"dir:{folder / 'base'}"
    first, _, last = config.data.sources
    assert (first.path, last.path) == (str(folder / "rows.jsonl"), "/elsewhere/rows.jsonl")
    assert config.data.evaluation_sources[0].path == str(folder / "held-out.jsonl")
    assert config.monitor.requests_path == str(folder / "asked.jsonl")
    overrides = ("base_model.source=dir:mine", "data.sources=[{kind: files, path: a.jsonl}]")
    config = load_config(None, file, overrides)
    assert config.base_model.source == f"dir:{here / 'mine'}"
    assert config.data.sources[0].path == str(here / "a.jsonl")
    assert load_config("bring-your-own").data.sources[0].path == str(here / "rows.jsonl")


def test_a_path_in_the_home_directory_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    assert load_config(None, None, ("base_model.source=dir:~/base",)).base_model.source == "dir:/somebody/base"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.sources=[{kind: files, path: ~no-such-user/rows.jsonl}]", "data.sources"),
        ("base_model.source=dir:~no-such-user/base", "base_model.source"),
        ("monitor.requests_path=~no-such-user/requests.jsonl", "monitor.requests_path"),
    ],
)
def test_the_home_directory_of_an_unknown_user_is_one_sentence_with_its_key(override, key):
    with pytest.raises(ConfigError, match=rf"^{key} names '~no-such-user/.*', whose home directory is not known"):
        load_config(None, None, (override,))


def test_answers_of_one_character_are_rows_by_default():
    assert RetrainConfig().data.min_answer_chars == 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data=3", r"data is 3"),
        ("data.sources=rows.jsonl", r"data\.sources is 'rows\.jsonl'"),
        ("data.sources=[{kind: files, path: 3}]", r"data\.sources\.0\.files\.path is 3"),
        ("data.sources=[rows.jsonl]", r"data\.sources\.0 is 'rows\.jsonl'"),
        ("base_model.source=3", r"base_model\.source is 3"),
    ],
)
def test_a_path_of_the_wrong_shape_is_refused_as_before(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, None, (override,))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.sources={kind: files}", r"^data\.sources is \{'kind': 'files'\}: expected a list$"),
        ("gate.guarded_metrics=bleu", r"^gate\.guarded_metrics is 'bleu': expected a list$"),
        ("data.cleaning=[unicode]", r"^data\.cleaning\.0 is 'unicode': expected settings, key: value$"),
        (
            "data.sources=[{kind: file, path: a}]",
            r"^data\.sources\.0\.kind is 'file'; expected one of files, .*, docstrings; did you mean files\?$",
        ),
        ("data.cleaning=[{step: unicde}]", r"^data\.cleaning\.0\.step is 'unicde'; .*; did you mean unicode\?$"),
        ("data.cleaning=[{step: xyz}]", r"^data\.cleaning\.0\.step is 'xyz'; expected one of unicode, .*personal$"),
        (
            "data.augment.methods=[{method: synonym, path: a}]",
            r"^data\.augment\.methods\.0\.method is 'synonym'; .*; did you mean synonyms\?$",
        ),
        ("data.sources=[{path: a}]", r"^data\.sources\.0 is \{'path': '.*a'\}: expected the key kind in it$"),
        (
            "data.execution.kind=rai",
            r"^data\.execution\.kind is 'rai': .* 'local', 'ray' or 'dask'; did you mean ray\?$",
        ),
        ("data.frozen_evaluation=1234567", r"^data\.frozen_evaluation is '1234567': "),
        ("data.frozen_evaluation=true", r"^data\.frozen_evaluation is True: "),
    ],
)
def test_what_is_misspelled_or_of_another_shape_is_said_in_the_words_of_yaml(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, None, (override,))


@pytest.mark.parametrize("digest", ["12345678", "01234567", "0b101010", "00000000", "1" * 64])
def test_a_digest_of_nothing_but_digits_is_text(digest, tmp_path):
    """YAML 1.1 reads a zero before digits as octal, and 0b as binary."""
    assert load_config(None, None, (f"data.frozen_evaluation={digest}",)).data.frozen_evaluation == digest
    (tmp_path / "mine.yaml").write_text(f"data: {{frozen_evaluation: {digest}}}\n")
    assert load_config(None, tmp_path / "mine.yaml").data.frozen_evaluation == digest


def test_the_monitors_settings_are_a_section_and_reach_its_flow():
    config = load_config(None, None, ("monitor.alpha=0.05", "registry.experiment=mine", "serving.http_port=9000"))
    taken = monitor_config(config)
    assert (taken.alpha, taken.registry.experiment, taken.serving.http_port) == (0.05, "mine", 9000)
    assert taken.min_auc == RetrainConfig().monitor.min_auc
    with pytest.raises(ConfigError, match=r"monitor\.alpah is not a config key; did you mean alpha\?"):
        load_config(None, None, ("monitor.alpah=0.05",))
