"""The section `training` of the configuration."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.contracts.methods import METHODS, Method, MethodName
from tasks.contracts.model_source import checked_model_source
from tasks.contracts.section import Section, VersionDigest

Objective = Literal["sft", "dpo", "distillation"]
Schedule = Literal["cosine", "linear", "constant", "inverse_sqrt"]


class TrainingSection(Section):
    """Fine-tuning, in a process of its own."""

    method: MethodName = Field("lora", description="what is trained; see the table of methods in docs/training.md")
    objective: Objective = Field(
        "sft",
        description=(
            "sft: the answers; dpo: chosen before rejected answers; distillation: the answers and a teacher's opinion"
        ),
    )
    target_modules: tuple[str, ...] = Field(
        (), description="names of the linear layers that get added layers, such as q_proj; empty: all but the head"
    )
    rank: int = Field(16, ge=1, le=512, description="LoRA rank r")
    alpha: int = Field(32, ge=1, description="LoRA alpha; the update is scaled by alpha / r (rslora: alpha / sqrt(r))")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    virtual_tokens: int = Field(20, ge=1, le=1_024, description="tokens of prefix, lora_prefix, prompt and p_tuning")
    new_tokens: tuple[str, ...] = Field(
        (), max_length=1_000, description="symbols that become tokens of their own; their embeddings are trained"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate of AdamW; empty: the method's own (docs/training.md)"
    )
    schedule: Schedule = Field("cosine", description="how the learning rate falls after the warm-up")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps with rising learning rate")
    epochs: float = Field(1.0, gt=0, description="passes over the training rows")
    batch_rows: int = Field(8, ge=1, description="rows an optimizer step")
    micro_batch_tokens: int = Field(
        0, ge=0, description="tokens, padding included, that pass through the model at a time; 0: chosen by the memory"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    max_length_tokens: int = Field(1_024, ge=16, description="rows with more tokens are long rows")
    long_rows: Literal["drop", "truncate"] = Field(
        "drop", description="drop: long rows are left out; truncate: their answers are cut off; both are counted"
    )
    activation_checkpointing: bool = Field(
        False,
        description=(
            "compute activations again in the backward pass: less memory, about a third more time; LoRA on a CPU, "
            "which then has no fast way, takes nearly twice as long"
        ),
    )
    validation_rows: int = Field(0, ge=0, description="training rows held out to measure the loss on while training")
    validations: int = Field(4, ge=1, description="times an epoch that the validation loss is measured")
    patience: int = Field(
        0, ge=0, description="validations without a lower loss after which training stops early; 0: never"
    )
    replay: VersionDigest = Field(
        "",
        description="digest of a data version with general rows, which are trained on too so that less is forgotten",
    )
    replay_share: float = Field(0.1, gt=0, lt=1, description="share of the rows of every pass that are replayed")
    canaries: int = Field(
        0,
        ge=0,
        le=64,
        description="planted rows of made-up personal data, which must not come out of the candidate",
    )
    ewc_weight: float = Field(
        0.0, ge=0, description="elastic weight consolidation on the replay rows (full only); 0: off"
    )
    dpo_beta: float = Field(0.1, gt=0, description="dpo: how closely the model stays to where it started")
    teacher: str = Field("", description="distillation: the teacher, spelled as base_model.source")
    teacher_weight: float = Field(0.5, gt=0, le=1, description="distillation: the teacher's share of the loss")
    temperature: float = Field(1.0, gt=0, description="distillation: softens teacher and student alike")
    checkpoint_seconds: float = Field(300, ge=0, description="time between checkpoints; 0: after every step")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the device computes it, else fp16 on a GPU and fp32 on a CPU"
    )
    processes: int = Field(
        0, ge=0, le=1_024, description="training processes on each machine; 0: one for each GPU, and one on a CPU"
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="of several processes, none: each holds the whole model; fsdp: each holds a part of every layer",
    )
    nodes: int = Field(1, ge=1, le=1_024, description="machines that train together; see docs/distributed.md")
    main_address: str = Field("", description="several machines: this one's address, as the others reach it")
    main_port: int = Field(29_500, ge=1_024, le=65_535, description="several machines: the port they meet on")
    seed: int = Field(17, ge=0, description="initialisation and order of the rows")

    @property
    def chosen(self) -> Method:
        """The method's line of the table."""
        return METHODS[self.method]

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is named, or else the method's own."""
        return self.learning_rate or self.chosen.learning_rate

    @field_validator("teacher")
    @classmethod
    def _has_a_known_kind(cls, teacher: str) -> str:
        return checked_model_source(teacher) if teacher else teacher

    @field_validator("new_tokens")
    @classmethod
    def _are_different_and_visible(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tokens)) < len(tokens) or any(not token.strip() for token in tokens):
            raise ValueError("expected different tokens, none of them empty")
        return tokens

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingSection":
        problems = (self._objective_problem, self._method_problem, self._guard_problem, self._process_problem)
        problem = next(filter(None, (find() for find in problems)), "")
        if problem:
            raise ValueError(problem)
        return self

    def _objective_problem(self) -> str:
        if self.canaries and self.objective == "dpo":
            return "training.canaries are answers without a rejected one; expected 0 with training.objective dpo"
        if self.objective == "distillation" and not self.teacher:
            return "training.objective is distillation and training.teacher is empty; expected a model to learn from"
        if self.teacher and self.objective != "distillation":
            return (
                f"training.teacher is {self.teacher!r} and training.objective {self.objective}; expected distillation"
            )
        if self.new_tokens and self.objective == "distillation":
            return "training.new_tokens names tokens that training.teacher has no opinion on; expected none, or sft"
        return ""

    def _method_problem(self) -> str:
        method, name = self.chosen, self.method
        if self.target_modules and not method.adds_layers:
            return f"training.target_modules names layers, and training.method {name} adds none; leave it empty"
        if self.new_tokens and (method.has_virtual_tokens or name == "ia3"):
            return (
                f"training.new_tokens needs embeddings to be trained, and training.method {name} trains none; "
                "expected full or one of the lora methods without a prefix"
            )
        if self.new_tokens and name == "pissa":
            return (
                "training.new_tokens and training.method pissa cannot go together: peft saves pissa as a plain lora, "
                "without the tokens; expected full or another lora method"
            )
        if self.activation_checkpointing and name in ("prefix", "lora_prefix"):
            return (
                f"training.activation_checkpointing drops the keys and values that training.method {name} trains; "
                "turn it off, or choose prompt or p_tuning"
            )
        if self.precision == "fp16" and self.device == "cpu":
            return "training.precision is fp16 and training.device cpu; expected bf16, fp32 or auto there"
        return ""

    def _guard_problem(self) -> str:
        if self.ewc_weight and not self.chosen.trains_weights:
            return (
                f"training.ewc_weight guards the base's weights, and training.method {self.method} leaves them as they "
                "are; expected full, or 0"
            )
        if self.ewc_weight and not self.replay:
            return "training.ewc_weight needs training.replay: the rows whose answers are to be kept"
        if self.patience and not self.validation_rows:
            return "training.patience needs training.validation_rows to measure a loss on"
        return ""

    def _process_problem(self) -> str:
        if (self.nodes > 1) != bool(self.main_address):
            return (
                f"training.nodes is {self.nodes} and training.main_address {self.main_address!r}; expected an address "
                "if there are several machines, and only then"
            )
        if self.processes * self.nodes > self.batch_rows:
            return (
                f"training.batch_rows is {self.batch_rows}, and training.processes times training.nodes "
                f"{self.processes * self.nodes}; expected a row a process at least"
            )
        if self.sharding == "none":
            return ""
        if self.processes == 1 and self.nodes == 1:
            return "training.sharding is fsdp and training.processes 1; expected several processes to divide among"
        return f"training.sharding is fsdp {reason}" if (reason := self._unshardable()) else ""

    def _unshardable(self) -> str:
        method = self.method
        if method == "qlora":
            return "and training.method qlora, whose packed 4-bit weights cannot be divided; expected none, or lora"
        if self.chosen.has_virtual_tokens:
            return f"and training.method {method} trains little beside the model's layers; expected none"
        if method == "pissa":
            return "and training.method pissa, which is saved as a difference of whole matrices; expected none, or lora"
        if self.new_tokens and not self.chosen.trains_weights:
            return (
                f"and training.method {method} with training.new_tokens trains single rows of a matrix; expected none"
            )
        if self.precision == "fp16":
            return "and training.precision fp16, whose loss scaling each process would choose; expected bf16 or fp32"
        if self.ewc_weight:
            return (
                "and training.ewc_weight not 0, which holds a second and third copy of the weights; expected none, or 0"
            )
        return ""
