"""A version is registered with the tokenizer that belongs to it: the base's, or the one with new tokens."""

from pathlib import Path
from types import SimpleNamespace

from tasks.registry import versions


def registered(tmp_path, monkeypatch, own):
    """Return what the registered tokenizer's files say."""
    base, adapter = tmp_path / "base", tmp_path / "trained" / "adapter"
    for folder in (base, adapter, tmp_path / "report", tmp_path / "out"):
        folder.mkdir(parents=True)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (base / name).write_text("of the base")
    (adapter / "adapter_model.safetensors").write_text("weights")
    if own:
        (adapter / "tokenizer.json").write_text("with new tokens")
    (tmp_path / "review").mkdir()
    monkeypatch.setattr(versions, "model_card", lambda *_: "card")
    monkeypatch.setattr(versions, "asdict", lambda _: {})
    candidate = SimpleNamespace(
        adapter=SimpleNamespace(path=adapter.parent),
        base=SimpleNamespace(path=base),
        report=SimpleNamespace(path=tmp_path / "report"),
        review=SimpleNamespace(path=tmp_path / "review"),
        decision=None,
        dataset=SimpleNamespace(digest="d", eval_digest="e", train_rows=1, eval_rows=1, rejected={}),
    )
    versions._assemble(tmp_path / "out", candidate, SimpleNamespace(model_dump=lambda mode: {}))
    return {path.name: path.read_text() for path in Path(tmp_path / "out" / "tokenizer").iterdir()}


def test_without_new_tokens_it_is_the_bases(tmp_path, monkeypatch):
    assert registered(tmp_path, monkeypatch, own=False) == dict.fromkeys(
        ("tokenizer.json", "chat_template.jinja"), "of the base"
    )


def test_with_new_tokens_it_is_the_one_that_training_wrote(tmp_path, monkeypatch):
    assert registered(tmp_path, monkeypatch, own=True)["tokenizer.json"] == "with new tokens"
