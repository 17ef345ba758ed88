import html
import json
import re
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt

from tasks.contracts.artifacts import Interval, Memorised, Predictions, Preference
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.metric_names import DEFAULT_METRICS
from tasks.contracts.store import LookupOnlyStore, NotInStore, Store
from tasks.evaluation import steps
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.markdown import as_text
from tasks.evaluation.report import build_report, load_report
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import SideBySide, prompt_text

EVALUATION = EvaluationSection(resamples=200)
ROWS = 8
HOSTILE = (
    "<script>alert(1)</script> | ![x](http://evil.example/p.png) [click](javascript:alert(1)) `code` **bold**\n"
    "# Verdict: promote\n</td> &lt; @admin www.evil.example \x1b[31mred\x1b[0m \u202egnp.exe"
)


def lines_of(answer, ids=range(ROWS)):
    return [
        {
            "id": f"{n:064x}",
            "messages": [{"role": "user", "content": f"What does function number {n} do?"}],
            "reference": f"Return item number {n} of the list.",
            "answer": answer(n),
            "new_tokens": 7,
        }
        for n in ids
    ]


def stored(tmp_path, system, lines):
    """Predictions in the store, as generation leaves them."""

    def write(out):
        return {"rows": write_jsonl(out / "predictions.jsonl", lines)}

    entry = Store(tmp_path / "store").produce("predictions", {"system": system}, write)
    return Predictions(entry.path, entry.digest, entry.facts["rows"], 1.0)


@pytest.fixture
def predictions(tmp_path):
    answers = {
        "candidate": lambda n: f"Return item {n} of the list.",
        "champion": lambda n: f"Return number {n}.",
        "base": lambda n: HOSTILE if n == 0 else f"It does {n} things.",
    }
    return {system: stored(tmp_path, system, lines_of(answer)) for system, answer in answers.items()}


@pytest.fixture
def report(tmp_path, predictions):
    return build_report(predictions, EVALUATION, Store(tmp_path / "store"))


def test_the_report_holds_what_scoring_said(report, predictions):
    answers = {
        system: [line["answer"] for line in read_jsonl(answered.path / "predictions.jsonl")]
        for system, answered in predictions.items()
    }
    references = [line["reference"] for line in lines_of(str)]
    scored = score_systems(SideBySide([], [], references, answers), EVALUATION)
    assert tuple(getattr(report, name) for name in scored._fields[:-1]) == scored[:-1]
    assert report.examples == ROWS


def test_the_report_reads_back_as_it_was(report):
    again = load_report(report.path)
    assert again == report
    assert list(again.scores) == ["base", "champion", "candidate"]
    assert list(again.scores["base"]) == [name for name in DEFAULT_METRICS if name != "perplexity"]


def test_a_report_holds_what_a_judge_preferred_and_one_of_before_holds_none(tmp_path, predictions, report):
    assert report.preferences == ()
    said = Preference("judge", ("m",), "base", 8, 5, 2, 1, Interval(0.75, 0.6, 0.9), 0.1, 0.98, agreement=None)
    told = build_report(predictions, EVALUATION, Store(tmp_path / "store"), Evidence(preferences=(said,)))
    assert told.path != report.path and load_report(told.path).preferences == (said,)
    config = RetrainConfig(evaluation=EVALUATION)
    assert (
        steps.build_report.fn(predictions, config, Store(tmp_path / "store"), None, (), Evidence(preferences=(said,)))
        == told
    )
    facts = json.loads((report.path / "report.json").read_text(encoding="utf-8"))
    del facts["preferences"]
    (report.path / "report.json").write_text(json.dumps(facts), encoding="utf-8")
    assert load_report(report.path).preferences == ()


def test_answers_stand_side_by_side_under_their_systems(report):
    lines = list(read_jsonl(report.path / "predictions.jsonl"))
    assert len(lines) == ROWS
    assert lines[1] == {
        "id": f"{1:064x}",
        "slice": "",
        "prompt": "What does function number 1 do?",
        "reference": "Return item number 1 of the list.",
        "base": "It does 1 things.",
        "champion": "Return number 1.",
        "candidate": "Return item 1 of the list.",
        "scores": lines[1]["scores"],
    }
    assert lines[1]["scores"]["candidate"]["rougeL"] > lines[1]["scores"]["base"]["rougeL"]
    assert lines[0]["base"] == HOSTILE


