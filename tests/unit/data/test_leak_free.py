"""Nothing that is evaluated has a twin in training: planted families in English and Chinese, across files.

What belongs together is known from how the rows were made, not from what finds it.
"""

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.source_config import FilesSource
from tasks.contracts.store import Store, read_manifest
from tasks.data import ingest, part
from tasks.data.build import build_dataset
from tasks.data.execution import executors

LATIN = "abcdefghijklmnopqrstuvwxyz"
HAN = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 800))


@dataclass
class Corpus:
    """Records, and for each prompt as it is asked which family it is of.

    Attributes:
        records: as a source has them.
        family: (number of the family) of the text of each user message that ends a prompt.
        exact: the same, but families fall apart into what is equal: by prompt, and by dialogue.
    """

    records: list[dict] = field(default_factory=list)
    family: dict[str, int] = field(default_factory=dict)
    exact: dict[str, object] = field(default_factory=dict)

    def add(self, number: int, twins: object, department: str, *messages: str) -> None:
        """Add a conversation whose last question is of a family, and has the exact twins that `twins` names."""
        roles = ("user", "assistant")
        chat = [{"role": roles[place % 2], "content": text} for place, text in enumerate(messages)]
        self.records.append({"messages": chat, "department": department})
        self.family[key(messages[-2])] = number
        self.exact[key(messages[-2])] = twins


def key(text):
    return " ".join(text.lower().split())


def text_of(draw, chinese, units):
    if chinese:
        return "".join(draw.choice(HAN) for _ in range(units * 2)) + "。"
    return " ".join("".join(draw.choices(LATIN, k=draw.randint(3, 9))) for _ in range(units))


def changed(draw, text, chinese):
    """Change one word of a text of forty or more: about 0.9 of the shingles stay."""
    if chinese:
        place = draw.randrange(len(text) - 2)
        return text[:place] + draw.choice(HAN) + text[place + 1 :]
    words = text.split()
    words[draw.randrange(len(words))] = text_of(draw, False, 1)
    return " ".join(words)


def planted(seed, families=60):
    """Make families: a question, paraphrases, copies in other letters, other answers, later turns."""
    draw = random.Random(seed)
    corpus = Corpus()
    for number in range(families):
        chinese = number % 2 == 1
        department = "zh" if chinese else ("long" if number % 4 else "short")
        ask, answer = text_of(draw, chinese, 40), text_of(draw, chinese, 30)
        corpus.add(number, number, department, ask, answer)
        for member in draw.sample(("copy", "answered", "asked", "repeated", "turn", "turns"), draw.randint(0, 3)):
            again, other = text_of(draw, chinese, 30), text_of(draw, chinese, 20)
            match member:
                case "copy":
                    corpus.add(number, number, department, f" {ask.upper()}\n", answer)
                case "answered":
                    corpus.add(number, number, department, ask, other)
                case "asked":
                    corpus.add(number, (number, member), department, changed(draw, ask, chinese), other)
                case "repeated":
                    paraphrase = changed(draw, ask, chinese)
                    corpus.add(number, (number, member), department, paraphrase, changed(draw, answer, chinese))
                case "turn":
                    corpus.add(number, number, department, ask, answer, again, other)
                case "turns":
                    longer = (ask, answer, again, other, text_of(draw, chinese, 30), text_of(draw, chinese, 20))
                    corpus.add(number, number, department, *longer)
    return corpus


@pytest.fixture
def build(place, tmp_path):
    """Build a data version of records dealt out to files, each named alike, because a row tells its file's name."""
    made = iter(range(1_000))

    def written(records, files):
        sources = []
        for number in range(files):
            directory = tmp_path / f"files-{next(made)}"
            directory.mkdir()
            path = directory / "rows.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in records[number::files]))
            sources.append(FilesSource(path=str(path), slice_column="department"))
        return tuple(sources)

    def run(records, evaluation=(), files=3, store=place.store, **settings):
        there = replace(place, store=store)
        own = written(evaluation, 2) if evaluation else ()
        data = DataSection(
            sources=written(records, files),
            evaluation_sources=own,
            **{"train_rows": 10_000, "eval_rows": 15, **settings},
        )
        rows = ingest.ingest(data, there, data.sources)
        return build_dataset(rows, ingest.ingest(data, there, own) if own else None, data, there)

    return run


