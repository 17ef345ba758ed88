"""Metrics beside n-gram overlap: whole answers, their shape, structure, perplexity, and what users bring along."""

import math
from importlib.metadata import EntryPoint

import pytest

from tasks.contracts.config import validate_config
from tasks.contracts.errors import ConfigError, EvaluationError


@pytest.fixture
def exact():
    from tasks.evaluation.metrics.exact import Exact

    return Exact()


@pytest.fixture
def structured():
    from tasks.evaluation.metrics.structured import Structured

    return Structured()


@pytest.fixture
def shape():
    from tasks.evaluation.metrics.answer_shape import AnswerShape

    return AnswerShape()


@pytest.fixture
def length_ratio():
    from tasks.evaluation.metrics.answer_shape import LengthRatio

    return LengthRatio()


@pytest.fixture
def perplexity():
    from tasks.evaluation.metrics.perplexity import Perplexity

    return Perplexity()


@pytest.mark.parametrize(
    ("answer", "reference", "exact_match", "token_f1"),
    [
        ("Paris", "Paris", 1, 1),
        (" Paris\n", "Paris", 1, 1),
        ("cafe\u0301", "caf\u00e9", 1, 1),
        ("one\r\ntwo", "one\ntwo", 1, 1),
        ("paris", "Paris", 0, 1),
        ("The capital is Paris.", "Paris", 0, 0.5),
        ("the a an", "Paris", 0, 0),
        ("the", "The!", 0, 0),
        ("!!", "!!", 1, 1),
        ("", "", 1, 1),
        ("你好", "你好", 1, 1),
        ("你好", "你们好", 0, 0.8),
    ],
)
def test_exact_match_and_token_f1(exact, answer, reference, exact_match, token_f1):
    result = exact.compute(predictions=[answer], references=[reference])
    assert (result["exact_match"], result["token_f1"]) == pytest.approx((exact_match, token_f1))


@pytest.mark.parametrize(
    ("answer", "reference", "valid", "accuracy"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1.0}', 1, 1),
        ('```json\n{"a": 1}\n```', '{"a": 1}', 1, 1),
        ('{"a": true}', '{"a": 1}', 1, 0),
        ('{"a": 1}', '{"a": 1, "b": 2}', 1, 0.5),
        ('{"a": 1, "b": 2, "c": 3, "d": 4}', '{"a": 1}', 1, 0.25),
        ('{"a": []}', '{"a": []}', 1, 1),
        ('{"a": []}', '{"a": {}}', 1, 0),
        ('{"0": 1}', "[1]", 1, 0),
        ("{'a': 1}", '{"a": 1}', 0, 0),
        ('{"a": NaN}', '{"a": 1}', 0, 0),
        ("", '{"a": 1}', 0, 0),
        ("[" * 100_000, '{"a": 1}', 0, 0),
        ("{}", "no JSON", 1, 0),
    ],
)
def test_json_validity_and_field_accuracy(structured, answer, reference, valid, accuracy):
    result = structured.compute(predictions=[answer], references=[reference])
    assert (result["json_valid"], result["field_accuracy"]) == (valid, accuracy)


def test_what_is_nested_deeply_is_compared_as_a_whole(structured):
    deep = '{"a":' * 300 + "1" + "}" * 300
    other = '{"a":' * 300 + "2" + "}" * 300
    result = structured.compute(predictions=[deep, other], references=[deep, deep])
    assert result["statistics"]["field_accuracy"][:, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("answer", "repetition", "empty"),
    [
        ("a b c d e f", 0, 0),
        ("a b c d a b c d", 1 - 4 / 5, 0),
        ("no no no no no", 0.5, 0),
        ("short", 0, 0),
        ("", 0, 1),
        (" \n\f\t\u2003", 0, 1),
        ("\x00\u200b", 0, 1),
        ("。", 0, 0),
        ("对对对对对", 0.5, 0),
    ],
)
def test_repetition_and_emptiness(shape, answer, repetition, empty):
    result = shape.compute(predictions=[answer], references=["what was asked for"])
    assert (result["repetition"], result["empty_rate"]) == pytest.approx((repetition, empty))


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m really sorry, I cannot do that.",
        "I cannot provide this.",
        "Unfortunately I won't be able to do this.",
        "As an AI language model, I have no opinion.",
        "Es tut mir leid, das geht nicht.",
        "Lo siento, no puedo.",
        "抱歉，我不能回答这个问题。",
        "作为一个人工智能，我没有观点。",
    ],
)
def test_a_refusal_is_recognised(shape, answer):
    assert shape.compute(predictions=[answer], references=["42"])["refusal_rate"] == 1


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Return True if the key cannot be found.", "Return it."),
        ("I can help with that.", "I can help."),
        ("I'm sorry, this is not possible.", "I'm sorry, this cannot be done."),
        ("x" * 300 + " I'm sorry", "x"),
        ("You can say that you are sorry.", "Say so."),
    ],
)
def test_what_is_no_refusal_is_not_taken_for_one(shape, answer, reference):
    assert shape.compute(predictions=[answer], references=[reference])["refusal_rate"] == 0


