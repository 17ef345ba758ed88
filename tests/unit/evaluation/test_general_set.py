"""The general-ability set: read, kept apart from training, scored beside the rest, judged, and shown."""

import json
import math
from pathlib import Path

import pytest
from steady_systems import STEADY

from tasks.contracts.artifacts import DatasetRef, Difference, EvalReport, Part, Predictions
from tasks.contracts.config import RetrainConfig, load_config
from tasks.contracts.errors import ConfigError, EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.evaluation_sets import OWN_GENERAL_SET
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.evaluation import steps
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.gate import decide
from tasks.evaluation.general_set import prepare_general
from tasks.evaluation.metrics.reference_nats import ReferenceNats
from tasks.evaluation.report import build_report, load_report
from tasks.evaluation.review.page import Background, render_page
from tasks.registry.versions import gate_digest

EVALUATION = EvaluationSection(resamples=200, randomisations=1_000)
BETTER = Difference(0.10, 0.06, 0.14, p_better=0.0001, p_worse=1.0)
FINE = {"rougeL": BETTER, "bleu": BETTER, "chrf": BETTER}
ROWS = 24


def chat(question, answer="Yes."):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def trained_on(tmp_path, *questions):
    write_jsonl(tmp_path / "train.jsonl", [chat(question) for question in questions])
    return DatasetRef(tmp_path, "", len(questions), len(questions), 0, {}, "")


def own_set(tmp_path, *lines):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return EvaluationSection(general_path=str(path))


