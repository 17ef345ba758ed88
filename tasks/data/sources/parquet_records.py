"""Records of a Parquet file, batch by batch of bounded size, whatever the file says of itself.

What a footer declares is checked before anything is decoded. What is decoded is counted: text stays in its dictionary,
so a value that is written once and repeated a million times is in memory once, and a file that goes on growing out of
proportion is stopped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.data.sources.byte_stream import BOMB, BROKEN, MAX_RATIO, UNSUSPICIOUS_BYTES
from tasks.data.sources.json_lines import TOO_LONG
from tasks.data.sources.shard import MAX_RECORD_BYTES, SHARD_BYTES, BrokenFile, Malformed

MAX_GROUP_BYTES = 2**31
"""Declared size of a row group, unpacked: larger ones cannot be read in bounded memory."""
MAX_COLUMNS = 2_000
_BATCH_BYTES = 2**24
_NESTED_BYTES = 2**26
_BATCH_ROWS = 1_024
_PAGE_BUFFER_BYTES = 2**20


def row_groups_of(path: Path) -> list[tuple[int, int, int]]:
    """Return pieces of about 64 MiB: first row group, last (exclusive), and the number of the first row, from 1.

    Raises:
        BrokenFile: the footer cannot be read, or declares what no honest file of this size holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path, memory_map=False)
        sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BrokenFile(BROKEN, f"no readable Parquet footer: {error}") from error
    _check_declared(metadata, sizes, rows, path.stat().st_size)
    pieces: list[tuple[int, int, int]] = []
    start, first_row, piece_bytes, row = 0, 1, 0, 1
    for group, (size, group_rows) in enumerate(zip(sizes, rows, strict=True)):
        if piece_bytes and piece_bytes + size > SHARD_BYTES:
            pieces.append((start, group, first_row))
            start, first_row, piece_bytes = group, row, 0
        piece_bytes += size
        row += group_rows
    return [*pieces, (start, len(sizes), first_row)]


def read_parquet_records(
    path: Path, start: int, stop: int | None, first_row: int
) -> Iterator[tuple[int, dict[str, Any] | Malformed]]:
    """Yield number and record of each row of the row groups from `start` to `stop`.

    Raises:
        BrokenFile: the file is damaged, or its content is not what its footer says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = first_row
    try:
        schema = pq.read_schema(path, memory_map=False)
        kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
        texts = [field.name for field in schema if any(known(field.type) for known in kinds)]
        with pq.ParquetFile(
            path,
            read_dictionary=texts,
            buffer_size=_PAGE_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            groups = range(start, file.metadata.num_row_groups if stop is None else stop)
            budget = _Budget(path.stat().st_size)
            for group in groups:
                declared = file.metadata.row_group(group)
                last = number + declared.num_rows
                for batch in file.iter_batches(batch_size=_batch_rows(declared), row_groups=[group], use_threads=False):
                    budget.spend(batch)
                    for record in _records_of(batch):
                        yield number, record
                        number += 1
                if number != last:
                    raise BrokenFile(
                        BROKEN, f"row group {group} declares {declared.num_rows:,} rows, not what it holds"
                    )
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BrokenFile(BROKEN, f"at row {number:,}: {error}") from error


def _batch_rows(group: Any) -> int:
    """Return how many rows are decoded at a time."""
    rows = min(_BATCH_ROWS, _BATCH_BYTES // max(1, group.total_byte_size // max(1, group.num_rows)))
    # Inside lists and structs no text stays in its dictionary: each row may repeat the largest value of it.
    columns = [group.column(number) for number in range(group.num_columns)]
    nested = [column for column in columns if "." in column.path_in_schema and column.has_dictionary_page]
    largest = max((column.total_uncompressed_size for column in nested), default=0)
    return int(max(16, min(rows, _NESTED_BYTES // max(1, largest))))


class _Budget:
    """What a file may become when it is decoded."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._decoded_bytes = 0

    def spend(self, batch: Any) -> None:
        self._decoded_bytes += sum(map(_decoded_bytes, batch.columns))
        if self._decoded_bytes > max(UNSUSPICIOUS_BYTES, MAX_RATIO * self._file_bytes):
            raise BrokenFile(
                BOMB, f"{self._file_bytes:,} bytes became {self._decoded_bytes:,}, more than {MAX_RATIO} for each"
            )


def _decoded_bytes(column: Any) -> int:
    """Return the bytes of a column with the words of a dictionary in their places."""
    import pyarrow.compute as pc

    if not hasattr(column, "indices"):
        return int(column.nbytes)
    return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _records_of(batch: Any) -> Iterator[dict[str, Any] | Malformed]:
    names = batch.schema.names
    if len(set(names)) < len(names):
        raise BrokenFile(BROKEN, "two columns have one name")
    columns = [_values_of(column) for column in batch.columns]
    sizes_matter = batch.nbytes > MAX_RECORD_BYTES
    for values in zip(*columns, strict=True):
        record = dict(zip(names, values, strict=True))
        if sizes_matter and (chars := sum(map(len, _texts_in(record)))) > MAX_RECORD_BYTES:
            # The longest is what tells the record from others; the first may be a role or a number.
            shown = max(_texts_in(record), key=len)[:2_000]
            yield Malformed(TOO_LONG, f"{chars:,} characters, at most {MAX_RECORD_BYTES:,} are read", shown)
        else:
            yield record


def _values_of(column: Any) -> list[Any]:
    """Return the values of a column; those of a dictionary are one object each, however often they stand there."""
    if not hasattr(column, "indices"):
        return column.to_pylist()  # type: ignore[no-any-return]
    import pyarrow as pa

    indices = column.indices.to_pylist()
    used = list(set(indices) - {None})
    words = dict(zip(used, column.dictionary.take(pa.array(used, pa.int64())).to_pylist(), strict=True))
    return [None if index is None else words[index] for index in indices]


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a record, also those inside of objects, lists and maps (which are lists of pairs)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_in(each)


def _check_declared(metadata: Any, sizes: list[int], rows: list[int], file_bytes: int) -> None:
    if metadata.num_columns > MAX_COLUMNS:
        raise BrokenFile(BROKEN, f"{metadata.num_columns:,} columns are declared, at most {MAX_COLUMNS:,} are read")
    if any(size < 0 or size > MAX_GROUP_BYTES for size in sizes):
        raise BrokenFile(
            BROKEN, f"a row group of {max(sizes, key=abs):,} bytes is declared, at most {MAX_GROUP_BYTES:,} are read"
        )
    if sum(sizes) > max(UNSUSPICIOUS_BYTES, MAX_RATIO * file_bytes):
        raise BrokenFile(BOMB, f"{file_bytes:,} bytes declare to be {sum(sizes):,}, more than {MAX_RATIO} for each")
    if any(count < 0 for count in rows) or sum(rows) != metadata.num_rows:
        raise BrokenFile(
            BROKEN, f"{metadata.num_rows:,} rows are declared, the row groups hold {sum(max(0, n) for n in rows):,}"
        )
