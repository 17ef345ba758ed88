"""A data set of the Hugging Face library, saved on disk or on the hub at one commit, never with code of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of, digest_of_file
from tasks.contracts.source_config import HuggingFaceSource
from tasks.data.shown import without_values
from tasks.data.sources.files import readable
from tasks.data.sources.materialised import open_materialised
from tasks.data.sources.shard import Shard

_BATCH_ROWS = 512


def open_dataset(source: HuggingFaceSource, index: int, config_key: str, cache: Path) -> tuple[list[Shard], list[Any]]:
    """Write the split's records to a chunk, unless one was made of the same files or commit.

    Returns:
        The pieces, and number and digest of all records.

    Raises:
        DataError: the data set or the split does not exist or cannot be read.
    """
    kind, _, place = source.source.partition(":")
    settings = {"kind": source.kind, "source": source.source, "split": source.split, "subset": source.subset}
    data_set = Path(place).name if kind == "dir" else place.partition("@")[0].replace("/", "-")
    with open_materialised(cache, settings, config_key) as chunks:
        content = _digest_of_folder(Path(place), source, config_key) if kind == "dir" else place
        if chunks.state.input != content:
            chunks.replace(_records(source, kind, place, config_key), content)
        return chunks.shards(index, f"{data_set}-{source.split}"), chunks.content()


def _digest_of_folder(folder: Path, source: HuggingFaceSource, config_key: str) -> str:
    with readable(str(folder), config_key):
        if not (folder / "state.json").is_file() and not (folder / "dataset_dict.json").is_file():
            raise DataError(
                f"{config_key} names {source.source!r}, which is no saved data set; expected a folder that "
                "save_to_disk wrote"
            )
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("cache-"))
        return digest_of([[path.relative_to(folder).as_posix(), digest_of_file(path)] for path in files])


def _records(source: HuggingFaceSource, kind: str, place: str, config_key: str) -> Iterator[dict[str, Any]]:
    import datasets
    import pyarrow as pa

    try:
        if kind == "dir":
            loaded: Any = datasets.load_from_disk(place, keep_in_memory=False)
            if isinstance(loaded, datasets.DatasetDict):
                if source.split not in loaded:
                    raise DataError(
                        f"{config_key} has the split {source.split!r}; expected one of {', '.join(map(repr, loaded))}"
                    )
                loaded = loaded[source.split]
        else:
            name, _, commit = place.partition("@")
            loaded = datasets.load_dataset(name, source.subset or None, split=source.split, revision=commit)
        for batch in loaded.with_format("arrow").iter(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()
    # The hub's client and the library raise what their layers raise: network, missing files, schema, Arrow.
    except (
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        pa.ArrowException,
        datasets.exceptions.DatasetsError,
    ) as error:
        reason = without_values(str(error), names=True)
        raise DataError(
            f"{config_key} names {source.source!r}, which cannot be read ({type(error).__name__}: {reason}); expected "
            "a data set on disk, or one on the hub that this machine can reach or has in its cache"
        ) from None  # what a library quotes would stand in the traceback
