"""A search space is checked against the training section before anything is trained."""

import pytest

from tasks.contracts.config import RetrainConfig, validate_config
from tasks.contracts.errors import ConfigError
from tasks.contracts.sweep_config import choices_of
from tasks.contracts.sweep_record import SweepRecord, TrialRecord
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.unused_settings import unused_settings
from tasks.training.adapter import _NO_RESULT
from tasks.training.sweep.space import (
    check_sweep,
    configured_settings,
    count_settings,
    decides_memory,
    distributions,
    planned_settings,
    with_settings,
)

REFUSED = [
    ({"rnak": [1]}, r"sweep\.space\.rnak is not a key of training; did you mean rank\?"),
    ({"rank": [8, 1000]}, r"sweep\.space\.rank has the value 1000: .* less than or equal to 512"),
    ({"rank": [True]}, r"sweep\.space\.rank has the value True: expected a number"),
    ({"rank": {"low": 1, "high": 900}}, r"sweep\.space\.rank has the value 900: .* less than or equal to 512"),
    ({"rank": {"low": 1.5, "high": 8}}, r"sweep\.space\.rank has the value 1\.5: .* valid integer"),
    ({"rank": {"low": 8, "high": 4}}, r"sweep\.space\.rank goes from 8 to 4; expected low below high"),
    ({"rank": {"lo": 8}}, r"sweep\.space\.rank\.lo is not a config key; did you mean low\?"),
    ({"rank": []}, r"sweep\.space\.rank has no values"),
    ({"rank": {"low": 4}}, r"sweep\.space\.rank has no values"),
    ({"rank": 5}, r"sweep\.space\.rank is 5: expected a list of choices, or low and high"),
    ({"rank": [8, "8"]}, r"expected different choices"),
    ({"rank": {"choices": [8], "low": 4, "high": 5}}, r"sweep\.space\.rank has choices and a range"),
    ({"learning_rate": {"low": 0, "high": 1}}, r"sweep\.space\.learning_rate has the value 0: .* greater than 0"),
    ({"dropout": {"low": 0, "high": 0.5, "log": True}}, r"dropout\.low is 0, which has no logarithm"),
    ({"dropout": {"low": 0, "high": 1}}, r"sweep\.space\.dropout has the value 1: .* less than 1"),
    ({"method": ["lora", "lroa"]}, r"sweep\.space\.method has the value 'lroa'"),
    ({"method": {"low": 1, "high": 2}}, r"training\.method takes no numbers; expected a list of choices"),
    ({"objective": ["sft", "dpo"]}, r"sweep\.space\.objective would change what the loss is"),
    ({"max_length_tokens": [64]}, r"sweep\.space\.max_length_tokens would change which rows"),
    ({"checkpoint_seconds": [1]}, r"sweep\.space\.checkpoint_seconds changes no weight"),
    ({"processes": [1, 2]}, r"sweep\.space\.processes changes no weight; set training\.processes"),
    ({"sharding": ["none", "fsdp"]}, r"sweep\.space\.sharding changes no weight; set training\.sharding"),
    ({"nodes": [1, 2]}, r"sweep\.space\.nodes says which machines train together, and a sweep trains on one"),
    ({"main_address": ["a", "b"]}, r"sweep\.space\.main_address says which machines"),
    ({"main_port": [29501, 29502]}, r"sweep\.space\.main_port says which machines"),
    ({"replay": ["12345678", "abcdef01"]}, r"sweep\.space\.replay would change which rows are replayed"),
]
SPACE = {"learning_rate": {"low": "1e-4", "high": "1e-2", "log": True}, "rank": [8, 16]}


def config_of(space=None, training=None, **sweep):
    return validate_config(
        {
            "training": {"validation_rows": 8, **(training or {})},
            "sweep": {"space": SPACE if space is None else space, **sweep},
        }
    )


def test_no_setting_that_the_key_of_an_adapter_leaves_out_can_be_searched():
    """Trials that differ in it alone would be one training."""
    for key in _NO_RESULT:
        default = TrainingSection.model_fields[key].default
        with pytest.raises(ConfigError, match=rf"sweep\.space\.{key} "):
            config_of({key: [default]})


