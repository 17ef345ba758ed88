"""What to change where nothing is left to train on or to evaluate on: the setting or the step that took most."""

from collections.abc import Iterator, Sequence

from tasks.contracts.config import DataSection
from tasks.data.cleaning.line import CONVERSATION
from tasks.data.division.split import DUPLICATE, NEAR_DUPLICATE, NEAR_TWIN, TWIN
from tasks.data.execution.jobs import Result
from tasks.data.records.erasure import ERASED
from tasks.data.rows import LONG_ROW, SHORT_ANSWER


def advice(rejected: dict[str, int], unreadable: int, results: Sequence[Result], data: DataSection) -> str:
    """Return what helps, of whatever took most rows of one origin.

    Args:
        rejected: reason → rows or pieces of the origin.
        unreadable: pieces among them that never became rows.
        results: of the jobs that cleaned its rows; reasons of two steps may be spelled alike, so they are counted here.
        data: the settings.
    """
    causes = [
        (unreadable, "{} are no usable records: mend them, or say in their source what they are (row_format, columns)"),
        *_causes_of_cleaning(results, data),
        *((rejected.get(reason, 0), said) for reason, said in _sayings(data).items()),
    ]
    most, said = max(causes, key=lambda cause: cause[0])  # the first of several
    return f"{said.format(f'most ({most})')}, or add rows" if most else "add rows"


def _causes_of_cleaning(results: Sequence[Result], data: DataSection) -> Iterator[tuple[int, str]]:
    steps: dict[str, int] = {}
    for result in results:
        for name, counts in result["steps"].items():
            steps[name] = steps.get(name, 0) + counts["dropped"]
    no_text = "{} have no question or no answer, as they came or after data.cleaning: mend them, or the steps"
    for name, dropped in steps.items():
        named = repr(name).replace("{", "{{").replace("}", "}}")
        yield dropped, no_text if name == CONVERSATION else f"the step {named} of data.cleaning dropped {{}}: loosen it"
    for reason, setting, change in ((SHORT_ANSWER, "min_answer_chars", "lower"), (LONG_ROW, "max_row_chars", "raise")):
        found = sum(result["limits"].get(reason, 0) for result in results)
        yield found, f"data.{setting} ({getattr(data, setting)}) rejected {{}}: {change} it"


def _sayings(data: DataSection) -> dict[str, str]:
    similarity = f"raise data.near_duplicates ({data.near_duplicates:g}) or set it to 0"
    return {
        ERASED: "{} were erased",
        DUPLICATE: "{} repeat another row: read rows that differ",
        NEAR_DUPLICATE: f"{{}} nearly repeat another row: {similarity}",
        TWIN: "{} ask what an evaluation row asks: read rows that ask something else",
        NEAR_TWIN: f"{{}} are nearly what is evaluated: {similarity}",
    }
