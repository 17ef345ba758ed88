"""What becomes of rows with personal data: pseudonyms, dropped, or a run that stops."""

import copy

import pytest

from tasks.contracts.cleaning_config import PersonalStep
from tasks.contracts.errors import DataError
from tasks.data.cleaning.step import Dropped
from tasks.data.personal.step import PersonalData
from tasks.data.rows import build_row


def row(question, answer="ok", rejected=None):
    made = build_row(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], "tickets", "default"
    )
    return made if rejected is None else made | {"rejected": rejected}


def texts(made):
    return [message["content"] for message in made["messages"]] + ([made["rejected"]] if "rejected" in made else [])


def cleaned(made, **settings):
    return PersonalData(PersonalStep(**settings)).clean([made])[0]


def test_the_same_value_has_the_same_pseudonym_in_every_text_of_the_conversation():
    made = row(
        "患者张三，男，45岁，电话138-0013-8000，邮箱A@example.com",
        "张三您好，会致电+86 13800138000或13900139000",
        "a@example.com 张三",
    )
    assert texts(cleaned(made)) == [
        "患者<NAME_1>，男，45岁，电话<PHONE_1>，邮箱<EMAIL_1>",
        "<NAME_1>您好，会致电<PHONE_1>或<PHONE_2>", "<EMAIL_1> <NAME_1>"
    ]  # fmt: skip


def test_two_conversations_number_their_pseudonyms_apart():
    step = PersonalData(PersonalStep())
    one, two = step.clean([row("a@example.com"), row("b@example.com")])
    assert texts(one)[0] == texts(two)[0] == "<EMAIL_1>"


def test_a_value_that_was_found_once_is_replaced_where_no_word_announces_it():
    made = row("password: tiger#42", "tiger#42 is weak, tiger#421 and atiger#42 are others")
    assert texts(cleaned(made)) == ["password: <SECRET_1>", "<SECRET_1> is weak, tiger#421 and atiger#42 are others"]


def test_look_alikes_of_pseudonyms_in_the_text_are_not_given_out_again():
    made = row("<EMAIL_1> and <EMAIL_3> wrote; a@example.com, b@example.com", "c@example.com")
    assert texts(cleaned(made)) == ["<EMAIL_1> and <EMAIL_3> wrote; <EMAIL_2>, <EMAIL_4>", "<EMAIL_5>"]


def test_a_user_pattern_with_the_name_of_a_kind_shares_its_numbers():
    made = row("a@example.com EMP-1")
    assert texts(cleaned(made, patterns={"EMAIL": "EMP-[0-9]"}))[0] == "<EMAIL_1> <EMAIL_2>"


def test_what_was_cleaned_once_is_left_alone_the_second_time():
    step = PersonalData(PersonalStep())
    once = step.clean(
        [row("患者张三，男，45岁，13800138000，密码：abc12345", "John Smith, 45-year-old; key AKIAIOSFODNN7EXAMPLE")]
    )
    assert step.clean(once)[0] is once[0]


def test_a_row_without_personal_data_is_the_same_object_and_no_row_is_mutated():
    clean, dirty = row("hello"), row("a@example.com", rejected="b@example.com")
    before = copy.deepcopy(dirty)
    result = PersonalData(PersonalStep()).clean([clean, dirty])
    assert result[0] is clean
    assert dirty == before
    assert result[1]["id"] == dirty["id"]
    assert result[1]["rejected"] == "<EMAIL_2>"


def test_personal_data_in_the_rejected_answer_alone_is_found():
    assert texts(cleaned(row("hi", "ok", "a@example.com")))[-1] == "<EMAIL_1>"
    assert isinstance(cleaned(row("hi", "ok", "a@example.com"), action="drop"), Dropped)


def test_a_dropped_row_says_which_kinds_it_held_and_not_what():
    assert cleaned(row("a@example.com 13800138000"), action="drop") == Dropped("personal data", "email, phone")


def test_block_stops_the_run_and_names_source_row_and_kind_but_never_the_value():
    made = row("a@example.com")
    with pytest.raises(DataError) as error:
        cleaned(made, action="block")
    assert "tickets" in str(error.value) and made["id"] in str(error.value) and "email" in str(error.value)
    assert "a@example.com" not in str(error.value)


def test_block_shows_the_question_with_pseudonyms_and_how_many_rows_are_alike():
    """An id alone cannot be looked up: no version was built."""
    asked = "Please\x1b[2J write to\na@example.com or 13800138000, " + "at any time of the day " * 9
    rows = [row("hello"), row(asked), row("b@example.com"), row("Mail?", "c@example.com")]
    with pytest.raises(DataError) as error:
        PersonalData(PersonalStep(action="block")).clean(rows)
    said = str(error.value)
    assert "'Please�[2J write to <EMAIL_1> or <PHONE_1>, at any time" in said and "(and 2 more rows" in said
    assert not any(value in said for value in ("example.com", "13800138000", "\x1b", "\n")) and len(said) < 500


def test_block_shows_no_data_of_another_kind_than_the_one_it_looks_for():
    with pytest.raises(DataError, match="asks 'Mail <EMAIL_1> or <PHONE_1>', holds personal data: email;"):
        cleaned(row("Mail c@example.com or 13800138000"), action="block", kinds=("email",))


def test_block_says_of_a_single_row_nothing_about_others():
    with pytest.raises(DataError) as error:
        cleaned(row("Mail?", "c@example.com"), action="block")
    assert "'Mail?'" in str(error.value) and "more row" not in str(error.value)


@pytest.mark.parametrize("action", ["pseudonym", "drop"])
def test_what_was_found_is_counted_by_kind(action):
    step = PersonalData(PersonalStep(action=action, patterns={"STAFF": "EMP-[0-9]+"}))
    step.clean([row("a@example.com b@example.com"), row("13800138000", "EMP-7"), row("nothing")])
    assert step.found == {"email": 2, "phone": 1, "STAFF": 1}


def test_a_batch_gives_what_its_rows_give_one_by_one():
    rows = [row("a@example.com"), row("none"), row("13800138000", "x", "13800138000"), row("1", "患者李四，女，3岁")]
    assert PersonalData(PersonalStep()).clean(rows) == [cleaned(made) for made in rows]
    assert PersonalData(PersonalStep()).clean([]) == []


def test_spellings_of_one_card_address_or_number_share_a_pseudonym():
    made = row(
        "4111 1111 1111 1111 = 4111111111111111; 00:1A:2B:3C:4D:5E = 00-1a-2b-3c-4d-5e", "2001:db8::1 = 2001:0db8:0::1"
    )
    assert texts(cleaned(made)) == [
        "<BANK_CARD_1> = <BANK_CARD_1>; <MAC_ADDRESS_1> = <MAC_ADDRESS_1>",
        "<IP_ADDRESS_1> = <IP_ADDRESS_1>",
    ]
