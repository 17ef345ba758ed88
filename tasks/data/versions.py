"""Data versions: what they hold and how two differ.

A data version is a finished data set in the store, named by its digest: the same rows and settings have the same digest
on any machine.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of
from tasks.contracts.store import Entry, Store, damage_of
from tasks.contracts.twins import folded
from tasks.data.rows import Row, answer_of, prompt_of

SPLITS = ("train", "eval")
LENGTH_EDGES = (50, 100, 200, 400, 800, 1_600, 3_200, 6_400)
"""Upper ends of the length classes, in characters; the last class has no end."""
_DRAWN_SLICES = 20


@dataclass(frozen=True)
class Profile:
    """How the rows of a version are distributed.

    Attributes:
        rows: split → rows.
        slices: slice → rows.
        prompt_chars: rows in each length class of `LENGTH_EDGES`, by the characters of the prompt.
        answer_chars: the same of the answer.
        mean_prompt_chars: mean length of a prompt.
        mean_answer_chars: mean length of an answer.
    """

    rows: dict[str, int]
    slices: dict[str, int]
    prompt_chars: list[int]
    answer_chars: list[int]
    mean_prompt_chars: float
    mean_answer_chars: float


@dataclass(frozen=True)
class Difference:
    """How two versions differ, in all their rows.

    Attributes:
        added: ids of rows whose prompt only the second has.
        removed: ids of rows whose prompt only the first has.
        changed: ids (first, second) of rows with one prompt and another answer.
        moved: ids of rows that went from training to evaluation or back.
        same: rows that are in both, in the same split.
        profiles: of the first and of the second.
    """

    added: list[str]
    removed: list[str]
    changed: list[tuple[str, str]]
    moved: list[str]
    same: int
    profiles: tuple[Profile, Profile]


def data_versions(store: Store) -> list[Entry]:
    """Return all data versions, the newest last.

    Builds of other inputs may make the same files, which are one version; the newest of them speaks for it.
    """
    builds = sorted(
        store.entries("dataset"), key=lambda entry: ((entry.path / "manifest.json").stat().st_mtime, entry.key)
    )
    newest = {build.digest: build for build in builds}
    return [build for build in builds if newest[build.digest] is build]


def find_dataset(store: Store, digest: str, config_key: str) -> Entry:
    """Return the data version whose digest begins with `digest`.

    Raises:
        DataError: there is none, or there are several.
    """
    versions = data_versions(store)
    if not versions:
        raise DataError(
            f"{config_key} is {digest!r}, and there is no data version yet; make one with llm-retrain data build"
        )
    found = [version for version in versions if version.digest.startswith(digest)]
    if len(found) != 1:
        known = f"{len(found)} data versions begin with that" if found else "no data version has that digest"
        raise DataError(f"{config_key} is {digest!r}: {known}; expected one that llm-retrain data show lists")
    return found[0]


def frozen_dataset(store: Store, digest: str) -> Entry:
    """Return the data version whose evaluation rows data.frozen_evaluation keeps.

    Raises:
        DataError: there is none, there are several, or its files are not those that were written.
    """
    found = find_dataset(store, digest, "data.frozen_evaluation")
    damage = damage_of(found.path)
    if not damage and digest_of([row["id"] for row in rows_of(found, "eval")]) != found.facts["eval_digest"]:
        damage = "its manifest has another digest of the evaluation rows"
    if damage:
        raise DataError(
            f"data.frozen_evaluation is {digest!r}, and that version was changed after it was made ({damage}); "
            f"expected the files as they were written: restore {found.path} or name another data version"
        )
    return found


def chosen_version(store: Store, digest: str) -> Entry:
    """Return the version whose digest begins with `digest`; the newest if it is empty.

    Raises:
        DataError: there is none, or there are several.
    """
    if digest:
        return find_dataset(store, digest, "the data version")
    versions = data_versions(store)
    if not versions:
        raise DataError("there is no data version yet; make one with llm-retrain data build")
    return versions[-1]


def rows_of(version: Entry, split: str) -> Iterator[Row]:
    """Yield the rows of a version's training or evaluation split, by id."""
    with (version.path / f"{split}.jsonl").open("rb") as file:
        yield from map(orjson.loads, file)


def sample_rows(version: Entry, split: str, count: int) -> list[Row]:
    """Return the first rows of a split."""
    return list(islice(rows_of(version, split), count))