@pytest.mark.parametrize(("space", "sentence"), REFUSED, ids=[str(space) for space, _ in REFUSED])
def test_a_space_that_training_would_not_take_is_one_sentence_that_names_the_key(space, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        config_of(space)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"space": {}}, r"sweep\.space is empty"),
        ({"trials": 0}, r"sweep\.trials and sweep\.hours are 0, so the sweep would never end"),
        ({"training": {"validation_rows": 0}}, r"training\.validation_rows is 0, and a sweep compares trials"),
        (
            {"training": {"nodes": 2, "main_address": "10.0.0.1"}},
            r"training\.nodes is 2, and a sweep trains on one machine: llm-retrain join takes part in one training",
        ),
        (
            {"space": {"method": ["lora", "prefix"]}},
            r"the choice 'prefix', which nothing fits: serving\.engine is 'onnx'",
        ),
    ],
)
def test_a_sweep_that_could_not_end_or_compare_or_serve_is_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_sweep(config_of(**changes))


def test_a_choice_that_fits_some_other_choice_is_allowed():
    check_sweep(served_by_transformers({"method": ["prefix", "lora"], "activation_checkpointing": [True, False]}))
    with pytest.raises(ConfigError, match=r"the choice 'prefix', which nothing fits: .*turn it off"):
        check_sweep(served_by_transformers({"method": ["prefix", "lora"]}, activation_checkpointing=True))


def served_by_transformers(space, **training):
    return validate_config(
        {
            "training": {"validation_rows": 8, **training},
            "serving": {"engine": "transformers"},
            "sweep": {"space": space},
        }
    )


REPLAYED = {"replay": "12345678"}


@pytest.mark.parametrize(
    ("space", "training", "why"),
    [
        ({"virtual_tokens": [8, 16, 32]}, {}, r"training\.method lora has no virtual tokens; leave it out"),
        ({"rank": [8, 16]}, {"method": "full"}, r"training\.method full has no LoRA layers"),
        ({"alpha": [8, 16]}, {"method": "ia3"}, r"training\.method ia3 has no LoRA layers"),
        ({"dropout": {"low": 0, "high": 0.5}}, {"method": "prompt"}, r"training\.method prompt has no LoRA layers"),
        (
            {"rank": [8, 16], "method": ["full", "ia3"]},
            {},
            r"training\.method full has no LoRA layers, training\.method ia3 has no LoRA layers",
        ),
        ({"replay_share": [0.1, 0.2]}, {}, r"training\.replay is empty"),
        ({"ewc_weight": {"low": 0, "high": 1e8}}, {"method": "full"}, r"training\.replay is empty"),
        ({"ewc_weight": [0, 1e8]}, REPLAYED, r"training\.method lora leaves the base's weights as they are"),
    ],
)
def test_a_setting_that_no_trial_would_use_is_refused_as_each_of_them_would_be_the_same_training(space, training, why):
    key = next(iter(space))
    with pytest.raises(ConfigError, match=rf"^sweep\.space\.{key} would change nothing: {why}"):
        check_sweep(served_by_transformers(space, **training))


@pytest.mark.parametrize(
    ("space", "training"),
    [
        ({"virtual_tokens": [8, 16], "method": ["lora", "prefix"]}, {}),
        ({"rank": [8, 16], "virtual_tokens": {"low": 8, "high": 32}}, {"method": "lora_prefix"}),
        ({"ewc_weight": {"low": 1, "high": 1e8}, "method": ["lora", "full"]}, REPLAYED),
        ({"replay_share": {"low": 0.1, "high": 0.5}}, REPLAYED),
    ],
)
def test_a_setting_that_some_trial_would_use_may_be_searched(space, training):
    config, key = served_by_transformers(space, **training), next(iter(space))
    check_sweep(config)
    methods = space.get("method", [config.training.method])
    assert any(key not in unused_settings(config.training.model_copy(update={"method": each})) for each in methods)


def test_trials_that_differ_in_size_do_not_fall_with_the_first():
    assert not decides_memory(("learning_rate", "seed"))
    assert decides_memory(("learning_rate", "rank"))


def test_every_method_is_looked_at_however_many_other_settings_are_searched():
    others = {"rank": [4, 8, 16], "batch_rows": [1, 2, 4, 8], "seed": list(range(50)), "epochs": [1, 2, 3, 4, 5, 6]}
    config = served_by_transformers({"method": ["prompt", "lora"], **others})
    check_sweep(config)
    assert "rank" in unused_settings(config.training.model_copy(update={"method": "prompt"}))


