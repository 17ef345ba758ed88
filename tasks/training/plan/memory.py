"""The memory of a training by part."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.contracts.training_config import TrainingSection
from tasks.training.plan.rehearsal import Rehearsed

FIRST_USE_BYTES = 45_000_000
"""Code of the libraries that comes into memory when kernels are called for the first time (DECISIONS.md)."""
PRODUCT_BYTES = 700_000
"""Code that oneDNN makes for a product of 16-bit matrices of one shape (DECISIONS.md)."""
UNUSED_SHARE = {"cpu": 0.2, "cuda": 0.05}
"""What the allocator holds beside the tensors of a step, as a share of them. cpu: holes of glibc's heap, with the
settings of `fast/runtime.py`; set on 43 trainings, tried on others (DECISIONS.md). cuda: torch rounds blocks up; not
measured by us."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of a training when they are most.

    Attributes:
        process: the interpreter and its libraries, before anything of the training is there; 0 on a GPU.
        weights: the base, frozen or not, with what the method adds; and a teacher.
        masters: fp32 copies of what is trained in another precision.
        gradients: of what is trained.
        optimizer: AdamW's two moments.
        guards: copies that early stopping and elastic weight consolidation keep.
        activations: what the forward pass keeps for the backward pass, and what an operation works on.
        attention: scores, where eager attention is taken.
        logits: at the answers' tokens, in the model's precision and in fp32, with their gradient.
        reserve: what the libraries and the allocator take beside the tensors.
        loading: the whole process while the weights come from the disk; more than the rest only for short rows.
    """

    process: int
    weights: int
    masters: int
    gradients: int
    optimizer: int
    guards: int
    activations: int
    attention: int
    logits: int
    reserve: int
    loading: int

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part, of the optimizer steps."""
        return {name: size for name, size in asdict(self).items() if name != "loading"}

    @property
    def total(self) -> int:
        """The peak, in bytes."""
        return max(sum(self.parts.values()), self.loading)


def memory_of(
    rehearsed: Rehearsed, training: TrainingSection, process: int, files: int, code: int, shards: int = 1
) -> Memory:
    """Return the memory of a training whose largest micro-batch was rehearsed.

    Args:
        rehearsed: its tensors.
        training: which guards there are.
        process: bytes of the process so far; 0 on a GPU.
        files: bytes of the base's weight files.
        code: bytes of what is made for products of other shapes than the rehearsed ones.
        shards: processes that weights, gradients and the optimizer's state are divided among.
    """
    at_peak, resident = rehearsed.at_peak, rehearsed.resident
    on_cpu = process > 0
    kept = rehearsed.kept_bytes if on_cpu else 0
    passing = sum(at_peak.get(kind, 0) for kind in ("activations", "attention", "logits", "gradients"))
    guards = 4 * rehearsed.trained_parameters // shards * (bool(training.patience) + 2 * bool(training.ewc_weight))
    return Memory(
        process=process,
        weights=resident["weights"] // shards,
        masters=resident.get("masters", 0) // shards,
        gradients=at_peak.get("gradients", 0) // shards,
        optimizer=resident.get("optimizer", 0) // shards,
        guards=guards,
        activations=at_peak.get("activations", 0),
        attention=at_peak.get("attention", 0),
        logits=at_peak.get("logits", 0),
        reserve=code
        + kept
        + (FIRST_USE_BYTES if on_cpu else 0)
        + int(UNUSED_SHARE["cpu" if on_cpu else "cuda"] * passing),
        # The files are mapped: their pages count while they are copied, and stay if nothing has to be converted.
        loading=process + resident["weights"] + files if on_cpu else 0,
    )


def weight_file_bytes(base: Path) -> int:
    """Return the size of a model's safetensors."""
    return sum(path.stat().st_size for path in base.glob("*.safetensors"))
