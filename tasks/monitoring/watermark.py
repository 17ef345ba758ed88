"""How far each source of requests was judged: one drift starts one retraining.

Only a verdict that drifted moves the mark. Requests that showed no drift stay in the window and add to the evidence;
requests that did are spent, so that they do not trigger again after the retraining they started.
"""

import json
import math
import os
import tempfile
from pathlib import Path

from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.monitoring.requests import RequestWindow


def watermark_path(model_name: str, home: Home) -> Path:
    """Return the file that holds the marks of a served model."""
    return home.root / "monitor" / f"{model_name}.json"


def judged_until(source: Path, model_name: str, home: Home) -> float:
    """Return when the last request of `source` that a drifted verdict judged was logged.

    In seconds since the epoch; minus infinity if there is none.

    Raises:
        DataError: the file is there and cannot be understood.
    """
    return _read(watermark_path(model_name, home)).get(str(source), -math.inf)


def mark_judged(window: RequestWindow, model_name: str, home: Home) -> None:
    """Spend the requests of `window`; the marks of other sources stay. The file is replaced whole."""
    path = watermark_path(model_name, home)
    marks = {**_read(path), str(window.source): window.last_time_seconds}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"judged_until_seconds": marks}, file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, float]:
    try:
        marks = json.loads(path.read_text(encoding="utf-8"))["judged_until_seconds"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the monitor's watermark ({error}); delete it to judge the logged requests again"
        ) from error
    if not isinstance(marks, dict) or not all(isinstance(mark, int | float) for mark in marks.values()):
        raise DataError(
            f"{path} holds {marks!r}; expected seconds since the epoch for each source: "
            "delete it to judge the logged requests again"
        )
    return marks