def profile(version: Entry) -> Profile:
    """Count the rows of a version by split, slice and length."""
    rows: dict[str, int] = {}
    slices: Counter[str] = Counter()
    prompts, answers = [0] * (len(LENGTH_EDGES) + 1), [0] * (len(LENGTH_EDGES) + 1)
    prompt_chars = answer_chars = 0
    for split in SPLITS:
        rows[split] = 0
        for row in rows_of(version, split):
            rows[split] += 1
            slices[row["slice"]] += 1
            prompt = sum(len(message["content"]) for message in prompt_of(row))
            answer = len(answer_of(row))
            prompt_chars, answer_chars = prompt_chars + prompt, answer_chars + answer
            prompts[_length_class(prompt)] += 1
            answers[_length_class(answer)] += 1
    total = max(1, sum(rows.values()))
    return Profile(rows, dict(slices.most_common()), prompts, answers, prompt_chars / total, answer_chars / total)


def slices_of(profiles: Sequence[Profile]) -> list[str]:
    """Return the slices of some profiles, the largest of the last one first."""
    names = sorted({name for each in profiles for name in each.slices})
    return sorted(names, key=lambda name: -profiles[-1].slices.get(name, 0))


def compare(first: Entry, second: Entry) -> Difference:
    """Say how the rows of two versions differ."""
    before, after = _places(first), _places(second)
    gone = {row_id: prompt for row_id, (_, prompt) in before.items() if row_id not in after}
    come = {row_id: prompt for row_id, (_, prompt) in after.items() if row_id not in before}
    waiting: dict[str, list[str]] = {}
    for row_id, prompt in sorted(come.items()):
        waiting.setdefault(prompt, []).append(row_id)
    changed = []
    for row_id, prompt in sorted(gone.items()):
        if waiting.get(prompt):
            changed.append((row_id, waiting[prompt].pop(0)))
    answered_anew = {old for old, _ in changed}, {new for _, new in changed}
    moved = sorted(row_id for row_id, (split, _) in before.items() if row_id in after and after[row_id][0] != split)
    return Difference(
        added=sorted(set(come) - answered_anew[1]),
        removed=sorted(set(gone) - answered_anew[0]),
        changed=changed,
        moved=moved,
        same=len(before) - len(gone) - len(moved),
        profiles=(profile(first), profile(second)),
    )


def _places(version: Entry) -> dict[str, tuple[str, str]]:
    """Return the split and the digest of the folded prompt of each row, by id."""
    return {
        row["id"]: (split, digest_of(folded(prompt_of(row)))[:32])
        for split in SPLITS
        for row in rows_of(version, split)
    }


def _length_class(chars: int) -> int:
    return next((number for number, edge in enumerate(LENGTH_EDGES) if chars <= edge), len(LENGTH_EDGES))


def write_plot(path: Path, names: list[str], profiles: list[Profile]) -> None:
    """Draw slices and lengths of one or two versions side by side, as PNG, SVG or PDF by the name of `path`.

    Raises:
        DataError: the file's name has no such ending, or it cannot be written.
    """
    from matplotlib.figure import Figure

    if path.suffix not in (".png", ".svg", ".pdf"):
        raise DataError(f"--plot is {str(path)!r}; expected a file that ends in .png, .svg or .pdf")
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(3, 1)
    slices = slices_of(profiles)
    shown = slices[:_DRAWN_SLICES]
    labels = [*(f"≤{edge}" for edge in LENGTH_EDGES), f">{LENGTH_EDGES[-1]}"]
    width = 0.8 / len(profiles)
    for number, (name, each) in enumerate(zip(names, profiles, strict=True)):
        series = ([each.slices.get(key, 0) for key in shown], each.prompt_chars, each.answer_chars)
        for axis, values in zip(axes, series, strict=True):
            axis.bar([place + number * width for place in range(len(values))], values, width, label=name)
    titles = (
        "rows by slice" + ("" if len(slices) <= 20 else " (the 20 largest)"),
        "prompt, characters",
        "answer, characters",
    )
    for axis, title, ticks in zip(axes, titles, (shown, labels, labels), strict=True):
        axis.set_title(title)
        axis.set_xticks([place + 0.4 - width / 2 for place in range(len(ticks))], ticks, rotation=30, ha="right")
        axis.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise DataError(f"--plot is {str(path)!r}, which cannot be written ({error.strerror})") from error
