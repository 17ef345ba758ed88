"""Made rows pass what every training row passes: the cleaning line, the limits, the share of a slice, the split."""

from collections import Counter

import pytest
from tiny_model import make_tiny_tokenizer

from tasks.contracts.config import DataSection
from tasks.contracts.jsonl import read_jsonl
from tasks.data.augment import held_out, made_rows
from tasks.data.augment.augmentation import NOTHING_MADE, PROMPT_TAKEN, TOO_CLOSE
from tasks.data.augment.made_line import CHANGED_AGAIN
from tasks.data.augment.made_rows import NEAR_EVALUATION, add_made_rows
from tasks.data.division.split import NEAR_DUPLICATE, NEAR_TWIN, TWIN, UNBALANCED
from tasks.data.records.erasure import ERASED, marks_of
from tasks.data.rows import LONG_ROW, SHORT_ANSWER, build_row, rejected_line, row_line

ENGLISH = (
    "The river runs past the old mill, and in winter the wheel stands still under ice until the thaw of March. "
    "Then the owner opens the gate, the stones begin to turn, and carts with last year's wheat wait along the road."
)
GERMAN = "Haus, das neben der alten Mühle am Fluss zwischen den Wiesen liegt und im Winter von niemandem bewohnt wird"
CHINESE = "河水流过旧磨坊，冬天水轮被冰封住，直到三月融雪才重新转动，磨坊主人便把去年的麦子搬出来晒在院子里。"


def row(question, answer="It is a mill.", slice_name="default", rejected=None):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return build_row(messages, "a.jsonl", slice_name, {"file": "x"}, rejected)


@pytest.fixture
def make(tmp_path):
    """Make rows by swapping one word for another, wherever it stands, and return the counts and the made rows."""

    def run(train, swap, evaluation=(), rejected=(), tokenizer=None, erased=frozenset(), **settings):
        (tmp_path / "entities.tsv").write_text("".join(f"thing\t{entity}\n" for entity in swap), encoding="utf-8")
        (tmp_path / "train.jsonl").write_bytes(b"".join(sorted(map(row_line, train))))
        (tmp_path / "eval.jsonl").write_bytes(b"".join(map(row_line, evaluation)))
        (tmp_path / "rejected.jsonl").write_bytes(b"".join(rejected_line(each, why, "") for each, why in rejected))
        methods = [{"method": "entities", "path": str(tmp_path / "entities.tsv")}]
        augment = {"methods": methods, "min_similarity": 0, "max_similarity": 0.99}
        made = add_made_rows(tmp_path, DataSection(augment=augment, **settings), tokenizer, erased)
        rows = [each for each in read_jsonl(tmp_path / "train.jsonl") if "parent" in each["meta"]]
        assert made.rows == len(rows)
        return made.counts["entities"], rows

    return run


def cleaning(**step):
    return {"cleaning": [step]}


@pytest.mark.parametrize(
    ("swap", "settings", "reason"),
    [
        (("mill", "dreadful"), cleaning(step="blocked", words=["dreadful"]), "dropped by blocked"),
        (("mill", "ada@example.com"), cleaning(step="personal", action="drop"), "dropped by personal"),
        (("mill", "ada@example.com"), cleaning(step="personal", action="block"), "dropped by personal"),
        (("mill", GERMAN), cleaning(step="language", keep=["en"]), "dropped by language"),
        (("mill", "x" * 90), {"max_row_chars": 80}, LONG_ROW),
        (("mill", "X"), {"min_answer_chars": 12}, SHORT_ANSWER),
        (
            ("mill", "\u200b"),
            cleaning(step="replace", name="empty", pattern=".*", replacement=""),
            "dropped by conversation",
        ),
    ],
    ids=["blocked", "personal", "personal refused", "language", "row limit", "answer limit", "blank"],
)
def test_what_no_training_row_may_be_no_made_row_is(make, swap, settings, reason):
    train = [row("What stands at the mill?")]
    assert make(train, ("mill", "house"))[0] == {"made": 1}
    assert make(train, swap, **settings) == ({reason: 1}, [])


def test_tokens_are_counted_by_the_tokenizer_of_the_build(make, tmp_path):
    make_tiny_tokenizer().save_pretrained(tmp_path / "base")
    settings = {"tokenizer": tmp_path / "base", **cleaning(step="length", max_row_tokens=60)}
    assert make([row("What stands at the mill?")], ("mill", "house"), **settings)[0] == {"made": 1}
    assert make([row("What stands at the mill?")], ("mill", ENGLISH), **settings)[0] == {"dropped by length": 1}


