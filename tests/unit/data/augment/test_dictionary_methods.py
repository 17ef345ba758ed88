import random

import pytest

from tasks.contracts.augment_config import EntityMethod, SynonymMethod
from tasks.contracts.errors import ConfigError
from tasks.data.augment.dictionaries import Entities, Synonyms


@pytest.fixture
def file_of(tmp_path):
    def write(content: str) -> str:
        path = tmp_path / "dictionary.tsv"
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


def questions(method, row, seeds=range(20)):
    made = [method.make([row], [random.Random(seed)])[0] for seed in seeds]
    return {row["messages"][0]["content"] for row in made if row is not None}


def test_words_become_words_of_their_group_in_the_same_case(file_of, row_of):
    method = Synonyms(SynonymMethod(path=file_of("big\tlarge\thuge\n发烧\t发热\n"), word_share=0.01))
    assert questions(method, row_of("A big dog")) == {"A large dog", "A huge dog"}
    assert questions(method, row_of("Big BIG")) == {"Large BIG", "Huge BIG", "Big LARGE", "Big HUGE"}
    assert questions(method, row_of("孩子发烧了")) == {"孩子发热了"}


def test_at_the_full_share_every_word_found_is_replaced(file_of, row_of):
    method = Synonyms(SynonymMethod(path=file_of("big\tlarge\nsmall\tlittle\n"), word_share=1))
    assert questions(method, row_of("big small big bigger")) == {"large little large bigger"}


def test_code_and_the_answer_stay_as_they_are(file_of, row_of):
    method = Synonyms(SynonymMethod(path=file_of("big\tlarge\n"), word_share=1))
    row = row_of("A big `big` thing:\n```\nbig = 1\n```", answer="big")
    [made] = method.make([row], [random.Random(1)])
    assert made["messages"][0]["content"] == "A large `big` thing:\n```\nbig = 1\n```"
    assert made["messages"][1] == row["messages"][1]
    assert method.make([row_of("`big`"), row_of("tiny")], [random.Random(1)] * 2) == [None, None]


def test_entities_are_swapped_for_others_of_their_kind_everywhere_in_the_row(file_of, row_of):
    method = Entities(EntityMethod(path=file_of("city\tParis\ncity\tRome\ndrug\t阿司匹林\ndrug\t布洛芬\n")))
    row = row_of("Is Paris far? 阿司匹林?", answer="Paris is far. 吃阿司匹林。", rejected="Paris is near.")
    [made] = method.make([row], [random.Random(1)])
    assert [message["content"] for message in made["messages"]] == ["Is Rome far? 布洛芬?", "Rome is far. 吃布洛芬。"]
    assert made["rejected"] == "Rome is near."
    assert row["messages"][0]["content"] == "Is Paris far? 阿司匹林?"


def test_two_entities_of_a_row_never_become_one(file_of, row_of):
    method = Entities(EntityMethod(path=file_of("".join(f"city\t{name}\n" for name in ("Paris", "Rome", "Bonn")))))
    for seed in range(20):
        [made] = method.make([row_of("From Paris to Rome")], [random.Random(seed)])
        words = made["messages"][0]["content"].split()
        assert {words[1], words[3]} in ({"Bonn", "Rome"}, {"Paris", "Bonn"})


def test_a_row_whose_question_has_no_entity_or_no_other_of_its_kind_is_left_alone(file_of, row_of):
    method = Entities(EntityMethod(path=file_of("city\tParis\ncity\tRome\nsea\tRed Sea\n")))
    rows = [row_of("Where?", answer="Paris"), row_of("The Red Sea?"), row_of("Paris or Rome?")]
    assert method.make(rows, [random.Random(1)] * 3) == [None, None, None]


@pytest.mark.parametrize("content", ["one word\n", "\n", ""])
def test_a_dictionary_without_pairs_is_named(content, file_of):
    path = file_of(content)
    for build in (lambda: Synonyms(SynonymMethod(path=path)), lambda: Entities(EntityMethod(path=path))):
        with pytest.raises(ConfigError, match=r"dictionary\.tsv"):
            build()


@pytest.mark.parametrize("content", ["city\tParis\tRome\n", "city\tParis\nperson\tParis\n"])
def test_an_entity_has_one_kind_and_a_line_one_entity(content, file_of):
    with pytest.raises(ConfigError, match="Paris"):
        Entities(EntityMethod(path=file_of(content)))


def test_the_result_depends_on_the_files_content(file_of):
    first = Synonyms(SynonymMethod(path=file_of("a\tb\n"))).depends_on()
    second = Synonyms(SynonymMethod(path=file_of("a\tc\n"))).depends_on()
    assert first.keys() == second.keys() and first != second