def test_the_length_ratio_is_that_of_the_whole_set(length_ratio):
    result = length_ratio.compute(predictions=["one two three", "返回"], references=["one", "一二三"])
    assert result["length_ratio"] == pytest.approx(5 / 4)
    assert length_ratio.compute(predictions=["word"], references=["..."])["length_ratio"] == 0


def test_perplexity_is_the_mean_over_tokens_not_over_rows(perplexity):
    """A row of one token with 3 nats and one of nine with none: 3 nats in ten tokens."""
    result = perplexity.compute(predictions=[3.0, 0.0], references=[1.0, 9.0])
    assert result["perplexity"] == pytest.approx(math.exp(0.3))


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_warning(perplexity):
    assert perplexity.compute(predictions=[1e6], references=[1.0])["perplexity"] == math.inf


@pytest.mark.parametrize("nats", [math.nan, math.inf, "3"])
def test_a_likelihood_that_is_no_number_is_an_error(perplexity, nats):
    with pytest.raises(EvaluationError, match=r"number 1 of the predictions is .*expected a finite number"):
        perplexity.compute(predictions=[1.0, nats], references=[1.0, 1.0])


def answer_length(answer, reference):
    return len(answer) / max(1, len(reference))


def broken(answer, reference):
    raise KeyError("no such thing")


def not_a_number(answer, reference):
    return math.nan


@pytest.fixture
def bring(monkeypatch):
    """Install an entry point for the time of a test."""

    def install(name, function):
        point = EntryPoint(name, f"{__name__}:{function}", "llm_retrain.metrics")
        known = {name: point}
        monkeypatch.setattr(
            "tasks.contracts.metric_names.entry_points",
            lambda group, name=None: [p for n, p in known.items() if group == p.group and name in (None, n)],
        )

    return install


def test_a_metric_that_a_package_brings_is_scored_and_signed(bring):
    from tasks.evaluation.metrics.user_metric import UserMetric

    bring("our_length", "answer_length")
    result = UserMetric("our_length").compute(predictions=["abcd", "ab"], references=["ab", "ab"])
    assert result["our_length"] == 1.5
    assert "answer_length" in result["signature"]
    config = validate_config(
        {
            "evaluation": {"metrics": ["our_length", "bleu"]},
            "gate": {"primary_metric": "our_length", "guarded_metrics": []},
        }
    )
    assert config.gate.primary_metric == "our_length"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("broken", "'mine' failed on the answer 'x': KeyError"),
        ("not_a_number", "returned nan .*expected a finite number"),
    ],
)
def test_a_metric_of_a_user_that_fails_is_an_error_and_no_score(bring, function, sentence):
    from tasks.evaluation.metrics.user_metric import UserMetric

    bring("mine", function)
    with pytest.raises(EvaluationError, match=sentence):
        UserMetric("mine").compute(predictions=["x"], references=["y"])


def test_a_metric_that_cannot_be_loaded_is_named(bring):
    from tasks.evaluation.metrics.user_metric import UserMetric

    bring("mine", "there_is_no_such_function")
    with pytest.raises(EvaluationError, match=r"the metric 'mine' \(.*there_is_no_such_function\) cannot be loaded"):
        UserMetric("mine")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"evaluation": {"metrics": ["blue"]}}, r"evaluation\.metrics.* is 'blue'.*expected one of rouge1"),
        ({"gate": {"primary_metric": "length_ratio"}}, "describes answers and is neither better high nor low"),
        ({"gate": {"guarded_metrics": ["rougeX"]}}, "expected one of rouge1"),
        ({"evaluation": {"metrics": ["bleu"]}}, r"gate\.primary_metric is 'rougeL'.*evaluation\.metrics"),
        ({"evaluation": {"metrics": ["rougeL", "bleu"]}}, r"gate\.guarded_metrics names 'chrf'.*evaluation\.metrics"),
    ],
)
def test_metrics_that_the_gate_cannot_judge_by_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate_config(settings)