def test_a_row_that_the_line_changes_keeps_its_marks_and_has_the_id_of_its_texts(make):
    parent = row("What stands at the mill?")
    counts, [made] = make([parent], ("mill", "ada@example.com"), **cleaning(step="personal"))
    assert counts == {"made": 1}
    assert made["messages"][0]["content"] == "What stands at the <EMAIL_1>?"
    assert made["messages"][1]["content"] == "It is a <EMAIL_1>."
    assert made["meta"] == {"file": "x", "parent": parent["id"], "method": "entities"}
    assert made["id"] == row("What stands at the <EMAIL_1>?", "It is a <EMAIL_1>.")["id"]


@pytest.mark.parametrize(("least_alike", "reason"), [(0.99, TOO_CLOSE), (1.0, PROMPT_TAKEN)])
def test_a_row_that_the_line_makes_its_parent_again_is_not_made(make, tmp_path, least_alike, reason):
    terms = cleaning(step="terms", terms={"house": "mill"})
    counts, rows = make([row("What stands at the mill?")], ("mill", "house"), **terms)
    assert (counts, rows) == ({TOO_CLOSE: 1}, [])
    data = DataSection(
        augment={
            "methods": [{"method": "entities", "path": str(tmp_path / "entities.tsv")}],
            "max_similarity": least_alike,
        },
        **terms,
    )
    assert add_made_rows(tmp_path, data).counts["entities"] == {reason: 1}


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_a_row_that_the_line_makes_the_prompt_of_another_row_is_not_made(make, split):
    rows = {"training": [row("What stands at the mill?")], "evaluation": []}
    rows[split].append(row("what  stands at the TOWER?", "Nothing at all."))
    terms = cleaning(step="terms", terms={"house": "tower"})
    counts, made = make(rows["training"], ("mill", "house"), rows["evaluation"], near_duplicates=0, **terms)
    assert counts[PROMPT_TAKEN] == 1
    assert made == []


def test_a_parent_s_text_is_not_cleaned_twice(make):
    """The answer was `&amp;lt;` once; cleaned again it would be `<`, an answer that the parent does not have."""
    train = [row("What does the mill write?", "It writes &lt;")]
    assert make(train, ("mill", "house"), **cleaning(step="html"))[0] == {CHANGED_AGAIN: 1}
    assert make(train, ("mill", "house"))[0] == {"made": 1}


@pytest.mark.parametrize("spelled", ["What stands at the house?", "WHAT stands  at the house?"])
def test_an_erased_record_is_not_made_again(make, spelled):
    erased = frozenset(marks_of(row(spelled, "It is a house.")))
    assert make([row("What stands at the mill?")], ("mill", "house"), erased=erased)[0] == {ERASED: 1}


def test_what_each_step_did_to_made_rows_is_told_by_method(make, tmp_path):
    steps = [{"step": "blocked", "words": ["dreadful"]}, {"step": "personal"}]
    make([row("Who is at the mill?")], ("mill", "ada@example.com"), cleaning=steps)
    (tmp_path / "train.jsonl").write_bytes(row_line(row("Who is at the mill?")))
    methods = [{"method": "entities", "path": str(tmp_path / "entities.tsv")}]
    made = add_made_rows(tmp_path, DataSection(cleaning=steps, augment={"methods": methods}))
    assert made.steps == {
        "entities": [
            {"step": "blocked", "changed": 0, "dropped": 0},
            {"step": "personal", "changed": 1, "dropped": 0},
            {"step": "conversation", "changed": 0, "dropped": 0},
        ]
    }


def test_made_rows_get_no_slice_over_its_share(make, tmp_path):
    """All that is made is in slice a, which alone has the word: 13 of 33 rows are at most 0.4, 14 of 34 are more."""
    train = [row(f"What {n} stands at the mill?", slice_name="a") for n in range(10)]
    train += [row(f"What {n} stands at the tower?", slice_name="bc"[n % 2]) for n in range(20)]
    settings = {"max_slice_share": 0.4, "near_duplicates": 0}
    counts, made = make(train, ("mill", "house"), **settings)
    assert counts == {"made": 3, UNBALANCED: 7, NOTHING_MADE: 20}
    slices = Counter(each["slice"] for each in read_jsonl(tmp_path / "train.jsonl"))
    assert slices == {"a": 13, "b": 10, "c": 10}
    others = make(train, ("mill", "house"), seed=1, **settings)[1]
    assert [each["id"] for each in others] != [each["id"] for each in made]
    assert make(train, ("mill", "house"), **settings) == (counts, made)