@pytest.mark.parametrize(
    ("space", "training", "sentence"),
    [
        ({"batch_rows": {"low": 1, "high": 8}}, {"processes": 4}, r"batch_rows has the end 1, which nothing fits: "),
        (
            {"ewc_weight": {"low": 0, "high": 1e8}},
            {**REPLAYED, "method": "full", "sharding": "fsdp", "processes": 2},
            r"ewc_weight has the end 100000000\.0, which nothing fits: .*second and third copy",
        ),
    ],
)
def test_a_range_with_an_end_that_no_trial_could_train_with_is_refused(space, training, sentence):
    with pytest.raises(ConfigError, match=rf"^sweep\.space\.{sentence}"):
        check_sweep(served_by_transformers(space, **training))


def test_trials_that_differ_in_what_their_method_does_not_use_are_one_training():
    config = served_by_transformers({"virtual_tokens": [8, 16], "rank": [4, 8], "method": ["lora", "prompt"]}, rank=32)

    def trained(**settings):
        return with_settings(config, settings).training

    assert trained(method="lora", rank=4, virtual_tokens=8) == trained(method="lora", rank=4, virtual_tokens=16)
    prompt = trained(method="prompt", rank=4, virtual_tokens=8)
    assert (prompt.rank, prompt.virtual_tokens) == (32, 8), "what is not used stays as configured"
    assert prompt == trained(method="prompt", rank=8, virtual_tokens=8)
    assert prompt != trained(method="prompt", rank=8, virtual_tokens=16)


def test_texts_that_yaml_leaves_are_read_as_the_training_section_reads_them():
    config = config_of({"learning_rate": ["1e-4", 0.001], "rank": ["8"]})
    assert choices_of("learning_rate", config.sweep.space["learning_rate"]) == [1e-4, 0.001]
    assert choices_of("rank", config.sweep.space["rank"]) == [8]


def test_the_space_in_optunas_terms_keeps_whole_numbers_whole_and_orders_of_magnitude():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = {**SPACE, "batch_rows": {"low": 2, "high": 16}}
    assert distributions(config_of(space).sweep.space) == {
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "rank": CategoricalDistribution([8, 16]),
        "batch_rows": IntDistribution(2, 16),
    }


def test_settings_are_counted_where_they_can_be():
    assert count_settings(config_of({"rank": [8, 16], "batch_rows": {"low": 2, "high": 4}}).sweep.space) == 6
    assert count_settings(config_of().sweep.space) is None


def test_the_configuration_as_it_stands_is_a_trial_where_it_lies_in_the_space():
    assert configured_settings(config_of()) == {"learning_rate": 5e-4, "rank": 16}, "the method's own learning rate"
    assert configured_settings(config_of(training={"rank": 32})) is None
    assert configured_settings(config_of(training={"learning_rate": 0.5})) is None


def test_a_trials_settings_are_laid_over_the_configuration_and_checked():
    config = config_of(training={"alpha": 7})
    tuned = with_settings(config, {"rank": 4, "learning_rate": 1e-3})
    assert (tuned.training.rank, tuned.training.learning_rate, tuned.training.alpha) == (4, 1e-3, 7)
    assert tuned.training.validation_rows == 8, "the rows that are held out stay held out"
    with pytest.raises(ConfigError, match=r"serving\.engine"):
        with_settings(config, {"method": "prompt"})


def test_a_run_without_a_sweep_ignores_the_section():
    assert RetrainConfig().sweep.space == {}


def test_the_best_trial_is_the_finished_one_with_the_lowest_loss():
    def trial(number, state, loss):
        return TrialRecord(number, state, {"rank": number}, loss, 1.0, "", "run")

    trials = (trial(0, "finished", 2.0), trial(1, "pruned", 0.1), trial(2, "finished", 1.0), trial(3, "failed", None))
    record = SweepRecord("name", "run", "1", "over", trials, {})
    assert record.best == trials[2] and record.to_json()["best"]["number"] == 2
    assert SweepRecord("name", "run", "1", "over", trials[3:], {}).best is None


def test_a_sweep_is_planned_by_settings_that_a_trial_can_have():
    assert planned_settings(config_of()).training.rank == 16, "inside the space, the configured ones"
    outside = config_of({"rank": [4, 8], "batch_rows": {"low": 2, "high": 5}}, {"rank": 32, "batch_rows": 8})
    planned = planned_settings(outside).training
    assert (planned.rank, planned.batch_rows) == (4, 2)
    together = {"method": ["lora_prefix", "lora"], "activation_checkpointing": [True]}
    served = {"serving": {"engine": "transformers"}}
    unfit = validate_config({**config_of(together).model_dump(mode="json"), **served})
    unfit = with_settings(unfit, {"method": "full"})
    assert planned_settings(unfit) == unfit, "the first of all do not fit together"
