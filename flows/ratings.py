"""People's ratings of a version: a blind sheet goes out, and what comes back is counted and kept with the version."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Preference, RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EvaluationError, RegistryError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import damage_of
from tasks.evaluation.ratings.count import people_s_preference
from tasks.evaluation.ratings.csv_sheet import csv_sheet, read_csv_sheet
from tasks.evaluation.ratings.kept import checked_person, gather, keep_ratings
from tasks.evaluation.ratings.page_sheet import page_sheet, read_saved_page
from tasks.evaluation.ratings.sheet import RatedPair, draw_sheet, find_key, keep_key, shown
from tasks.evaluation.side_by_side import read_side_by_side
from tasks.registry.people import record_people
from tasks.registry.versions import find_version, predictions_of

log = logging.getLogger("llm_retrain.ratings")


@dataclass(frozen=True)
class Exported:
    """A sheet that was written."""

    path: Path
    baseline: str
    rows: int
    identical: int


@dataclass(frozen=True)
class Counted:
    """What a sheet that was read back came to.

    Attributes:
        version: whose answers are the candidate's.
        by: the person.
        rated: rows that the person rated.
        unrated: rows that the person left out.
        preference: of all people so far.
    """

    version: int
    by: str
    rated: int
    unrated: int
    preference: Preference


def export_sheet(number: int, against: str | None, rows: int, out: Path, config: RetrainConfig, home: Home) -> Exported:
    """Write a blind sheet and keep its key.

    Args:
        number: the version.
        against: "base", the number of another version, or None for what the version was judged against.
        rows: to rate at most.
        out: a .csv or a .html file that is not there.
        config: where versions are registered.
        home: the state directory, which keeps the key.

    Raises:
        EvaluationError: there is nothing to rate, or the file cannot be written.
        RegistryError: a version does not exist, or its answers are lost.
    """
    make = {".csv": csv_sheet, ".html": page_sheet}.get(out.suffix.lower())
    if make is None:
        raise EvaluationError(f"--out is {str(out)!r}; expected a file that ends in .csv or .html")
    if out.exists():
        raise EvaluationError(f"--out is {str(out)!r}, which exists already; expected another name, or move it away")
    version = find_version(config.registry, number, home)
    baseline, pairs = pairs_to_rate(version, against, config, home)
    key, texts = draw_sheet(pairs, rows, (version.name, version.version, version.servable_digest, baseline))
    content = make(key, texts)
    keep_key(key, home.ratings)
    try:
        with out.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise EvaluationError(f"--out is {str(out)!r}, which cannot be written: {error.strerror}") from error
    return Exported(out, baseline, len(key.rows), len(key.identical))


def pairs_to_rate(
    version: RegisteredVersion, against: str | None, config: RetrainConfig, home: Home
) -> tuple[str, list[RatedPair]]:
    """Return the baseline's name, and both answers to every row that both can be judged on.

    Raises:
        EvaluationError: `against` is no baseline, or the two did not answer the same rows.
        RegistryError: a version does not exist, or its answers are lost.
    """
    before = version.tags["champion_before"]
    chosen = against or ("base" if version.tags["baseline"] == "base" else before)
    if chosen == "base" or (chosen == before and version.tags["baseline"] == "champion"):
        _refuse_damage(version, version.report_path)
        system = "base" if chosen == "base" else "champion"
        lines = read_jsonl(version.report_path / "predictions.jsonl")
        name = "base" if chosen == "base" else f"version {chosen}"
        return name, [shown(line["id"], line["prompt"], line["candidate"], line[system]) for line in lines]
    if not (chosen.isascii() and chosen.isdigit()) or int(chosen) == version.version:
        raise EvaluationError(f"--against is {chosen!r}; expected base, or the number of another version")
    return f"version {int(chosen)}", _pairs_of(version, find_version(config.registry, int(chosen), home))


def _pairs_of(version: RegisteredVersion, other: RegisteredVersion) -> list[RatedPair]:
    """Bring the answers of two versions together, without rows that either was trained on."""
    if version.tags["eval_digest"] != other.tags["eval_digest"]:
        raise EvaluationError(
            f"version {version.version} and version {other.version} did not answer the same rows; nothing can be rated"
        )
    learned = []
    for each in (version, other):
        for place in (each.predictions_path, each.dataset_path, *([each.replay_path] if each.replay_path else [])):
            _refuse_damage(each, place)
        learned += [place / "train.jsonl" for place in (each.dataset_path, each.replay_path) if place]
    answers = {"base": predictions_of(other), "candidate": predictions_of(version)}
    rows = read_side_by_side(answers, *dict.fromkeys(learned))
    columns = (rows.ids, rows.prompts, rows.answers["candidate"], rows.answers["base"])
    return [shown(*cells) for cells in zip(*columns, strict=True)]


def _refuse_damage(version: RegisteredVersion, path: Path) -> None:
    damage = damage_of(path)
    if damage:
        raise RegistryError(f"version {version.version} cannot be rated: {path} is lost or damaged ({damage})")


def read_sheet(path: Path, by: str, config: RetrainConfig, home: Home) -> Counted:
    """Read what a person filled in, count what all people said so far, and record it with the version.

    Args:
        path: a sheet's CSV, or the ratings.json that a sheet's page saved.
        by: the person; what this person said of the same sheet before is replaced.
        config: where the version is registered, and how intervals are made.
        home: the state directory that the sheet was exported from.

    Raises:
        EvaluationError: it is no sheet of this home, was changed, or holds no rating.
        RegistryError: the version is not there, or is another one.
    """
    by, read = checked_person(by), read_saved_page if path.suffix.lower() == ".json" else read_csv_sheet
    key, ratings = read(path, lambda sheet: find_key(sheet, home.ratings))
    if not ratings:
        raise EvaluationError(f"{path.name} holds no rating; expected A, B or tie in at least one row")
    if key.model != config.registry.model_name:
        raise EvaluationError(
            f"{path.name} is about {key.model!r}, and registry.model_name is {config.registry.model_name!r}; "
            "expected the same"
        )
    version = find_version(config.registry, key.version, home)
    if version.servable_digest != key.servable_digest:
        raise RegistryError(f"version {key.version} is not the one that {path.name} was exported for")
    keep_ratings(key, by, ratings, home.ratings)
    said = gather(key, home.ratings)
    found = people_s_preference(said.ratings, said.identical, said.unrated, key.baseline, config.evaluation)
    details: dict[str, Any] = {"ratings": said.ratings, "remarks": said.remarks}
    record_people(version, found, details, config.registry, home)
    return Counted(version.version, by, len(ratings), len(key.rows) - len(ratings), found)


def exported_facts(exported: Exported) -> dict[str, Any]:
    """Return plain JSON facts."""
    return {**asdict(exported), "path": str(exported.path)}
