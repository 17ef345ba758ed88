"""Whether the records of a source have the fields that its section names: a typing error must not lose text silently.

A field that only some records have is nothing unusual; one that none has is a mistake.
"""

from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import Source, SourceSection
from tasks.data.rows import Row
from tasks.data.shown import shown_name

_SHOWN_NAMES = 12


class PartColumns:
    """Looks for the named paths in the records of one piece of a source, each until it is found.

    Attributes:
        unseen: paths that no record had so far.
        records: objects that were looked at or counted.
    """

    def __init__(self, source: Source) -> None:
        self.unseen = named_paths(source)
        self._named = list(self.unseen)
        self._found: list[str] = []
        self.records = 0

    def look(self, record: Any) -> None:
        """Look at a record; what is no object has no fields."""
        if not isinstance(record, dict):
            return
        if not self.records:
            self._found = _names_in(record)
        self.records += 1
        if self.unseen:
            self.unseen = [path for path in self.unseen if not _has(record, path)]

    def facts(self) -> dict[str, Any]:
        """Return `records`, `seen` (named paths that a record had) and `found` (fields of the first record)."""
        seen = [path for path in self._named if path not in self.unseen]
        return {"records": self.records, "seen": seen, "found": self._found}


class SourceColumns:
    """What the parts of one source say of the paths that its section names."""

    def __init__(self, source: Source, config_key: str) -> None:
        self._named, self._config_key = named_paths(source), config_key
        self._parts: dict[int, dict[str, Any]] = {}

    def add(self, number: int, part: dict[str, Any]) -> None:
        """Count a part that was read, by its `columns`: the facts of its `PartColumns`."""
        self._parts[number] = part["columns"]

    def check(self) -> None:
        """Pass if each named path is in a record of the whole source, or there is no record.

        Raises:
            DataError: a path is in none of them; names it and what was found instead.
        """
        if missing := self._missing(""):
            raise DataError(missing)

    def explained(self, error: DataError) -> DataError:
        """Return the error that stopped the source early, with the paths that no record had until then."""
        missing = self._missing(" that were read")
        return DataError(f"{error}; {missing}") if missing else error

    def _missing(self, read_so_far: str) -> str:
        records = sum(part["records"] for part in self._parts.values())
        seen = {path for part in self._parts.values() for path in part["seen"]}
        missing = [path for path in self._named if path not in seen]
        if not records or not missing:
            return ""
        found = next(part["found"] for _, part in sorted(self._parts.items()) if part["records"])
        names = ", ".join(map(repr, missing))
        records_read = f"{records:,} record{'' if records == 1 else 's'}" + read_so_far
        return (
            f"{self._config_key} names the column{'s' if missing[1:] else ''} {names} (columns, slice_column), which "
            f"{'are' if missing[1:] else 'is'} in none of {records_read}; "
            f"found {', '.join(found) or 'no field'}"
        )


def named_paths(source: Source) -> list[str]:
    """Return the paths that `columns` and `slice_column` of a source name, each once."""
    if not isinstance(source, SourceSection):
        return []
    paths = [path.strip() for joined in source.columns.values() for path in joined.split(" + ")]
    return list(dict.fromkeys([*paths, *([source.slice_column] if source.slice_column else [])]))


def _has(record: Row, path: str) -> bool:
    """Whether a record has a field, whatever its value; where a null or an empty list stands in its way, it may."""
    if path in record:
        return True
    value: Any = record
    for place, part in enumerate(path.split(".")):
        if place and (value is None or value == []):
            return True
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 7 and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return True


def _names_in(record: Row) -> list[str]:
    """Return the fields of a record for people, those of an object in it by their path."""
    names: list[str] = []
    for name, value in record.items():
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) and value else [str(name)]
        if len(names) > _SHOWN_NAMES:
            break
    shown = [shown_name(name) for name in names[:_SHOWN_NAMES]]  # without a header line they are somebody's data
    return [*shown, "…"] if len(names) > _SHOWN_NAMES else shown
