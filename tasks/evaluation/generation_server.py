"""Answers of a model that a server holds: several clients ask at a time, and the records are a generation process's."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from tasks.contracts.artifacts import ServableModel
from tasks.contracts.asking import Ask, EvaluationServer, ServedAnswer
from tasks.contracts.errors import EvaluationError, ServingError
from tasks.contracts.worker import Listener
from tasks.evaluation.generation_process import record_of

Row = dict[str, Any]


def ask_server(
    server: EvaluationServer,
    servable: ServableModel,
    rows: list[Row],
    asked_again: Sequence[int],
    listener: Listener,
) -> list[Row]:
    """Return a prediction a row, in the order of the rows.

    Args:
        server: holds the model meanwhile.
        servable: the model.
        rows: evaluation rows.
        asked_again: places of those that are asked a second time, by one client alone.
        listener: called with the events of a generation process, in this thread.

    Raises:
        ServingError: the model does not load.
        EvaluationError: a row was not answered; the answers before are not kept, and the next run asks all rows.
    """
    with server.open(servable) as ask:
        predictions = _ask_all(ask, rows, server.concurrency, listener)
        for place in asked_again:
            started = time.perf_counter()
            try:
                predictions[place]["again"] = ask(rows[place]["messages"][:-1], None).text
            except ServingError as error:
                raise _unanswered(f"evaluation row {place + 1} a second time", error) from error
            predictions[place]["seconds"] = time.perf_counter() - started
            listener({"event": "again"})
    return predictions


def _ask_all(ask: Ask, rows: list[Row], concurrency: int, listener: Listener) -> list[Row]:
    predictions: list[Row] = [{}] * len(rows)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="evaluation-client") as clients:
        asked: dict[Future[ServedAnswer], int] = {
            clients.submit(ask, row["messages"][:-1], row["messages"][-1]["content"]): place
            for place, row in enumerate(rows)
        }
        try:
            for count, done in enumerate(as_completed(asked), start=1):
                place = asked[done]
                try:
                    answer = done.result()
                except ServingError as error:
                    which = f"evaluation row {place + 1} of {len(rows)}, after {count - 1} answers"
                    raise _unanswered(which, error) from error
                predictions[place] = record_of(rows[place], answer, answer.likelihood)
                listener({"event": "answer", "row": count, "new_tokens": answer.new_tokens})
        except BaseException:
            clients.shutdown(wait=False, cancel_futures=True)  # what is under way ends, and nothing more begins
            raise
    return predictions


def _unanswered(which: str, error: ServingError) -> EvaluationError:
    return EvaluationError(
        f"the server did not answer {which}: {error}; run the same command again, which asks all rows again, "
        "or set evaluation.through to process"
    )
