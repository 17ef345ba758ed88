"""A piece of a source that one process reads, and what is known of a source once it is open."""

from dataclasses import dataclass

SHARD_BYTES = 64 * 2**20
"""Size of the pieces a plain JSONL file is cut into."""
MAX_RECORD_BYTES = 8 * 2**20
"""A longer line or record is set aside unread: no row is that long, and it must not be held whole."""
EXCERPT_CHARS = 2_000
"""Of what is set aside, so much is kept to look at."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of a source, readable on its own in any process.

    Attributes:
        source_index: the source's place in its config key.
        name: the source of its rows; without directories, the same on any machine.
        path: the local file.
        start: first byte of a plain JSONL file, cut at line ends; first row group of a Parquet file.
        stop: where it ends (exclusive); None for the end of the file.
        file_format: jsonl, json, csv, tsv, parquet, docstrings, or unreadable (set aside as a whole).
        compression: none, gzip or zstd.
        encoding: of its text, a name Python knows.
        first_line: number of its first line (or record) in the file, from 1.
        stamp: size and time of the file when it was opened; a file with another one changed meanwhile.
        config_key: where the source stands in the configuration, for error messages.
        problem: of an unreadable file: reason and detail.
    """

    source_index: int
    name: str
    path: str
    start: int = 0
    stop: int | None = None
    file_format: str = "jsonl"
    compression: str = "none"
    encoding: str = "utf-8"
    first_line: int = 1
    stamp: str = ""
    config_key: str = "data.sources"
    problem: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class OpenedSource:
    """A source whose bytes are on this machine.

    Attributes:
        shards: its pieces.
        digest: of everything that determines its rows: content, names without directories, and the settings by which
            records become rows. The same in whatever order its files were found, and on any machine.
    """

    shards: list[Shard]
    digest: str


class BrokenFile(Exception):
    """A file that cannot be read on; it is set aside under `reason`. Never leaves the data stage."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Malformed:
    """A piece of a file that is no record.

    Attributes:
        reason: the name it is counted under.
        detail: what exactly is wrong.
        excerpt: its beginning.
    """

    reason: str
    detail: str
    excerpt: str = ""


def excerpt_of(piece: bytes) -> str:
    """Return the beginning of a malformed piece for people; one that is cut has exactly `EXCERPT_CHARS` characters."""
    return piece.lstrip()[: 4 * EXCERPT_CHARS].decode("utf-8", errors="replace").strip()[:EXCERPT_CHARS]
