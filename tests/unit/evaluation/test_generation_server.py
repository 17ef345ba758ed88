"""What comes of answers that several clients ask for: their order, their records, and an end in the middle."""

import threading
import time
from contextlib import contextmanager

import pytest

from tasks.contracts.asking import EvaluationServer, ReferenceLikelihood, ServedAnswer
from tasks.contracts.errors import EvaluationError, ServingError
from tasks.evaluation.generation_server import ask_server

ROWS = [
    {
        "id": f"{n:064x}",
        "slice": "code",
        "messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"reference {n}"}],
    }
    for n in range(9)
]


class Served:
    """A server whose model says what a function says; it notes who asked, and that the model was let go of."""

    def __init__(self, answer, concurrency=3):
        self.asked, self.opened, self.closed, self._answer = [], [], 0, answer
        self.server = EvaluationServer(self.open, "some software", concurrency)

    @contextmanager
    def open(self, servable):
        self.opened.append(servable)
        try:
            yield self.ask
        finally:
            self.closed += 1

    def ask(self, messages, reference):
        number = int(messages[0]["content"].split()[1])
        self.asked.append((number, reference, threading.current_thread().name))
        return self._answer(number)


def answer(number):
    return ServedAnswer(f"answer {number}", number, "stop", ReferenceLikelihood(number / 8, 7))


def test_predictions_stand_in_the_order_of_the_rows_however_they_are_answered():
    """The first are answered last."""
    served, events = Served(lambda n: (time.sleep(0.03 * (9 - n)), answer(n))[1]), []
    predictions = ask_server(served.server, "the servable", ROWS, (0, 7), events.append)
    assert served.opened == ["the servable"] and served.closed == 1
    assert predictions[3] == {
        "id": ROWS[3]["id"],
        "slice": "code",
        "messages": ROWS[3]["messages"][:1],
        "reference": "reference 3",
        "answer": "answer 3",
        "new_tokens": 3,
        "finish_reason": "stop",
        "reference_nats": 0.375,
        "reference_tokens": 7,
    }
    assert [each["answer"] for each in predictions] == [f"answer {n}" for n in range(9)]
    assert [each.get("again") for each in predictions] == ["answer 0", *[None] * 6, "answer 7", None]
    assert predictions[0]["seconds"] > 0.2
    assert [event["row"] for event in events if event["event"] == "answer"] == list(range(1, 10))
    assert [event["event"] for event in events[9:]] == ["again", "again"]


def test_several_ask_at_once_and_one_alone_the_second_time():
    barrier = threading.Barrier(3, timeout=20)
    served = Served(lambda n: (barrier.wait() if len(served.asked) <= 9 else None, answer(n))[1])
    ask_server(served.server, None, ROWS, [0], lambda _: None)
    assert len({name for _, _, name in served.asked[:9]}) == 3, "or the barrier would not have opened"
    assert served.asked[9] == (0, None, threading.current_thread().name), "and no reference is scored again"


def test_an_answer_that_fails_ends_the_asking_names_the_row_and_lets_go_of_the_model():
    def answer_until_the_fourth(number):
        time.sleep(0.01)
        if number == 3:
            raise ServingError("_evaluated does not answer at 127.0.0.1:1: refused")
        return answer(number)

    served = Served(answer_until_the_fourth, concurrency=1)
    with pytest.raises(EvaluationError, match=r"evaluation row 4 of 9, after 3 answers: _evaluated does not answer at"):
        ask_server(served.server, None, ROWS, [0, 1], lambda _: None)
    assert served.closed == 1
    assert len(served.asked) <= 5, "the rows that nobody had begun are not asked any more"


def test_a_second_answer_that_fails_is_an_error_too():
    def answer_once(number):
        if len(served.asked) > 9:
            raise ServingError("gone")
        return answer(number)

    served = Served(answer_once)
    with pytest.raises(EvaluationError, match="did not answer evaluation row 1 a second time: gone"):
        ask_server(served.server, None, ROWS, [0], lambda _: None)


def test_whoever_stops_the_asking_stops_the_clients():
    """Ctrl+C is raised in the thread that hears the events."""
    served = Served(lambda n: (time.sleep(0.01), answer(n))[1], concurrency=1)

    def stop(_event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_server(served.server, None, ROWS, (), stop)
    assert served.closed == 1 and len(served.asked) <= 3


def test_what_a_model_does_not_say_is_left_out():
    served = Served(lambda n: ServedAnswer("yes", None, "length"))
    first = ask_server(served.server, None, ROWS, (), lambda _: None)[0]
    assert first["new_tokens"] is None and "reference_nats" not in first