def test_nobody_is_judged_on_rows_that_the_champion_was_trained_on(tmp_path, predictions):
    learned = tmp_path / "train.jsonl"
    lines = lines_of(str)
    asked = [[{**message, "content": message["content"].upper()} for message in lines[n]["messages"]] for n in (1, 3)]
    write_jsonl(learned, ({"messages": [*prompt, {"role": "assistant", "content": "other"}]} for prompt in asked))
    report = build_report(predictions, EVALUATION, Store(tmp_path / "store"), Evidence(champion_learned=(learned,)))
    assert report.examples == ROWS - 2
    kept = [line["id"] for line in read_jsonl(report.path / "predictions.jsonl")]
    assert kept == [line["id"] for n, line in enumerate(lines) if n not in (1, 3)]
    everything = ({"messages": [*line["messages"], {"role": "assistant", "content": "x"}]} for line in lines)
    write_jsonl(learned, everything)
    with pytest.raises(EvaluationError, match=rf"was trained on all {ROWS} evaluation rows"):
        build_report(predictions, EVALUATION, Store(tmp_path / "store"), Evidence(champion_learned=(learned,)))
    learned.unlink()
    with pytest.raises(EvaluationError, match=r"train\.jsonl are lost"):
        build_report(predictions, EVALUATION, Store(tmp_path / "store"), Evidence(champion_learned=(learned,)))


def test_rows_that_the_champion_could_replay_judge_nobody_either(tmp_path, predictions):
    lines = lines_of(str)
    for folder, number in (("champion", 2), ("replayed", 4)):
        (tmp_path / folder).mkdir()
        row = {"messages": [*lines[number]["messages"], {"role": "assistant", "content": "other"}]}
        write_jsonl(tmp_path / folder / "train.jsonl", [row])
    champion = SimpleNamespace(dataset_path=tmp_path / "champion", replay_path=tmp_path / "replayed")
    store = Store(tmp_path / "store")
    built = steps.build_report.fn(predictions, RetrainConfig(evaluation=EVALUATION), store, champion)
    kept = [line["id"] for line in read_jsonl(built.path / "predictions.jsonl")]
    assert kept == [line["id"] for n, line in enumerate(lines) if n not in (2, 4)]


def test_the_step_reads_the_champion_s_training_rows_and_says_how_many_rows_it_left_out(tmp_path, predictions, caplog):
    lines = lines_of(str)
    learned = [{"messages": [*lines[2]["messages"], {"role": "assistant", "content": "other"}]}]
    (tmp_path / "champion").mkdir()
    write_jsonl(tmp_path / "champion" / "train.jsonl", learned)
    champion = SimpleNamespace(dataset_path=tmp_path / "champion", replay_path=None)
    config, store = RetrainConfig(evaluation=EVALUATION), Store(tmp_path / "store")
    assert steps.build_report.fn(predictions, config, store, champion).examples == ROWS - 1
    assert f"1 of {ROWS} evaluation rows are left out: the champion was trained on them" in caplog.text
    caplog.clear()
    assert steps.build_report.fn(predictions, config, store, None).examples == ROWS
    assert "left out: the champion" not in caplog.text


def test_rows_that_the_candidate_was_trained_on_are_counted_in_the_report_and_by_the_step(tmp_path, predictions):
    rows = lines_of(str)
    train = tmp_path / "data" / "train.jsonl"
    train.parent.mkdir()
    learned = [[*rows[n]["messages"], {"role": "assistant", "content": "other"}] for n in (0, 5)]
    write_jsonl(train, ({"messages": messages} for messages in learned))
    store, config = Store(tmp_path / "store"), RetrainConfig(evaluation=EVALUATION)
    assert build_report(predictions, EVALUATION, store).leaked_rows == 0
    assert build_report(predictions, EVALUATION, store, Evidence(trained_on=(train,))).leaked_rows == 2
    dataset = SimpleNamespace(path=train.parent)
    assert steps.build_report.fn(predictions, config, store, None, (dataset,)).leaked_rows == 2


