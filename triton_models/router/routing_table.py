"""The routing table: which Triton model answers for the stable name. Written by the roll-out, read here."""

import json
from collections.abc import Callable
from pathlib import Path


class RoutingTable:
    """Reads the routing file again whenever it changes, and keeps the last good table when it cannot be read."""

    def __init__(self, path: Path, log_error: Callable[[str], None]) -> None:
        self._path = path
        self._log_error = log_error
        self._signature: tuple[int, int, int] | None = None
        self._champion: str | None = None

    def champion(self, read_again: bool = False) -> str | None:
        """Return the name of the Triton model that answers; None before the first promotion.

        Args:
            read_again: read the file even if it looks unchanged.
        """
        signature = self._signature_on_disk()
        if read_again or signature != self._signature:
            self._signature = signature
            self._read()
        return self._champion

    def _signature_on_disk(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> None:
        try:
            champion = json.loads(self._path.read_text(encoding="utf-8"))["champion"]
            if champion is not None and not isinstance(champion, str):
                raise ValueError(f"champion is {champion!r}; expected a model name or null")
        except (OSError, ValueError, KeyError, TypeError) as error:
            kept = f"{self._champion} goes on answering" if self._champion else "no model answers yet"
            self._log_error(f"routing table {self._path} cannot be read ({error!r}); {kept}")
            return
        self._champion = champion
