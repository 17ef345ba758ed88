"""Data versions: what they hold and how two differ.

A data version is a finished data set in the store, named by its digest: the same rows and settings have the same digest
on any machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.evaluation_sets import evaluation_digest
from tasks.contracts.jsonl import digest_of
from tasks.contracts.store import Entry, Store, damage_of
from tasks.contracts.twins import folded
from tasks.data.rows import Row, answer_of, is_made, prompt_of

SPLITS = ("train", "eval")
KINDS = ("training", "made", "evaluation")
"""What a row is there for: trained on as it was read, made of such a row and trained on, or evaluated."""
LENGTH_EDGES = (50, 100, 200, 400, 800, 1_600, 3_200, 6_400)
"""Upper ends of the length classes, in characters; the last class has no end."""


@dataclass(frozen=True)
class Profile:
    """How the rows of a version are distributed.

    Attributes:
        rows: kind of `KINDS` → rows.
        slices: slice → kind → rows; the slice with most rows first.
        prompt_chars: rows in each length class of `LENGTH_EDGES`, by the characters of the prompt.
        answer_chars: the same of the answer.
        mean_prompt_chars: mean length of a prompt.
        mean_answer_chars: mean length of an answer.
    """

    rows: dict[str, int]
    slices: dict[str, dict[str, int]]
    prompt_chars: list[int]
    answer_chars: list[int]
    mean_prompt_chars: float
    mean_answer_chars: float


@dataclass(frozen=True)
class Difference:
    """How two versions differ, in all their rows.

    Attributes:
        added: ids of rows whose prompt only the second has.
        added_made: how many of them were made of training rows.
        removed: ids of rows whose prompt only the first has.
        changed: ids (first, second) of rows with one prompt and another answer.
        moved: ids of rows that went from training to evaluation or back.
        same: rows that are in both, in the same split.
        profiles: of the first and of the second.
    """

    added: list[str]
    added_made: int
    removed: list[str]
    changed: list[tuple[str, str]]
    moved: list[str]
    same: int
    profiles: tuple[Profile, Profile]


def data_versions(store: Store) -> list[Entry]:
    """Return all data versions, the one made last at the end.

    Builds of other inputs may make the same files, which are one version; the newest of them speaks for it.
    """
    builds = sorted(store.entries("dataset"), key=lambda entry: (entry.made_at, entry.key))
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
    if not damage and evaluation_digest(rows_of(found, "eval")) != found.facts["eval_digest"]:
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
    """Count the rows of a version by kind, slice and length."""
    rows = dict.fromkeys(KINDS, 0)
    slices: dict[str, dict[str, int]] = {}
    prompts, answers = [0] * (len(LENGTH_EDGES) + 1), [0] * (len(LENGTH_EDGES) + 1)
    prompt_chars = answer_chars = 0
    for split in SPLITS:
        for row in rows_of(version, split):
            kind = "evaluation" if split == "eval" else "made" if is_made(row) else "training"
            rows[kind] += 1
            slices.setdefault(row["slice"], dict.fromkeys(KINDS, 0))[kind] += 1
            prompt = sum(len(message["content"]) for message in prompt_of(row))
            answer = len(answer_of(row))
            prompt_chars, answer_chars = prompt_chars + prompt, answer_chars + answer
            prompts[_length_class(prompt)] += 1
            answers[_length_class(answer)] += 1
    total = max(1, sum(rows.values()))
    largest_first = dict(sorted(slices.items(), key=lambda item: (-sum(item[1].values()), item[0])))
    return Profile(rows, largest_first, prompts, answers, prompt_chars / total, answer_chars / total)


def slices_of(profiles: Sequence[Profile]) -> list[str]:
    """Return the slices of some profiles, the largest of the last one first."""
    names = sorted({name for each in profiles for name in each.slices})
    return sorted(names, key=lambda name: -sum(profiles[-1].slices.get(name, {}).values()))


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
    added = set(come) - answered_anew[1]
    return Difference(
        added=sorted(added),
        added_made=sum(row["id"] in added and is_made(row) for row in rows_of(second, "train")),
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