def test_what_canaries_said_stands_in_the_report_and_makes_it_another_one(tmp_path, predictions):
    store, config = Store(tmp_path / "store"), RetrainConfig(evaluation=EVALUATION)
    found = Memorised(2, 1, (5.0, 0.5))
    reported = steps.build_report.fn(predictions, config, store, None, (), Evidence(memorised=found))
    assert reported.memorised == found
    assert build_report(predictions, EVALUATION, store).memorised is None


def test_slices_likelihoods_second_answers_and_sizes_reach_the_report(tmp_path):
    def answered(system, nats, size):
        lines = lines_of(lambda n: f"Return item {n}.")
        for n, line in enumerate(lines):
            line |= {"slice": "even" if n % 4 else "odd", "reference_nats": nats, "reference_tokens": 10}
            if n < 2:
                line |= {"again": "Something else." if n else line["answer"], "seconds": 0.5 + n}
        kept = stored(tmp_path, system, lines)
        return Predictions(kept.path, kept.digest, kept.rows, 1.0, size)

    found = {"base": answered("base", 20.0, 5), "candidate": answered("candidate", 10.0, 7)}
    report = build_report(found, EVALUATION, Store(tmp_path / "store"))
    assert report.differences["base"]["perplexity"].high < 0
    assert {name: part.examples for name, part in report.slices.items()} == {"even": 6}
    served = report.served["candidate"]
    assert (served.bytes, served.asked_again, served.changed, served.median_seconds) == (7, 2, 1, 1.0)
    assert served.noise["rougeL"].value < 0


def test_without_a_champion_there_is_no_champion_column(tmp_path, predictions):
    del predictions["champion"]
    report = build_report(predictions, EVALUATION, Store(tmp_path / "store"))
    assert list(report.differences) == ["base"]
    assert "champion" not in next(read_jsonl(report.path / "predictions.jsonl"))
    assert "champion" not in (report.path / "report.md").read_text(encoding="utf-8")


def test_the_markdown_shows_scores_with_intervals_and_signed_differences(report):
    markdown = (report.path / "report.md").read_text(encoding="utf-8")
    score, difference = report.scores["candidate"]["bleu"], report.differences["base"]["rougeL"]
    assert f"{score.value:.1f} ({score.low:.1f} to {score.high:.1f})" in markdown
    assert f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})" in markdown
    assert "95 % intervals" in markdown
    assert all(signature in markdown for signature in report.signature.values())


def test_hostile_answers_stay_text_in_the_markdown(report):
    """A renderer that even passes HTML through finds no markup in them, and shows them as they were."""
    markdown = (report.path / "report.md").read_text(encoding="utf-8")
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    tags = set(re.findall(r"<(/?\w+)", page))
    assert {tag.strip("/") for tag in tags} == {
        "h2",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "p",
        "ul",
        "li",
        "code",
    }
    shown = html.unescape(page)
    assert "<script>alert(1)</script> | ![x](http://evil.example/p.png) [click](javascript:alert(1)) `code`" in shown
    assert "**bold** ⏎ # Verdict: promote ⏎ </td> &lt; @admin www.evil.example �[31mred�[0m �gnp.exe" in shown


def test_hostile_addresses_are_not_linked_by_renderers_that_link_bare_ones(report):
    markdown = (report.path / "report.md").read_text(encoding="utf-8")
    assert "evil" in markdown
    assert not re.search(r"https?:|www\.|(?<!\\)@", markdown)


def test_every_line_of_a_sample_table_has_two_cells(report):
    markdown = (report.path / "report.md").read_text(encoding="utf-8")
    samples = markdown.split("## The first")[1]
    table = [line for line in samples.splitlines() if line.startswith("|")]
    assert len(table) == 5 * 7
    assert all(line.replace("\\|", "").count("|") == 3 for line in table)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("*a* _b_ `c` [d] ~e~ |f|", r"\*a\* \_b\_ \`c\` \[d\] \~e\~ \|f\|"),
        (r"\<", r"\\&lt;"),
        ("one\r\ntwo\n\n  three\u2028four", "one ⏎ two ⏎ three ⏎ four"),
        ("a\x00b\u202ec\ttab", "a�b�c tab"),
        ("返回 👩\u200d💻", "返回 👩\u200d💻"),
        ("x" * 500, "x" * 400 + "…"),
    ],
)
def test_text_is_escaped_as(text, shown):
    assert as_text(text) == shown


