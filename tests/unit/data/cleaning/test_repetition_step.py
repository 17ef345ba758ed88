import random

import pytest

from tasks.contracts.cleaning_config import RepetitionStep
from tasks.data.cleaning.repetition import Repetition, _covered_by_most_frequent_phrase, _with_a_frequent_phrase
from tasks.data.cleaning.step import Dropped

STEP = Repetition(RepetitionStep())

GOOD = [
    "Take the tablets after meals. The doctor will see you again next week, and the nurse will call before that.",
    "心肌梗死的治疗包括溶栓、介入和搭桥手术。心肌梗死患者应当卧床休息，监测心电图变化，及时复查心肌酶谱。",
    "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result\n",
    "| drug | dose |\n| --- | --- |\n| aspirin | 100 mg |\n| heparin | 5000 IU |\n",
    "ok ok ok ok ok",  # short
]
BAD = {
    "I am sorry. I am sorry. I am sorry. I am sorry. I am sorry. I am sorry.": "repeated phrase",
    "请多喝热水注意休息，请多喝热水注意休息，请多喝热水注意休息，请多喝热水注意休息，好的。": "repeated phrase",
    "The same line again, word for word.\nThe same line again, word for word.\nOnce.": "repeated lines",
    "患者需要休息并多饮水。\n患者需要休息并多饮水。\n患者需要休息并多饮水。\n患者需要休息并多饮水。": "repeated lines",
    "哈" * 200: "few distinct characters",
    "=" * 60: "few distinct characters",
    "-" * 40 + ".": "few distinct characters",
    "".join(f"第{number}条请按时服药谢谢合作" for number in range(30)): "repeated phrase",
}


@pytest.mark.parametrize("text", GOOD)
def test_ordinary_answers_are_kept(text, row_of):
    rows = [row_of(text)]
    assert STEP.clean(rows)[0] is rows[0]


@pytest.mark.parametrize(("text", "reason"), BAD.items())
def test_answers_that_repeat_themselves_are_dropped(text, reason, row_of):
    [result] = STEP.clean([row_of(text)])
    assert isinstance(result, Dropped) and result.reason == reason


def test_only_the_answer_is_judged(row_of):
    row = row_of("A perfectly ordinary answer that says one thing after another.", question="哈" * 300)
    pair = row_of("A perfectly ordinary answer that says one thing after another.", rejected="no " * 100)
    assert STEP.clean([row, pair]) == [row, pair]


def test_a_batch_has_the_result_of_its_rows_one_by_one(row_of):
    choose = random.Random(2)
    texts = [choose.choice([*GOOD, *BAD]) * choose.randint(1, 3) for _ in range(1_300)]
    texts += ["".join(choose.choices("心肌梗死治疗的了是在", k=choose.randint(40, 400))) for _ in range(200)]
    rows = [row_of(text) for text in texts]
    batch = STEP.clean(rows)
    assert batch == [STEP.clean([row])[0] for row in rows]
    assert 300 < sum(isinstance(result, Dropped) for result in batch) < 1_400


def test_the_quick_look_misses_no_frequent_phrase():
    choose = random.Random(4)
    texts = [
        "".join(choose.choices("心肌梗死" + "的" * choose.randint(0, 9), k=choose.randint(8, 300))) for _ in range(500)
    ]
    texts += [" ".join(choose.choices(["this", "that", "some", "more"], k=choose.randint(8, 60))) for _ in range(12)]
    for share in (0.05, 0.2, 0.9):
        blocks = [(start, texts[start : start + 64]) for start in range(0, len(texts), 64)]
        found = {start + place for start, block in blocks for place in _with_a_frequent_phrase(block, share)}
        frequent = {n for n, text in enumerate(texts) if _covered_by_most_frequent_phrase(text) > share * len(text)}
        assert frequent <= found and len(found) < len(texts)
        assert share == 0.9 or frequent


def test_a_row_has_one_result_wherever_it_stands_in_a_batch(row_of):
    """The last text of a block has no other one's words behind it."""
    row = row_of("first of all we say this: lorem lorem lorem lorem lorem lorem")
    others = [row_of(text) for text in GOOD]
    [alone] = STEP.clean([row])
    assert isinstance(alone, Dropped)
    assert STEP.clean([row, *others])[0] == STEP.clean([*others, row])[-1] == alone


def test_the_quick_look_finds_what_counting_finds_in_texts_of_few_words():
    choose = random.Random(6)
    for _ in range(400):
        texts = [
            " ".join(choose.choices(["lorem", "ipsum", "a", "of", "dolor sit"], k=choose.randint(4, 24)))
            for _ in range(choose.randint(1, 4))
        ]
        frequent = {n for n, text in enumerate(texts) if _covered_by_most_frequent_phrase(text) > 0.2 * len(text)}
        assert frequent <= set(_with_a_frequent_phrase(texts, 0.2))


def test_a_phrase_said_twice_in_a_short_answer_is_no_repetition(row_of):
    rows = [row_of("注意休息按时服药，多喝温水。三天后复查血常规，仍要注意休息按时服药。谢谢您的提问，祝您早日康复。")]
    assert STEP.clean(rows) == rows


def test_a_huge_answer_is_judged_by_its_beginning(row_of):
    choose = random.Random(3)
    beginning = "".join(chr(choose.randint(0x4E00, 0x9000)) for _ in range(100_000))
    rows = [row_of(beginning + "哈" * 300_000)]
    assert STEP.clean(rows) == rows


@pytest.mark.parametrize("piece", ["a", "a ", "a\n", "心", "心肌", "a b\n\n", "\n", "词1语2"])
def test_hostile_text_takes_linear_time(piece, row_of, assert_linear):
    step = Repetition(RepetitionStep(max_line_share=1, max_ngram_share=1, min_distinct_share=0))
    assert_linear(lambda text: step.clean([row_of(text)]), lambda size: piece * size, 10_000)