def rows_of(dataset, split):
    return list(read_jsonl(dataset.path / f"{split}.jsonl"))


def families_of(dataset, split, family):
    """Return which families are asked in a split, by the user's last message."""
    return {family[key(row["messages"][-2]["content"])] for row in rows_of(dataset, split)}


def assert_no_leak(dataset, corpus, near_duplicates):
    family = corpus.family if near_duplicates else corpus.exact
    train, evaluation = (families_of(dataset, split, family) for split in ("train", "eval"))
    assert len(train) > 20
    assert len(evaluation) >= 10
    assert not train & evaluation


def assert_it_adds_up(dataset):
    rejected = Counter(record["reason"] for record in read_jsonl(dataset.path / "rejected.jsonl"))
    counts = len(rows_of(dataset, "train")), len(rows_of(dataset, "eval"))
    assert (*counts, rejected) == (dataset.train_rows, dataset.eval_rows, dataset.rejected)
    assert dataset.rows_read == sum(counts) + rejected.total()
    for account in read_manifest(dataset.path)["facts"]["origins"].values():
        parts = account["train_rows"] + account["eval_rows"] + sum(account["rejected"].values())
        assert account["rows_read"] == parts


def assert_only_the_named_row_is_why(dataset):
    """What was kept out of training names a row that is evaluated."""
    evaluated = {row["id"] for row in rows_of(dataset, "eval")}
    for record in read_jsonl(dataset.path / "rejected.jsonl"):
        if record["reason"].endswith("twin of an evaluation row"):
            assert evaluated & set(record["detail"].replace(",", " ").split())


near = pytest.mark.parametrize("near_duplicates", [0, 0.8])


@near
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_held_out_rows_have_no_twin_in_training_and_the_counts_close(build, near_duplicates, seed):
    corpus = planted(seed)
    dataset = build(corpus.records, near_duplicates=near_duplicates)
    assert dataset.eval_rows == 15
    assert_no_leak(dataset, corpus, near_duplicates)
    assert_it_adds_up(dataset)
    assert_only_the_named_row_is_why(dataset)
    if near_duplicates:
        assert dataset.rejected["near duplicate"] >= 5
        assert dataset.rejected["near twin of an evaluation row"] >= 5


@near
def test_an_own_evaluation_set_has_no_twin_in_training_and_the_counts_close(build, near_duplicates):
    """The own set asks what the sources ask: equal, in other words, or a later turn."""
    corpus = planted(3)
    by_family = defaultdict(list)
    for record in corpus.records:
        by_family[corpus.family[key(record["messages"][-2]["content"])]].append(record)
    evaluation = [by_family[number][-1] for number in range(0, 60, 3)]
    dataset = build(corpus.records, evaluation, near_duplicates=near_duplicates)
    assert dataset.eval_rows == 15
    assert_no_leak(dataset, corpus, near_duplicates)
    assert_it_adds_up(dataset)
    assert_only_the_named_row_is_why(dataset)


@near
def test_a_frozen_evaluation_set_has_no_twin_among_new_rows_and_the_counts_close(build, near_duplicates):
    corpus = planted(4)
    first = build(corpus.records[::2], near_duplicates=near_duplicates)
    dataset = build(
        corpus.records, near_duplicates=near_duplicates, frozen_evaluation=first.digest, cleaning=({"step": "unicode"},)
    )
    assert dataset.eval_digest == first.eval_digest
    assert_no_leak(dataset, corpus, near_duplicates)
    assert_it_adds_up(dataset)
    assert_only_the_named_row_is_why(dataset)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_row_dropped_as_a_near_duplicate_still_joins_who_asks_what_it_asked(build, frozen):
    """Two questions with one long answer, one of which is asked again and answered otherwise, are one cluster."""
    draw = random.Random(5)
    groups = []
    for number in range(40):
        first, second = (f"{text_of(draw, number % 2, 6)} {mark}" for mark in "AB")
        long, other = text_of(draw, number % 2, 120), text_of(draw, number % 2, 30)
        groups.append([(first, long), (second, long), (second, other)])
    asked = {key(question): number for number, group in enumerate(groups) for question, _ in group}
    records = [
        {"instruction": question, "output": answer, "department": "one"}
        for group in groups
        for question, answer in group
    ]
    settings = {}
    if frozen:
        settings["frozen_evaluation"] = build(records[::3], eval_rows=12).digest
    dataset = build(records, **settings)
    assert dataset.rejected["near duplicate"] >= 20
    train, evaluation = (families_of(dataset, split, asked) for split in ("train", "eval"))
    assert len(evaluation) >= 8
    assert len(train) >= 20
    assert not train & evaluation
    assert_it_adds_up(dataset)