def test_the_same_predictions_are_scored_once(tmp_path, predictions, report):
    assert build_report(predictions, EVALUATION, LookupOnlyStore(tmp_path / "store")) == report


def test_another_seed_or_another_answer_is_another_report(tmp_path, predictions, report):
    found = LookupOnlyStore(tmp_path / "store")
    with pytest.raises(NotInStore):
        build_report(predictions, EvaluationSection(resamples=200, seed=18), found)
    changed = stored(tmp_path, "changed", lines_of(lambda n: f"Other {n}."))
    with pytest.raises(NotInStore):
        build_report({**predictions, "candidate": changed}, EVALUATION, found)


def test_systems_that_answered_other_rows_are_an_error(tmp_path, predictions):
    other = stored(tmp_path, "other", lines_of(str, ids=range(1, ROWS + 1)))
    with pytest.raises(EvaluationError, match=r"row 0 of candidate has the id .* same rows in the same order"):
        build_report({**predictions, "candidate": other}, EVALUATION, Store(tmp_path / "store"))


def test_systems_that_answered_in_another_order_are_an_error(tmp_path, predictions):
    other = stored(tmp_path, "other", lines_of(str)[::-1])
    with pytest.raises(EvaluationError, match="same rows in the same order"):
        build_report({**predictions, "candidate": other}, EVALUATION, Store(tmp_path / "store"))


def test_systems_that_answered_fewer_rows_are_an_error(tmp_path, predictions):
    other = stored(tmp_path, "other", lines_of(str)[:5])
    with pytest.raises(EvaluationError, match="candidate answered 5 rows and base 8"):
        build_report({**predictions, "candidate": other}, EVALUATION, Store(tmp_path / "store"))


def test_a_line_without_its_answer_is_an_error_with_its_number(tmp_path, predictions):
    lines = lines_of(str)
    del lines[2]["answer"]
    other = stored(tmp_path, "other", lines)
    with pytest.raises(EvaluationError, match=r"line 3 of .* has no answer"):
        build_report({**predictions, "candidate": other}, EVALUATION, Store(tmp_path / "store"))


def test_predictions_that_lost_rows_are_an_error(tmp_path, predictions):
    short = Predictions(predictions["base"].path, "digest", ROWS + 1, 1.0)
    with pytest.raises(EvaluationError, match="have 8 rows; expected 9"):
        build_report({**predictions, "base": short}, EVALUATION, Store(tmp_path / "store"))


def test_a_missing_file_of_predictions_is_an_error(tmp_path, predictions):
    gone = Predictions(tmp_path / "gone", "digest", ROWS, 1.0)
    with pytest.raises(EvaluationError, match=r"predictions of base at .* cannot be read"):
        build_report({**predictions, "base": gone}, EVALUATION, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("systems", "sentence"),
    [
        ((), "there are no predictions"),
        (("candidate",), "expected base and candidate"),
        (("base", "candidate", "rival"), "'rival' is not a system"),
    ],
)
def test_missing_and_unknown_systems_are_an_error(tmp_path, predictions, systems, sentence):
    chosen = {system: predictions.get(system, predictions["base"]) for system in systems}
    with pytest.raises(EvaluationError, match=sentence):
        build_report(chosen, EVALUATION, Store(tmp_path / "store"))


def test_a_directory_without_a_report_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match="no complete evaluation report"):
        load_report(tmp_path)


def test_a_report_without_its_manifest_is_an_error(tmp_path, report):
    (tmp_path / "report.json").write_text(json.dumps({"examples": 1}), encoding="utf-8")
    with pytest.raises(EvaluationError, match="no complete evaluation report"):
        load_report(tmp_path)


def test_a_prompt_of_several_messages_names_their_roles():
    user = {"role": "user", "content": "Hello"}
    assert prompt_text([user]) == "Hello"
    assert prompt_text([{"role": "system", "content": "Be brief."}, user]) == "system: Be brief.\n\nuser: Hello"
