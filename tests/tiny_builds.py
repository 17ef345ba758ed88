"""Builds of servables in this process, and what peft alone answers with the same files."""

from tasks.contracts.config import ServingSection
from tasks.contracts.engine import load_engine
from tasks.serving import build_process


def build_here(base, adapter, engine, directory):
    """Build a servable of an adapter's folder in this process and return its engine."""
    serving = ServingSection(engine=engine, onnx_precision="fp32", max_new_tokens=24)
    build_process.run(
        {
            "base": str(base.path),
            "adapter": str(adapter),
            "model_directory": str(directory),
            "serving": serving.model_dump(mode="json"),
        }
    )
    return load_engine(directory / "1")


def answer_of_peft(base, adapter, method, question):
    """Return what transformers and peft answer with the saved files alone, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    has_tokenizer = (adapter / "tokenizer.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(adapter if has_tokenizer else base.path)
    if method == "full":
        model = AutoModelForCausalLM.from_pretrained(adapter)
    else:
        model = AutoModelForCausalLM.from_pretrained(base.path)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model = PeftModel.from_pretrained(model, adapter)
    if method == "lora_prefix":
        model = PeftModel.from_pretrained(model.merge_and_unload(), adapter / "virtual_tokens")
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.eval().generate(**prompt, max_new_tokens=24, do_sample=False)[0].tolist()
    given = prompt["input_ids"][0].tolist()
    # With embeddings in place of ids, generate returns the new tokens alone.
    answered = output[len(given) :] if output[: len(given)] == given else output
    return tokenizer.decode(answered, skip_special_tokens=True).strip()
