"""Files of lines that remember where each line begins, so that any of them is found without reading the file."""

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPEN_FILES = 256
_BATCH_LINES = 8_192


class LineWriter:
    """Writes lines and remembers offset and length of each, in bytes; `bytes` is the size of the file so far."""

    def __init__(self, path: Path) -> None:
        self.offsets = array("q")
        self.lengths = array("q")
        self._file = path.open("wb")
        self.bytes = 0

    def write(self, line: bytes) -> None:
        """Append a line, given with its line feed."""
        self._file.write(line)
        self.offsets.append(self.bytes)
        self.lengths.append(len(line))
        self.bytes += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()


class LineReader:
    """Reads single lines of several files by where they begin."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = list(files)
        self._open: dict[int, int] = {}

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Return a line of the file with this place in the list."""
        descriptor = self._open.get(file)
        if descriptor is None:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))  # the one that is open for the longest time
            descriptor = self._open[file] = os.open(self._files[file], os.O_RDONLY)
        return os.pread(descriptor, length, offset)

    def lines(
        self, file: "NDArray[np.integer]", offset: "NDArray[np.integer]", length: "NDArray[np.integer]"
    ) -> Iterator[bytes]:
        """Yield the lines that begin at these places, in this order; all arrays are (lines,)."""
        for start in range(0, len(file), _BATCH_LINES):
            here = slice(start, start + _BATCH_LINES)
            yield from map(self.read, file[here].tolist(), offset[here].tolist(), length[here].tolist())

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the files."""
        for descriptor in self._open.values():
            os.close(descriptor)


def batches_of_lines(path: Path, size: int) -> Iterator[list[bytes]]:
    """Yield the lines of a file, `size` at a time."""
    with path.open("rb") as file:
        while batch := [line for _, line in zip(range(size), file, strict=False)]:
            yield batch
