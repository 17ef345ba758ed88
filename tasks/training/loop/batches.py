"""Which rows make an optimizer step, and which of them pass through the model together."""

import itertools
import random
from collections.abc import Iterator, Sequence

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.examples import Example


def batches_by_length(lengths: Sequence[int], batch_rows: int) -> list[list[int]]:
    """Group row numbers of similar length, so that little is padded; ties keep their order."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]


def plan_steps(lengths: Sequence[int], training: TrainingSection, own_rows: int | None = None) -> list[list[int]]:
    """Return the rows of every optimizer step: length-sorted batches, shuffled anew each epoch.

    Args:
        lengths: tokens of each row; first the rows of the data set, then those that are replayed.
        training: batch size, epochs, seed, and the share that is replayed.
        own_rows: how many of them are of the data set; None: all. Of the others every epoch draws its own.

    Raises:
        TrainingError: none is of the data set, so that no epoch would have a step.
    """
    own_rows = len(lengths) if own_rows is None else own_rows
    if not own_rows:
        raise TrainingError("there is no training row left to make steps of; expected 1 at least (data.sources)")
    shuffler = random.Random(training.seed)  # noqa: S311 - an order, not a secret
    replayed = _replayed_an_epoch(own_rows, len(lengths), training.replay_share)

    def epochs() -> Iterator[list[list[int]]]:
        while True:
            rows = [*range(own_rows), *sorted(shuffler.sample(range(own_rows, len(lengths)), replayed))]
            batches = [
                [rows[place] for place in batch]
                for batch in batches_by_length([lengths[row] for row in rows], training.batch_rows)
            ]
            yield shuffler.sample(batches, len(batches))

    total = max(1, round(-(-(own_rows + replayed) // training.batch_rows) * training.epochs))
    return list(itertools.islice(itertools.chain.from_iterable(epochs()), total))


def _replayed_an_epoch(own_rows: int, all_rows: int, share: float) -> int:
    return min(all_rows - own_rows, round(own_rows * share / (1 - share)))


def micro_batches(rows: Sequence[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Divide the rows of a step so that each part, padded to its longest row, has `most_tokens` at most.

    A row that alone is longer is a part of its own. With `most_tokens` 0 there is one part.
    """
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda each: (lengths[each], each)):
        if parts and (not most_tokens or (len(parts[-1]) + 1) * lengths[row] <= most_tokens):
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def padded_tokens(batch: Sequence[Example]) -> int:
    """Return rows × longest row: the tokens that pass through the model, padding included."""
    return len(batch) * max(len(example) for example in batch)
