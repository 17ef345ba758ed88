import hashlib
import itertools

import pytest

from tasks.contracts.augment_config import AugmentSection, GrammarMethod, SynonymMethod
from tasks.contracts.twins import MESSAGE_START, folded
from tasks.data.augment.augmentation import Augmentation, augment, depends_on, prompt_key, similarity
from tasks.data.rows import id_of


@pytest.fixture
def section_of(tmp_path):
    """Build a section of both methods that need no model, over a small dictionary."""
    path = tmp_path / "synonyms.tsv"
    path.write_text("city\ttown\tplace\nriver\tstream\n城市\t都市\n", encoding="utf-8")

    def build(**settings: object) -> AugmentSection:
        methods = (SynonymMethod(path=str(path)), GrammarMethod())
        return AugmentSection(**{"methods": methods, "max_per_row": 2, **settings})

    return build


@pytest.fixture
def rows(row_of):
    return [row_of(f"Describe the city {n} on the river.") for n in range(40)] + [
        row_of(f"第{n}座城市有哪些特点？") for n in range(40)
    ]


def test_without_a_method_no_row_is_made(rows):
    assert AugmentSection().methods == ()
    assert list(augment(rows, AugmentSection())) == []


def test_a_made_row_names_its_parent_and_method_and_has_the_id_of_its_messages(rows, section_of):
    by_id = {row["id"]: row for row in rows}
    made = list(augment(rows, section_of()))
    assert len(made) > 100
    for row in made:
        parent = by_id[row["meta"]["parent"]]
        assert row["meta"] == {"file": "x", "parent": parent["id"], "method": row["meta"]["method"]}
        assert row["id"] == id_of(row["messages"]) != parent["id"]
        assert row["messages"][-1] == parent["messages"][-1]
        assert (row["source"], row["slice"], row["weight"]) == ("a.jsonl", "default", 1.0)
    assert {row["meta"]["method"] for row in made} == {"synonyms", "grammar"}


def test_the_result_depends_on_seed_and_row_alone(rows, section_of):
    section = section_of(row_share=0.5)
    made = list(augment(rows, section))
    assert list(augment(rows, section)) == made
    assert list(augment(rows, section_of(row_share=0.5, seed=18))) != made
    one_by_one = [row for given in rows for row in augment([given], section)]
    assert one_by_one == made
    assert [row["id"] for row in augment(reversed(rows), section)] != [row["id"] for row in made]
    assert {row["id"] for row in augment(reversed(rows), section)} == {row["id"] for row in made}


def test_the_share_and_the_number_for_a_row_are_kept(rows, section_of):
    parents = {row["meta"]["parent"] for row in augment(rows, section_of(row_share=0.25))}
    assert 8 < len(parents) < 35
    made = [row["meta"]["parent"] for row in augment(rows, section_of(max_per_row=1))]
    assert len(made) == len(set(made)) > 60


def test_methods_look_at_their_slices_alone(rows, section_of):
    methods = tuple(method.model_copy(update={"slices": ("chat",)}) for method in section_of().methods)
    chat = [{**row, "slice": "chat"} for row in rows[:10]]
    made = list(augment(rows[10:] + chat, section_of(methods=methods)))
    assert made and {row["slice"] for row in made} == {"chat"}


def test_variants_too_close_or_too_far_and_prompts_of_others_are_dropped_and_counted(row_of, section_of):
    long = row_of("Describe the city. " + "x y z " * 5 + " ".join(str(n) for n in range(900)))
    close = Augmentation(section_of(max_similarity=0.9))
    assert list(close.run([long])) == []
    assert close.counts["synonyms"] == {"too close to its parent": 1}
    far = Augmentation(section_of(min_similarity=0.9, max_similarity=0.99))
    assert list(far.run([row_of("城市？")])) == []
    assert far.counts["synonyms"] == {"too far from its parent": 1}
    assert far.counts["grammar"] == {"nothing to change": 1}
    taken = {prompt_key(row_of("  都市？ ", answer="another"))}
    duplicate = Augmentation(section_of())
    assert list(duplicate.run([row_of("城市？")], taken)) == []
    assert duplicate.counts["synonyms"] == {"prompt of another row": 1}


def test_of_two_rows_that_become_the_same_prompt_one_is_made(row_of, section_of):
    rows = [row_of("城市？"), row_of("城市？", answer="no")]
    made = Augmentation(section_of())
    [row] = made.run(rows)
    assert row["meta"]["parent"] == rows[0]["id"]
    assert made.counts["synonyms"] == {"made": 1, "prompt of another row": 1}


def test_rows_are_streamed(row_of, section_of):
    endless = (row_of(f"Describe the city {n}.") for n in itertools.count())
    first = list(itertools.islice(augment(endless, section_of()), 5))
    assert len(first) == 5


def test_what_the_rows_depend_on_is_told(section_of):
    [(path, digest)] = depends_on(section_of()).items()
    assert path.endswith("synonyms.tsv") and len(digest) == 64
    assert depends_on(AugmentSection()) == {}


def test_similarity_is_that_of_character_shingles():
    assert similarity("心肌梗死", "心肌梗死") == similarity("A  b c", "a B C") == 1
    assert similarity("abcd", "abce") == pytest.approx(1 / 3)
    assert similarity("abc", "xyz") == 0
    assert similarity("", "abc") == 0


def test_filters_that_nothing_passes_are_refused():
    with pytest.raises(ValueError, match="min_similarity"):
        AugmentSection(min_similarity=0.9, max_similarity=0.5)


def test_the_key_of_a_prompt_is_that_of_the_index(row_of):
    """The index folds whole conversations and cuts the prompt out of them."""
    row = row_of("  Is it\nFAR, é or e\u0301? ", answer="Yes, İt is.")
    row["messages"].insert(0, {"role": "system", "content": "Be kind.\n"})
    conversation = folded(row["messages"])
    prompt = conversation[: conversation.rindex(MESSAGE_START) - 1]
    assert prompt_key(row) == hashlib.blake2b(prompt.encode(), digest_size=16).digest()
