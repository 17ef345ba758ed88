import pytest

from tasks.data.augment.grammar import forms_of


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("Explain the water cycle.", "Please explain the water cycle."),
        ("Explain the water cycle.", "Could you explain the water cycle?"),
        ("Please list three fruits.", "List three fruits."),
        ("Could you please write a poem about rain?", "Write a poem about rain."),
        ("What is the capital of France?", "Tell me what the capital of France is."),
        ("How do I reverse a list in Python?", "Explain how to reverse a list in Python."),
        ("How to boil an egg", "How can I boil an egg?"),
        ("I do not know.", "I don't know."),
        ("It isn't raining.", "It is not raining."),
        ("It is raining.", "It's raining."),
        ("Summarise this:\n\nIt rained.", "Please summarise this:\n\nIt rained."),
        ("请解释什么是心肌梗死。", "解释什么是心肌梗死。"),
        ("解释心肌梗死的原因。", "请解释心肌梗死的原因。"),
        ("什么是糖尿病？", "糖尿病是什么？"),
        ("这个药的作用是什么？", "什么是这个药的作用？"),
        ("高血压有哪些症状？", "请问高血压有哪些症状？"),
        ("请问，感冒要吃药吗？", "感冒要吃药吗？"),
        ("孩子能吃海鲜吗？", "孩子能不能吃海鲜？"),
        ("患者可以出院吗？", "患者可不可以出院？"),
        ("我能不能喝酒？", "我能喝酒吗？"),
        ("需不需要住院？", "需要住院吗？"),
        ("感冒如何预防？", "感冒怎样预防？"),
        ("为什么会头晕？", "为何会头晕？"),
    ],
)
def test_a_question_has_this_form_too(question, form):
    assert form in forms_of(question)


@pytest.mark.parametrize(
    ("question", "wrong"),
    [
        ("Tell me what it is.", "it's"),
        ("It's been raining.", "It is been"),
        ("Don't you think so?", "Do not you"),
        ("发烧怎么办？", "如何办"),
        ("可能是癌症吗？", "可能不"),
        ("不能喝酒吗？", "不能不能"),
        ("此为何物？", "为什么物"),
        ("What is the weather?", "请问"),
        ("请假条", "假条\n"),
    ],
)
def test_what_would_be_wrong_is_not_made(question, wrong):
    assert not any(wrong in form for form in forms_of(question))


@pytest.mark.parametrize("question", ["", "ok", "`do not`", "```\nit is raining\n```", "x" * 10_000, "你好", "42"])
def test_nothing_is_made_of_code_and_of_what_no_rule_knows(question):
    assert forms_of(question) == []


def test_a_form_is_never_the_question_itself_and_never_twice_there():
    for question in ("Explain it.", "Please explain it.", "什么是X？", "I do not and don't."):
        forms = forms_of(question)
        assert question not in forms and len(set(forms)) == len(forms) > 0
