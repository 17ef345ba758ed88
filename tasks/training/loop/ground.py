"""What the steps stand on and a checkpoint does not hold: the kind of device, the precision, PiSSA's first matrices.

A checkpoint of another ground is sound. It is refused and not set aside: whoever finds a GPU gone for a moment has not
given up its hours.
"""

from pathlib import Path

from tasks.contracts.errors import TrainingError
from tasks.training.loop.checkpoints import Checkpoint
from tasks.training.loop.trainee import Trainee


def ground_of(trainee: Trainee) -> dict[str, str]:
    """Return what a checkpoint says of the ground that its steps were taken on."""
    return {
        "device": trainee.place.device.type,
        "precision": str(trainee.place.dtype).removeprefix("torch."),
        "first_matrices": trainee.start_digest(),
    }


def check_ground(checkpoint: Checkpoint, ground: dict[str, str], folder: Path | None) -> None:
    """Refuse a checkpoint of another ground.

    Args:
        checkpoint: to be resumed from.
        ground: of this process.
        folder: of the checkpoints, for the message.

    Raises:
        TrainingError: the device, the precision or the first matrices are others.
    """
    saved = checkpoint.facts["ground"]
    before, now = (f"on {each['device']} in {each['precision']}" for each in (saved, ground))
    if before != now:
        raise TrainingError(
            f"step {checkpoint.step} of this training was computed {before}, and this process computes {now}; go on "
            f"where it was begun, or delete {folder} to begin anew"
        )
    if saved != ground:
        raise TrainingError(
            f"step {checkpoint.step} of this training was computed with other first matrices of PiSSA than this "
            "process finds; go on with the machine and the number of processes that it was begun with, or delete "
            f"{folder} to begin anew"
        )
