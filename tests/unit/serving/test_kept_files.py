"""What of a merged model is kept for the transformers engine."""

import pytest
from tiny_model import make_tiny_base_model

from tasks.serving.build_process import keep_for_transformers


@pytest.mark.parametrize(("shard", "files"), [("1GB", 1), ("100KB", 3)])
def test_a_model_in_one_file_or_in_several_loads_as_it_was_saved(shard, files, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_tiny_base_model(tmp_path / "tiny"))
    model.save_pretrained(tmp_path / "merged", max_shard_size=shard)
    (tmp_path / "merged" / "tokenizer.json").write_text("{}")
    keep_for_transformers(tmp_path / "merged", tmp_path / "hf")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) >= files
    assert not (tmp_path / "hf" / "tokenizer.json").exists(), "the engine reads the one beside it"
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True, use_safetensors=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, kept.state_dict()[name])