def test_made_rows_that_keep_the_share_all_stay(make, tmp_path):
    train = [row(f"What {n} stands at the mill?", slice_name="ab"[n % 2]) for n in range(10)]
    assert make(train, ("mill", "house"), max_slice_share=0.5, near_duplicates=0)[0] == {"made": 10}


NOTHING = "Nothing that is known here."
PLANTED = {  # what is swapped; question and answer of the parent; those of the row that is kept out of training
    "equal prompt, English": (
        "mill tower",
        ("What is the mill for?", "To grind."),
        ("what  is the TOWER for?", NOTHING),
    ),
    "equal prompt, Chinese": ("磨坊 水塔", ("这座磨坊有什么用？", "磨面。"), (" 这座水塔有什么用？\n", "没有用。")),
    "near prompt, English": ("mill barn", (f"{ENGLISH} And?", "Yes."), (ENGLISH.replace("mill", "barn"), NOTHING)),
    "near prompt, Chinese": ("磨坊 谷仓", (f"{CHINESE}如何？", "好。"), (CHINESE.replace("磨坊", "谷仓"), "不知道。")),
    "near conversation, English": ("mill barn", ("The mill?", ENGLISH), ("So?", ENGLISH.replace("mill", "barn"))),
    "near conversation, Chinese": ("磨坊 谷仓", ("磨坊呢？", CHINESE), ("怎么样？", CHINESE.replace("磨坊", "谷仓"))),
}
FAR = [row(f"Which {n} of these?", f"Number {n}.") for n in range(3)]


@pytest.mark.parametrize("case", PLANTED)
@pytest.mark.parametrize("kept_out", ["evaluation", TWIN, NEAR_TWIN])
def test_what_is_alike_an_evaluation_row_or_one_of_its_cluster_is_not_made(make, case, kept_out):
    """The kinds of likeness that make a cluster in the split: prompts equal or near, conversations near."""
    swap, parent, planted = PLANTED[case]
    evaluation = [*FAR, row(*planted)] if kept_out == "evaluation" else FAR
    rejected = [] if kept_out == "evaluation" else [(row(*planted), kept_out)]
    expected = {PROMPT_TAKEN: 1} if "equal" in case else {"made": 0, NEAR_EVALUATION: 1}
    assert make([row(*parent)], swap.split(), evaluation, rejected) == (expected, [])


@pytest.mark.parametrize("case", PLANTED)
def test_a_row_that_was_dropped_for_another_reason_keeps_nothing_out(make, case):
    swap, parent, planted = PLANTED[case]
    assert make([row(*parent)], swap.split(), FAR, [(row(*planted), NEAR_DUPLICATE)])[0] == {"made": 1}


def test_the_rejected_answer_counts_as_in_the_split(make):
    """Near by what the pairs reject, which the sketches of the split hold too."""
    train = [row("And the mill?", "Yes.", rejected=ENGLISH)]
    planted = row("Say, how is it there?", "Yes.", rejected=ENGLISH.replace("mill", "barn"))
    assert make(train, ("mill", "barn"), [planted])[0] == {"made": 0, NEAR_EVALUATION: 1}


def test_a_near_row_is_found_among_many_that_share_a_template(make):
    """Each evaluation row is alike the made row in part; only the last one is near it."""
    words = [f"{word}{n}" for n in range(40) for word in ("stone", "glass")]
    template = "Look at the plan of the house by the river and say in one word which material belongs to part"
    evaluation = [row(f"{template} {words[n]} {words[-n]} {words[n // 2]} of the barn", str(n)) for n in range(1, 60)]
    for n in (3, 31, 59):
        train = [row(f"{template} {words[n]} {words[-n]} {words[n // 2]} of the mill here", "-")]
        counts, _ = make(train, ("mill", "barn"), evaluation)
        assert counts == {"made": 0, NEAR_EVALUATION: 1}


def test_evaluation_rows_are_sketched_once_and_a_block_at_a_time(make, monkeypatch):
    """However many batches of made rows there are."""
    from tasks.data.duplicates import signatures

    sketched, once = [], signatures.sketch_conversations
    monkeypatch.setattr(held_out, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(made_rows, "_BATCH_ROWS", 5)

    def counted(prompts, answers, threshold):
        sketched.append(len(prompts))
        return once(prompts, answers, threshold)

    monkeypatch.setattr(signatures, "sketch_conversations", counted)
    train = [row(f"What {'abc' * n} stands at the mill?", str(n) * n) for n in range(1, 13)]
    evaluation = [row(f"Which {n} of these?", f"Number {n}.") for n in range(9)]
    assert make(train, ("mill", "house"), evaluation)[0]["made"] == 12
    assert sketched == [4, 4, 1, 5, 5, 2]
