"""The bytes of a file as UTF-8 (or another encoding whose lines end at 0x0A), whatever it is packed and encoded in.

Everything streams. A compressed file that grows out of all proportion is stopped before it costs an hour or a disk.
"""

import codecs
import io
from pathlib import Path
from typing import Any

from tasks.data.sources.shard import BrokenFile

BOMB = "compression bomb"
BROKEN = "broken file"

MAX_RATIO = 250
"""Bytes a compressed byte may become; JSON logs reach some dozens, a bomb made for gzip 1,030."""
UNSUSPICIOUS_BYTES = 16 * 2**20
"""Below this size no ratio is a bomb."""
BLOCK_BYTES = 2**20

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MARK = "\udcff"  # no text holds it, and its bytes are no UTF-8: the line is set aside when it is decoded


def compression_of(name: str, head: bytes) -> str:
    """Return none, gzip or zstd, by the first bytes of a file or else by its name."""
    for magic, compression in _MAGIC.items():
        if head.startswith(magic):
            return compression
    return _SUFFIXES.get(Path(name).suffix.lower(), "none")


def open_bytes(path: str, compression: str, transcode_from: str | None) -> io.BufferedReader:
    """Open a file for reading in blocks.

    Args:
        path: the file.
        compression: none, gzip or zstd.
        transcode_from: its encoding, if the bytes shall become UTF-8; what does not decode is no UTF-8 then either.

    Reading raises `BrokenFile` where the compressed data is damaged, cut short or a bomb.
    """
    raw: io.RawIOBase = io.FileIO(path) if compression == "none" else _Unpacked(path, compression)
    if transcode_from is not None:
        raw = _Transcoded(io.BufferedReader(raw, BLOCK_BYTES), transcode_from)
    return io.BufferedReader(raw, BLOCK_BYTES)


class _Unpacked(io.RawIOBase):
    """The content of a gzip or zstd file, of any number of members."""

    def __init__(self, path: str, compression: str) -> None:
        import pyarrow as pa

        self._file = io.FileIO(path)
        self._errors = (pa.ArrowException, OSError)
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), compression)
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        try:
            block = self._stream.read(len(target))
        except self._errors as error:
            where = f"after {self._bytes:,} unpacked bytes" if self._bytes else "nothing of it can be unpacked"
            raise BrokenFile(BROKEN, f"{where}: {error}") from error
        self._bytes += len(block)
        if self._bytes > max(UNSUSPICIOUS_BYTES, MAX_RATIO * self._file.tell()):
            raise BrokenFile(
                BOMB, f"{self._file.tell():,} bytes became {self._bytes:,}, more than {MAX_RATIO} for each"
            )
        target[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Transcoded(io.RawIOBase):
    """Text of any encoding as UTF-8; bytes that are no text become bytes that are no UTF-8."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        codecs.register_error("llm_retrain.mark", _mark)
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("llm_retrain.mark")
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._pending:
            block = self._source.read(BLOCK_BYTES // 4)
            self._pending = self._decoder.decode(block, final=not block).encode("utf-8", "surrogatepass")
            if not block:
                break
        count = min(len(target), len(self._pending))
        target[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _MARK, error.end