@near
def test_evaluation_rows_are_divided_among_slices_as_their_clusters_are(build, near_duplicates):
    """Half of the families are Chinese, a quarter each are of the other two departments."""
    dataset = build(planted(5).records, eval_rows=16, near_duplicates=near_duplicates)
    counts = Counter(row["slice"] for row in rows_of(dataset, "eval"))
    clusters = Counter(row["slice"] for row in rows_of(dataset, "train")) + counts
    assert set(counts) == {"zh", "long", "short"}
    for name, count in counts.items():
        assert abs(count - 16 * clusters[name] / clusters.total()) < 3
    if near_duplicates:
        assert counts == {"zh": 8, "long": 4, "short": 4}


@near
def test_quotas_hold_and_what_is_over_them_is_counted(build, near_duplicates):
    dataset = build(planted(6).records, train_rows=25, eval_rows=5, near_duplicates=near_duplicates)
    assert (dataset.train_rows, dataset.eval_rows) == (25, 5)
    assert dataset.rejected["not selected"] > 20
    assert_it_adds_up(dataset)


def variants(corpus, seed):
    """Deal the records out anew: shuffled, to another number of files."""
    draw = random.Random(seed)
    return draw.sample(corpus.records, len(corpus.records)), draw.choice((1, 2, 5, 9))


@near
@pytest.mark.parametrize("kind", ["held out", "own", "frozen"])
@pytest.mark.parametrize("seed", [7, pytest.param(8, marks=pytest.mark.slow)])
def test_how_rows_are_dealt_out_to_files_changes_no_digest(build, tmp_path, monkeypatch, kind, near_duplicates, seed):
    """Every order and number of files, and of files that the second half works on, gives the same bytes."""
    corpus = planted(seed, families=40)
    evaluation = corpus.records[:30:2] if kind == "own" else ()
    settings = {"near_duplicates": near_duplicates, "max_slice_share": 0.7, "eval_rows": 8}
    found = set()
    for trial in range(3):
        records, files = variants(corpus, f"{seed} {trial}")
        monkeypatch.setattr(part, "CHUNK_BYTES", (4 << 20, 3_000, 20_000)[trial])
        store = Store(tmp_path / f"store-{trial}")
        frozen = {}
        if kind == "frozen":
            first = build(corpus.records[::2], store=store, **settings)
            frozen = {"frozen_evaluation": first.digest, "cleaning": ({"step": "whitespace", "max_empty_lines": 0},)}
        dataset = build(records, evaluation, files, store, **settings, **frozen)
        found.add((dataset.digest, dataset.eval_digest, json.dumps(dataset.rejected, sort_keys=True)))
    assert len(found) == 1


@pytest.mark.slow
def test_two_processes_divide_planted_rows_as_one_does(build, tmp_path, monkeypatch):
    corpus = planted(9)
    expected = build(corpus.records, near_duplicates=0.8, execution={"processes": 1})
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    monkeypatch.setattr(part, "CHUNK_BYTES", 5_000)
    records, _ = variants(corpus, 9)
    store = Store(tmp_path / "other")
    dataset = build(records, files=4, store=store, near_duplicates=0.8, execution={"processes": 2})
    assert (dataset.digest, dataset.rejected) == (expected.digest, expected.rejected)
