"""The model while it is trained: the base with what the method puts on it, how it is called, and how it is saved."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.hidden_modules import hidden_modules
from tasks.contracts.jsonl import digest_of_file
from tasks.contracts.training_config import TrainingSection
from tasks.training.distributed.group import ALONE, Group
from tasks.training.distributed.layout import lay_out
from tasks.training.distributed.resuming import start_equal
from tasks.training.fast.model import FastModel, why_not_fast
from tasks.training.loop.collate import Batch, collate
from tasks.training.loop.examples import Example
from tasks.training.loop.four_bit import pack_without_weights
from tasks.training.loop.memory import takes_eager_attention
from tasks.training.parts import with_added_layers, with_virtual_tokens
from tasks.training.shape import check_training, model_without_weights

if TYPE_CHECKING:
    import torch

VIRTUAL_TOKENS = "virtual_tokens"
"""Beside added layers, virtual tokens are saved in a folder of this name."""


@dataclass(frozen=True)
class Place:
    """Where and in which precision the base computes.

    Attributes:
        device: meta for a model without weights.
        dtype: of the base.
        planned_for: the kind of device that a model without weights stands for.
    """

    device: "torch.device"
    dtype: "torch.dtype"
    planned_for: str = ""

    @property
    def kind(self) -> str:
        """The kind of device whose ways of computing are taken."""
        return self.planned_for or self.device.type


class Trainee:
    """A base model with fresh trainable parts.

    Shapes: B rows, T tokens of the longest, V words, N tokens whose logits are wanted.
    """

    def __init__(self, base: Path, training: TrainingSection, place: Place, group: Group = ALONE) -> None:
        """Load the base and put the parts on it; lay it out on the processes of a group.

        Raises:
            TrainingError: the model's shape rules out what is configured; said before any weight is loaded.
        """
        from transformers import AutoTokenizer

        self.training, self.place, self.group = training, place, group
        self.tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        self.new_token_ids = add_tokens(self.tokenizer, training.new_tokens)
        weightless = model_without_weights(base, len(self.tokenizer), place.dtype)
        check_training(weightless, training)
        self.transformer = (
            _prepared_without_weights(weightless, training)
            if place.device.type == "meta"
            else _load_base(base, training, place, group.sharded)
        )
        if self.new_token_ids and len(self.tokenizer) > self.transformer.get_input_embeddings().num_embeddings:
            self.transformer.resize_token_embeddings(len(self.tokenizer))
        self.layers: Any = None
        self.virtual: Any = None
        method = training.chosen
        # peft imports bitsandbytes if it finds it, 2 s here, which only a quantised model needs.
        with hidden_modules(*(() if training.method == "qlora" else ("bitsandbytes",))):
            if method.adds_layers:
                self.layers = with_added_layers(self.transformer, training, self.new_token_ids)
            if method.has_virtual_tokens:
                self.virtual = with_virtual_tokens(self.transformer, training)
        self._start = self._remember_start()
        if training.activation_checkpointing:
            self.transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if group.size > 1:
            start_equal(group, self._random_at_start(), list(self.transformer.parameters()))
        self.layout = lay_out(self.transformer, group)
        self._fused_attention = self.transformer.config._attn_implementation
        # Sharded weights are there only while the model's own layers are called.
        plain = training.sharding == "fsdp" or self.layers is None or self.virtual is not None
        takes_fast_way = not plain and place.kind == "cpu" and why_not_fast(self.layers) is None
        self.fast = FastModel(self.layers) if takes_fast_way else None

    def trained_parameters(self) -> "dict[str, torch.nn.Parameter]":
        """Return what is trained, by name, always in the same order."""
        named: dict[str, Any] = {}
        if self.virtual is not None:
            named |= {f"virtual.{name}": p for name, p in self.virtual.prompt_encoder.named_parameters()}
        if self.layers is not None or self.virtual is None:
            named |= dict(self.transformer.named_parameters())
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    def answer_losses(self, examples: Sequence[Example]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the cross-entropy of each answer token in nats, and the example it is of: (N,) fp32, (N,)."""
        from torch.nn.functional import cross_entropy

        if self.fast is not None and self.fast.fits(examples):
            return self.fast.target_losses(examples)
        batch, logits = self.answer_logits(examples)
        return cross_entropy(logits.float(), batch.targets, reduction="none"), batch.rows

    def answer_logits(self, examples: Sequence[Example]) -> "tuple[Batch, torch.Tensor]":
        """Return examples as a batch, and the logits (N, V) that predict their answers' tokens."""
        is_eager = takes_eager_attention(self.place.kind, self.transformer.config, examples)
        self.transformer.set_attn_implementation("eager" if is_eager else self._fused_attention)
        batch = collate(examples, self.place.device)
        return batch, self.logits(batch.ids, batch.attended, batch.wanted)

    def logits(self, ids: "torch.Tensor", attended: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
        """Return the logits where they are wanted, and only there.

        With a vocabulary of 49,152 all of them would be most of the memory and a large share of the time.

        Args:
            ids: (B, T) token ids.
            attended: (B, T) 1 where there is a token, 0 where there is padding.
            wanted: (B, T) True at the tokens whose following token is to be predicted.

        Returns:
            (N, V) logits, row by row.
        """
        import torch

        inputs: dict[str, Any] = {"input_ids": ids}
        if self.virtual is not None:
            rows, count = len(ids), self.training.virtual_tokens
            attended = torch.cat([attended.new_ones(rows, count), attended], dim=1)
            prompt = self.virtual.get_prompt(rows)
            if isinstance(prompt, torch.Tensor):  # embeddings, which take places before the row
                embedded = self.transformer.get_input_embeddings()(ids)
                inputs = {"inputs_embeds": torch.cat([prompt.to(embedded.dtype), embedded], dim=1)}
                wanted = torch.cat([wanted.new_zeros(rows, count), wanted], dim=1)
            else:
                inputs["past_key_values"] = prompt
        # The model's own forward pass, because some families scale or cap what comes out of the head.
        logits: torch.Tensor = self.transformer(**inputs, attention_mask=attended, logits_to_keep=wanted).logits
        return logits

    def _random_at_start(self) -> "list[torch.Tensor]":
        """Return the weights that are not as they were read: fresh ones, and those that PiSSA took them out of."""
        fresh: list[Any] = []
        if not self.training.chosen.trains_weights:
            fresh += self.trained_parameters().values()
        if self.training.method == "pissa":
            fresh += [weight for weight in self.transformer.parameters() if weight.is_floating_point()]
        elif self.new_token_ids:
            ends = (self.transformer.get_input_embeddings(), self.transformer.get_output_embeddings())
            fresh += [weight for end in ends if end is not None for weight in end.parameters()]
        return fresh

    def save(self, out: Path, base_name: str, trained: "dict[str, torch.Tensor] | None" = None) -> None:
        """Save what was trained as safetensors in peft's layout, or the whole model after full fine-tuning.

        Args:
            out: the directory.
            base_name: what the adapter's configuration calls the base; never a path of this machine.
            trained: the trained weights by name, where this process holds only parts of them.
        """
        out.mkdir(parents=True, exist_ok=True)
        if self.layers is not None:
            self._save_layers(out, base_name, trained)
        if self.virtual is not None:
            _name_base(self.virtual, base_name)
            self.virtual.save_pretrained(out / VIRTUAL_TOKENS if self.layers is not None else out)
        if self.training.chosen.trains_weights:
            self.transformer.save_pretrained(out, **({} if trained is None else {"state_dict": trained}))
        if self.new_token_ids:
            self.tokenizer.save_pretrained(out)
        for card in out.rglob("README.md"):  # peft's empty model card
            card.unlink()

    def start_digest(self) -> str:
        """Return the digest of PiSSA's first matrices, which the base's weights go without; empty for other methods.

        They come of a decomposition, which threads and devices compute with other last digits, or other signs.
        """
        return digest_of_file(Path(self._start.name) / "adapter_model.safetensors") if self._start is not None else ""

    def _save_layers(self, out: Path, base_name: str, trained: "dict[str, torch.Tensor] | None") -> None:
        _name_base(self.layers, base_name)
        # "auto" would look the base up on the hub to see whether its embeddings were resized.
        settings: dict[str, Any] = {"save_embedding_layers": False}
        if trained is not None:
            settings["state_dict"] = {f"base_model.model.{name}": weight for name, weight in trained.items()}
        if self._start is None:
            self.layers.save_pretrained(out, **settings)
        else:
            self.layers.save_pretrained(out, path_initial_model_for_weight_conversion=self._start.name, **settings)

    def _remember_start(self) -> "tempfile.TemporaryDirectory[str] | None":
        """Keep PiSSA's first matrices: it moved them out of the base's weights, and saving takes them off again."""
        if self.training.method != "pissa":
            return None
        folder = tempfile.TemporaryDirectory(prefix="llm-retrain-pissa-")
        self.layers.save_pretrained(folder.name, save_embedding_layers=False)
        return folder


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Add tokens that the tokenizer lacks, and return the ids of those that were added."""
    known = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in known]
    tokenizer.add_tokens(missing)
    return [tokenizer.convert_tokens_to_ids(token) for token in missing]


def _name_base(peft_model: Any, base_name: str) -> None:
    config = peft_model.peft_config["default"]
    config.base_model_name_or_path = base_name
    if isinstance(getattr(config, "target_modules", None), set):  # its order differs between processes
        config.target_modules = sorted(config.target_modules)
    if isinstance(getattr(config, "feedforward_modules", None), set):
        config.feedforward_modules = sorted(config.feedforward_modules)


def _load_base(base: Path, training: TrainingSection, place: Place, sharded: bool) -> Any:
    from transformers import AutoModelForCausalLM

    quantization = _nf4(place.dtype) if training.method == "qlora" else {}
    if quantization and place.device.type == "cuda":
        quantization["device_map"] = {"": str(place.device)}  # 4-bit weights are packed on the device they load to
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=place.dtype, trust_remote_code=False, use_safetensors=True, **quantization
    )
    if not quantization:
        model.to("cpu" if sharded else place.device)  # the device gets this process's parts alone
    else:
        _keep_nf4_unpacked(model)
        _leave_the_file(model)
    model.config.use_cache = False
    return model


def _prepared_without_weights(model: Any, training: TrainingSection) -> Any:
    if training.method == "qlora":
        pack_without_weights(model)
    model.config.use_cache = False
    return model


def _nf4(dtype: "torch.dtype") -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def _keep_nf4_unpacked(model: Any) -> None:
    """Stop bitsandbytes 0.50 from repacking weights in place on AVX512-BF16 CPUs, which scrambles later training.

    Can go when a forward pass in eval mode leaves `Linear4bit.weight` as it was.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _leave_the_file(model: Any) -> None:
    """Copy what is not packed: one tensor that lies in the mapped file keeps all its pages in memory."""
    for weight in model.parameters():
        if weight.is_floating_point() and weight.device.type == "cpu":
            weight.data = weight.data.clone()
