"""The pass that spares steps most rows: it must never keep back a row that a step would change or drop."""

import random

import pytest

from tasks.contracts.cleaning_config import (
    HtmlStep,
    PersonalStep,
    ReplaceStep,
    TermsStep,
    UnicodeStep,
    WhitespaceStep,
)
from tasks.data.cleaning.gate import TEXT_END, Gate
from tasks.data.cleaning.line import Line, build_line

GUARDED = [
    UnicodeStep(),
    UnicodeStep(repair=False, width=True),
    WhitespaceStep(),
    WhitespaceStep(max_empty_lines=0, collapse_spaces=True),
    HtmlStep(),
    PersonalStep(),
]
PIECES = {
    "unicode": [
        "a",
        "é",
        "Ã©",
        "â€™",
        "e\u0301",
        "ﬁ",
        "\x07",
        "\x1b[1m",
        "Ａ",
        "１",
        "심",
        "\u1112\u1161",
        "中",
        "\ufeff",
        "“",
        "×",
    ],
    "whitespace": [
        "a",
        "中",
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        "\u3000",
        "\xa0",
        "\x85",
        "\x1c",
        "\u2028",
        "\x0b",
    ],
    "html": [
        "a",
        "<",
        ">",
        "/",
        "b",
        "p",
        "br",
        "<!--",
        "-->",
        "&",
        "amp",
        "lt",
        ";",
        "#38",
        "#x26",
        " ",
        "<B>",
        "</b>",
        "`",
    ],
    "personal": [
        *(
            "a ",
            "@",
            "x.org",
            "1",
            "13800138000",
            "138-0013-8000",
            "10.0.0.1",
            ":",
            "fe80::1",
            "sk-",
            "密码",
            "是",
            "hunter2!",
        ),
        *(
            "男",
            "，",
            "45岁",
            "张伟",
            "Mr. ",
            "Smith",
            " aged 4",
            "5",
            "\u200b",
            "１３８００１３８０００",
            "\u00ad",
            " ",
            "AKIA",
            "00:1B:44:",
        ),
    ],
}


def texts_for(step, count=700):
    choose = random.Random(5)
    pieces = PIECES[step.step]
    return ["".join(choose.choices(pieces, k=choose.randint(1, 4))) for _ in range(count)]


def without_gate(line):
    line._gate = Gate([])
    return line


@pytest.mark.parametrize("step", GUARDED, ids=lambda step: f"{step.step} {GUARDED.index(step)}")
def test_a_row_that_shows_no_sign_is_one_the_step_leaves_alone(step, row_of):
    rows = [row_of(answer, prompt) for answer, prompt in zip(texts_for(step), reversed(texts_for(step)), strict=True)]
    ours = build_line((step,), None)
    shown = ours._gate.rows_for(rows)[0]
    assert ours.run(rows) == without_gate(build_line((step,), None)).run(rows)
    assert 0 < len(shown) < len(rows)


def test_a_row_that_one_step_changed_is_looked_at_by_the_next(row_of):
    steps = (
        ReplaceStep(name="tags", pattern=r"\[b\]", replacement="<b>"),
        TermsStep(terms={"line end": "line\r"}),
        HtmlStep(),
        WhitespaceStep(),
    )
    [changed, cut, same] = build_line(steps, None).run([row_of("[b]so</b>"), row_of("the line end"), row_of("b")]).kept
    assert changed["messages"][-1]["content"] == "so"
    assert cut["messages"][-1]["content"] == "the line"
    assert same == row_of("b")


def test_no_mixture_of_unsuspicious_characters_is_changed():
    """Every character for itself shows no sign; then no text of them may be repaired or composed into another."""
    step = build_line((UnicodeStep(),), None)._steps[0][1]
    gate = Gate([step])
    every = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    rows = [{"messages": [{"role": "user", "content": character}]} for character in every]
    shown = gate.rows_for(rows)[0]
    plain = [character for number, character in enumerate(every) if number not in shown]
    assert len(plain) > 43_000
    choose = random.Random(1)
    for _ in range(10):
        choose.shuffle(plain)
        text = "".join(plain)
        for start in range(0, len(text), 900):
            piece = text[start : start + 900]
            assert step._clean_text(piece) == piece


def test_a_sign_at_the_end_of_any_text_is_seen_and_none_across_two(row_of):
    gate = Gate([build_line((WhitespaceStep(),), None)._steps[0][1]])
    rows = [row_of("answer", "question "), row_of("answer ", "question"), row_of(" answer", "question")]
    assert gate.rows_for(rows) == {0: {0, 1}}
    assert TEXT_END == "\x00"


def test_rows_pass_a_line_whose_steps_have_no_signs(row_of):
    line = build_line((TermsStep(terms={"b": "c"}),), None)
    assert line._gate.guarded == set() and line._gate.rows_for([row_of("b")]) == {}
    assert line.run([row_of("b")]).counts["terms"]["changed"] == 1
    assert Line([]).run([row_of("b")]).kept == [row_of("b")]
