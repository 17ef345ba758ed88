"""The training methods: what each makes, where it starts, and which engines serve what it makes.

The one table that the configuration, the training process, the build and the documentation go by.
"""

from dataclasses import dataclass
from typing import Literal, get_args

MethodName = Literal[
    "lora", "rslora", "dora", "pissa", "qlora", "ia3", "prefix", "prompt", "p_tuning", "lora_prefix", "full"
]
Part = Literal["layers", "virtual tokens", "weights"]


@dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Attributes:
        title: its name in the literature.
        parts: what is trained: layers added to the base's own, virtual tokens before the prompt, or the weights.
        learning_rate: the peak that is taken where the configuration names none.
        engines: the serving engines that can serve what it makes.
        source: where it was published.
    """

    title: str
    parts: tuple[Part, ...]
    learning_rate: float
    engines: tuple[str, ...]
    source: str

    @property
    def adds_layers(self) -> bool:
        """Whether layers are added, which the build merges into the base's weights."""
        return "layers" in self.parts

    @property
    def has_virtual_tokens(self) -> bool:
        """Whether keys and values stand before the prompt, which no merge can put into weights."""
        return "virtual tokens" in self.parts

    @property
    def trains_weights(self) -> bool:
        """Whether the base's own weights are trained."""
        return "weights" in self.parts


_MERGED, _PREFIXED = ("onnx", "transformers"), ("transformers",)

METHODS: dict[MethodName, Method] = {
    "lora": Method("LoRA", ("layers",), 5e-4, _MERGED, "Hu et al., 2021"),
    "rslora": Method("rank-stabilised LoRA", ("layers",), 2e-4, _MERGED, "Kalajdzievski, 2023"),
    "dora": Method("DoRA", ("layers",), 5e-4, _MERGED, "Liu et al., 2024"),
    "pissa": Method("PiSSA", ("layers",), 2e-4, _MERGED, "Meng et al., 2024"),
    "qlora": Method("QLoRA", ("layers",), 5e-4, _MERGED, "Dettmers et al., 2023"),
    "ia3": Method("IA³", ("layers",), 8e-3, _MERGED, "Liu et al., 2022"),
    "prefix": Method("prefix tuning", ("virtual tokens",), 3e-2, _PREFIXED, "Li and Liang, 2021"),
    "prompt": Method("prompt tuning", ("virtual tokens",), 1e-1, _PREFIXED, "Lester et al., 2021"),
    "p_tuning": Method("P-tuning", ("virtual tokens",), 1e-2, _PREFIXED, "Liu et al., 2021"),
    "lora_prefix": Method("LoRA with a prefix", ("layers", "virtual tokens"), 5e-4, _PREFIXED, "He et al., 2022"),
    "full": Method("full fine-tuning", ("weights",), 5e-5, _MERGED, ""),
}
assert set(METHODS) == set(get_args(MethodName))

LORA_METHODS: tuple[MethodName, ...] = ("lora", "rslora", "dora", "pissa", "qlora", "lora_prefix")
"""Methods whose layers have a rank."""