def test_the_projects_own_set_is_there_in_two_languages_with_short_answers(tmp_path):
    general = prepare_general(EvaluationSection(general=True), (), Store(tmp_path))
    rows = list(read_jsonl(general.path / "eval.jsonl"))
    assert 40 <= general.eval_rows == len(rows) <= 60
    assert {row["slice"] for row in rows} == {"en", "zh"}
    assert all(len(row["messages"]) == 2 and len(row["messages"][1]["content"]) < 120 for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert prepare_general(EvaluationSection(general=False), (), Store(tmp_path)) is None


def test_the_package_carries_the_set():
    settings = Path("pyproject.toml").read_text(encoding="utf-8")
    assert '"tasks.evaluation" = ["*.jsonl"]' in settings
    assert OWN_GENERAL_SET.parent == Path("tasks/evaluation").absolute()


def test_a_set_of_ones_own_takes_its_place(tmp_path):
    general = prepare_general(own_set(tmp_path, chat("Who?"), {**chat("Why?"), "slice": "w"}), (), Store(tmp_path))
    rows = list(read_jsonl(general.path / "eval.jsonl"))
    assert [(row["messages"][0]["content"], row["slice"]) for row in rows] == [("Who?", ""), ("Why?", "w")]
    assert general.eval_rows == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["not json\n"], "line 1 is no conversation"),
        ([chat("Who?"), {"messages": "Who?"}], "line 2 is no conversation"),
        ([{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "a"}]}], "line 1 is no conv"),
        ([{"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "a"}]}], "is no conv"),
        ([[1, 2]], "line 1 is no conversation"),
        ([{"messages": [{"role": "assistant", "content": "a"}]}], "line 1 has no question with an answer"),
        ([chat("Who?", " ")], "line 1 has no question with an answer"),
        ([chat("Who?"), chat("Why?"), chat(" WHO? ")], "line 3 asks what line 1 asks"),
        ([], "which is empty"),
    ],
)
def test_what_is_no_set_is_refused_with_its_line(tmp_path, lines, said):
    with pytest.raises(ConfigError, match=r"evaluation\.general_path is") as refused:
        prepare_general(own_set(tmp_path, *lines), (), Store(tmp_path))
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_refused_before_anything_else(tmp_path):
    missing = EvaluationSection(general_path=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl', which cannot be read \(No such file"):
        prepare_general(missing, (), Store(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        gate_digest(RetrainConfig(evaluation=missing))


def test_training_rows_that_ask_what_it_asks_are_counted_and_refused(tmp_path):
    evaluation = own_set(tmp_path, chat("Who?"), chat("Why?"), chat("When?"))
    assert prepare_general(evaluation, (trained_on(tmp_path, "Where?"),), Store(tmp_path)).eval_rows == 3
    with pytest.raises(EvaluationError, match=r"2 of 3 questions .* asked in training rows \('Why\?'\)"):
        prepare_general(evaluation, (trained_on(tmp_path, "Where?", " why?", "WHEN?"),), Store(tmp_path))
    with pytest.raises(EvaluationError, match="1 of 3 questions"):
        steps.prepare_general.fn(RetrainConfig(evaluation=evaluation), (trained_on(tmp_path, "Who?"),), Store(tmp_path))


def test_other_rows_of_the_set_are_another_gate(tmp_path):
    """So that a finished run is not taken for one that asked something else."""
    evaluation = own_set(tmp_path, chat("Who?"))
    before = gate_digest(RetrainConfig(evaluation=evaluation))
    assert gate_digest(RetrainConfig(evaluation=evaluation)) == before
    own_set(tmp_path, chat("Who?"), chat("Why?"))
    assert gate_digest(RetrainConfig(evaluation=evaluation)) != before


def test_settings_of_a_set_that_is_not_asked_change_no_verdict(tmp_path):
    off = RetrainConfig(evaluation={"general": False})
    changed = RetrainConfig(evaluation={"general": False, "general_path": "x.jsonl"}, gate={"general_margin": 0.3})
    assert gate_digest(changed) == gate_digest(off) != gate_digest(RetrainConfig(evaluation={"general": True}))
    asked = [RetrainConfig(evaluation={"general": True}, gate={"general_margin": margin}) for margin in (0.1, 0.3)]
    assert gate_digest(asked[0]) != gate_digest(asked[1])


def test_a_relative_path_counts_from_its_file(tmp_path):
    (tmp_path / "config.yaml").write_text("evaluation: {general_path: mine.jsonl}")
    assert load_config(file=tmp_path / "config.yaml").evaluation.general_path == str(tmp_path / "mine.jsonl")


def answered(store, name, nats, text="It is so.", with_likelihoods=True, rows=ROWS):
    def write(out):
        lines = [
            {
                "id": f"{n:064x}",
                "slice": "en",
                "messages": [{"role": "user", "content": f"Question {n}?"}],
                "reference": f"It is {n}.",
                "answer": text,
                **({"reference_nats": float(nats + n % 5), "reference_tokens": 1 + n % 10} if with_likelihoods else {}),
            }
            for n in range(rows)
        ]
        return {"rows": write_jsonl(out / "predictions.jsonl", lines)}

    entry = store.produce("predictions", {"name": name}, write)
    return Predictions(entry.path, entry.digest, rows, 1.0)


def test_the_set_is_in_the_report_and_not_in_the_scores(tmp_path):
    store = Store(tmp_path)
    main = {name: answered(store, f"main {name}", 9, f"It is {name}.") for name in ("base", "candidate")}
    general = {"base": answered(store, "base", 1), "candidate": answered(store, "candidate", 2)}
    plain = build_report(main, EVALUATION, store)
    report = build_report(main, EVALUATION, store, Evidence(general=general))
    assert (plain.general, plain.scores, plain.differences) == (None, report.scores, report.differences)
    assert report.general.examples == ROWS
    expected = sum(1 / (1 + n % 10) for n in range(ROWS)) / ROWS  # a nat more a reference, of so many tokens
    assert report.general.differences["base"]["reference_nats"].value == pytest.approx(expected)
    assert list(report.general.scores["candidate"]) == ["reference_nats", "rougeL"]
    assert load_report(report.path).general == report.general
    shown = next(read_jsonl(report.path / "general.jsonl"))
    assert (shown["prompt"], shown["base"], shown["candidate"]) == ("Question 0?", "It is so.", "It is so.")
    other = {**general, "candidate": answered(store, "another candidate", 3)}
    assert build_report(main, EVALUATION, store, Evidence(general=other)).general != report.general


def test_a_champion_that_says_no_likelihoods_is_left_out_of_it(tmp_path):
    store = Store(tmp_path)
    main = {name: answered(store, f"main {name}", 9) for name in ("base", "champion", "candidate")}
    general = {"base": answered(store, "base", 1), "candidate": answered(store, "candidate", 2)}
    silent = {**general, "champion": answered(store, "champion", 1, with_likelihoods=False)}
    assert list(build_report(main, EVALUATION, store, Evidence(general=silent)).general.differences) == ["base"]
    telling = {**general, "champion": answered(store, "telling", 1)}
    assert list(build_report(main, EVALUATION, store, Evidence(general=telling)).general.differences) == [
        "base",
        "champion",
    ]


def test_reference_nats_are_the_mean_over_rows_and_not_over_tokens():
    result = ReferenceNats().compute(predictions=[10.0, 3.0], references=[10.0, 1.0])
    assert result["reference_nats"] == pytest.approx(2.0)
    assert "examples:2" in result["signature"]


def report_of(nats=None, rows=48):
    differences = {"rougeL": BETTER} | ({"reference_nats": nats} if nats else {})
    general = Part(rows, {}, {"base": differences, "champion": {"reference_nats": loss_of(9)}})
    fine = {"base": FINE, "champion": FINE}
    return EvalReport(Path("/nowhere"), "", 64, {}, fine, {}, general=general, served=STEADY)


def loss_of(value, half=0.01):
    return Difference(value, value - half, value + half, p_better=0.5, p_worse=0.5)


def judged(report, has_champion=False, **gate):
    decision = decide(report, GateSection(**{"general_margin": 0.1, **gate}), has_champion)
    return decision, next((each for each in decision.findings if each.rule == "general ability"), None)


@pytest.mark.parametrize(
    ("loss", "outcome", "verdict"),
    [
        (loss_of(-0.5), "passed", "promote"),
        (loss_of(0.085), "passed", "promote"),
        (loss_of(0.0, half=0.2), "open", "inconclusive"),
        (loss_of(0.0899), "open", "inconclusive"),
        (loss_of(0.1), "open", "inconclusive"),
        (loss_of(0.12), "failed", "reject"),
        (loss_of(math.nan), "open", "inconclusive"),
    ],
)
@pytest.mark.parametrize("has_champion", [False, True])
def test_a_loss_of_the_margin_against_the_base_must_be_ruled_out(loss, outcome, verdict, has_champion):
    """0.0899 + 0.01 is below 0.1; the interval of 48 rows is wider than that. The champion's figure is not judged."""
    decision, finding = judged(report_of(loss), has_champion)
    assert (finding.outcome, decision.verdict) == (outcome, verdict)
    assert finding.sentence.startswith(
        "reference_nats (lower is better) of the general-ability set (48 rows) changed by"
    )
    assert "gate.general_margin" in finding.sentence


def test_without_likelihoods_or_with_few_rows_it_is_open_and_says_so():
    decision, finding = judged(report_of())
    assert (finding.outcome, decision.verdict) == ("open", "inconclusive")
    assert "does not say how likely references are" in finding.sentence
    decision, finding = judged(report_of(loss_of(0.0), rows=19))
    assert (finding.outcome, decision.verdict) == ("open", "inconclusive")
    assert "has 19 rows" in finding.sentence


def test_a_report_without_the_set_is_judged_without_the_rule():
    report = EvalReport(Path("/nowhere"), "", 64, {}, {"base": FINE}, {}, served=STEADY)
    assert judged(report)[1] is None
    assert judged(report)[0].verdict == "promote"


def test_the_page_shows_it(tmp_path):
    store = Store(tmp_path)
    main = {name: answered(store, f"main {name}", 9) for name in ("base", "candidate")}
    general = {"base": answered(store, "base", 1), "candidate": answered(store, "candidate", 2)}
    report = build_report(main, EVALUATION, store, Evidence(general=general))
    decision = decide(report, GateSection(), has_champion=False)
    rows = list(read_jsonl(report.path / "predictions.jsonl"))
    page = render_page(report, decision, "rougeL", rows, Background("assistant", None, [], [], [], []))
    assert f"<h2>General ability: candidate minus … ({ROWS} rows, not trained for)</h2>" in page
    assert "base reference_nats" in page
