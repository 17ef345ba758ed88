"""The order in which the flow calls its stages, and what the roll-out is told; each stage has tests of its own."""

import copy
from contextlib import contextmanager
from types import MappingProxyType, SimpleNamespace

import pytest

from flows import retrain as flow
from flows.conclusion import Conclusion
from flows.outcome import Outcome
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.contracts.store import Store, write_manifest

PROMOTED = Outcome("promoted", "promote", 5, (), 40, {}, {}, (), None, {}, "", {})


class Walk:
    """Walks the line with stages that only note that they were called."""

    def __init__(self, monkeypatch, home):
        self.monkeypatch, self.home = monkeypatch, home
        self.called, self.jobs, self.spared = [], [], []

    def __call__(self, verdict, champion=None, settings=MappingProxyType({})):
        stages = {
            "tracked_run": self.tracked_run,
            "train_adapter": self.stage("train adapter", SimpleNamespace(long_rows={"rows_too_long": 3}, estimate={})),
            "check_replay": self.stage("check replay"),
            "prepare_replay": self.stage("prepare replay", "replay"),
            "prepare_teacher": self.stage("prepare teacher", "teacher"),
            "TrainingJob": self.job,
            "plan_training": self.plan_training,
            "build_servable": self.build_servable,
            "generate_predictions": self.generate_predictions,
            "prepare_general": self.stage("prepare general", "general"),
            "ask_general": self.ask_general,
            "build_report": self.build_report,
            "decide": lambda *_: SimpleNamespace(verdict=verdict),
            "look_for_canaries": lambda *_: "what came out",
            "check_judge": self.stage("check judge"),
            "ask_judge": lambda answers, champion, *_: (list(answers), champion),
            "check_parity": self.stage("check parity"),
            "background_of": lambda *_: None,
            "write_review": self.stage("write review", SimpleNamespace(path=self.home.root)),
            "Candidate": lambda *_: None,
            "find_version_by_alias": lambda *_: champion,
            "servable_of": lambda version: SimpleNamespace(digest=f"servable of {version.version}"),
            "register_version": lambda *_: SimpleNamespace(version=5),
            "conclude": self.conclude,
            "outcome_of": lambda *_: PROMOTED,
            **{
                name: self.stage(name) for name in ("prepare_server", "settle", "prepare_base_model", "prepare_dataset")
            },
        }
        for name, replacement in stages.items():
            self.monkeypatch.setattr(flow, name, replacement)
        return flow.train_and_judge(RetrainConfig(**settings), self.home, "a reason")

    def stage(self, name, result=None):
        def note(*_):
            self.called.append(name)
            return result

        return note

    def conclude(self, version, decision, champion, _config, _home, reason):
        self.concluded = (version.version, decision.verdict, champion, reason)
        return Conclusion("rejected", waits_until="then")

    def plan_training(self, _job, _home, _store, searched):
        self.called.append("plan training")
        self.searched = searched

    def job(self, *inputs):
        self.jobs.append(inputs)
        return inputs

    def build_servable(self, _base, adapter, *_):
        name = "base" if adapter is None else "candidate"
        self.called.append(f"build {name}")
        return SimpleNamespace(digest=name)

    def ask_general(self, systems, general, *_):
        self.called.append(f"ask {', '.join(systems)} about {general}")
        return {system: f"{system} of {general}" for system in systems}

    def build_report(self, answers, _config, _store, champion, trained_on, evidence):
        self.reported, self.trained_on = (list(answers), champion), trained_on
        self.judged, self.general, self.memorised = evidence.preferences, evidence.general, evidence.memorised
        return SimpleNamespace(path=self.home.root)

    def generate_predictions(self, system, *given):
        self.called.append(f"ask {system}")
        self.spared.append(given[-1])
        return system

    @contextmanager
    def tracked_run(self, *_):
        ignored = ("log_dataset", "log_training", "flush_training", "log_estimate", "log_report", "log_decision")
        ignored += ("log_review", "log_parity")
        yield SimpleNamespace(
            run_id="run", experiment="1", set_tags=lambda *_: None, **dict.fromkeys(ignored, lambda *_: None)
        )


@pytest.fixture
def walk(monkeypatch, tmp_path):
    return Walk(monkeypatch, Home(tmp_path))


def test_what_can_refuse_a_run_is_asked_before_anything_is_trained(walk):
    walk("reject", SimpleNamespace(version=4))
    before, after = walk.called[:14], walk.called[14:]
    checks = ["check replay", "prepare_server", "settle", "check judge", "prepare_base_model", "prepare teacher"]
    asked = ["build base", "ask base", "ask champion", "ask base, champion about general"]
    assert before == [*checks, "prepare_dataset", "prepare replay", "prepare general", "plan training", *asked]
    asked = ["ask candidate", "ask candidate about general"]
    assert after == ["train adapter", "build candidate", "check parity", *asked, "write review"]


def test_the_report_is_told_what_every_system_answered_to_the_general_set(walk):
    walk("reject", SimpleNamespace(version=4))
    assert walk.general == {name: f"{name} of general" for name in ("base", "champion", "candidate")}


def test_the_plan_is_told_what_a_sweep_searches_and_a_run_searches_nothing(walk):
    walk("reject")
    assert walk.searched == ()
    flow.prepare_ground(RetrainConfig(), walk.home, Store(walk.home.store), lambda _: None, ["rank"])
    assert walk.searched == ["rank"]


def test_the_training_is_told_what_is_replayed_and_who_teaches_and_the_outcome_which_rows_were_too_long(walk):
    outcome = walk("reject")
    planned, trained = walk.jobs
    assert planned == trained and trained[-2:] == ("replay", "teacher")
    assert outcome.long_rows == {"rows_too_long": 3}


@pytest.mark.parametrize("champion", [None, SimpleNamespace(version=4)])
def test_the_report_is_told_the_champion_whose_training_rows_judge_nobody(walk, champion):
    walk("reject", champion)
    assert walk.reported == (["base", *(["champion"] if champion else []), "candidate"], champion)
    assert walk.spared == [champion] * (3 if champion else 2), "nor are they asked again, of any system"


@pytest.mark.parametrize(("planted", "told"), [(0, None), (4, "what came out")])
def test_canaries_are_looked_for_where_they_were_planted_and_the_report_is_told(walk, planted, told):
    walk("reject", settings={"training": {"canaries": planted}})
    assert walk.memorised == told


def test_the_judge_is_asked_once_all_have_answered_and_the_report_is_told(walk):
    walk("reject")
    assert walk.judged == ()
    champion, judge = SimpleNamespace(version=4), {"url": "http://127.0.0.1:9/v1", "model": "m"}
    walk("reject", champion, settings={"evaluation": {"judge": judge}})
    assert walk.judged == (["base", "champion", "candidate"], champion)


def test_the_report_is_told_what_the_candidate_was_trained_on_and_could_replay(walk):
    walk("reject")
    assert len(walk.trained_on) == 2 and walk.trained_on[1] == "replay"


def test_what_follows_from_the_verdict_is_told_all_that_it_depends_on_and_the_outcome_what_came_of_it(walk):
    champion = SimpleNamespace(version=4)
    outcome = walk("promote", champion)
    assert walk.concluded == (5, "promote", champion, "a reason")
    assert (outcome.status, outcome.waits_until) == ("rejected", "then")


def test_what_tells_where_the_settings_come_from_goes_to_the_run(walk, monkeypatch):
    given = []
    walk.tracked_run = lambda config, home, reason, tags: (given.append(tags), Walk.tracked_run(walk))[1]
    walk("reject")
    assert given[0].keys() == {"prefect.flow_run_id"}
    monkeypatch.setattr(flow, "tracked_run", walk.tracked_run)
    monkeypatch.setattr(flow, "find_finished", lambda *_: None)
    flow.find_or_train(RetrainConfig(), walk.home, "a reason", {"llm_retrain.sweep": "7"})
    assert given[1]["llm_retrain.sweep"] == "7"


def test_a_run_like_the_champion_takes_its_settings_where_it_names_none(monkeypatch, tmp_path):
    stood = {"data": {"train_rows": 77, "eval_rows": 40}, "training": {"rank": 8}}
    monkeypatch.setattr(flow, "find_version_by_alias", lambda *_: SimpleNamespace(version=2))
    monkeypatch.setattr(flow, "settings_of", lambda *_: copy.deepcopy(stood))
    named = RetrainConfig.model_validate({"training": {"rank": 32}, "data": {"eval_rows": 50}})
    config = flow.completed_by_champion(named, Home(tmp_path))
    assert (config.data.train_rows, config.data.eval_rows, config.training.rank) == (77, 50, 32)
    form = RetrainConfig.model_validate(RetrainConfig().model_dump())  # a form sends every setting it shows
    assert flow.completed_by_champion(form, Home(tmp_path)).data.train_rows == 77
    monkeypatch.setattr(flow, "find_version_by_alias", lambda *_: None)
    assert flow.completed_by_champion(named, Home(tmp_path)) is named


def test_a_champion_whose_servable_is_lost_or_another_is_said_before_training(tmp_path):
    champion = SimpleNamespace(version=2, servable_path=tmp_path / "gone", servable_digest="d", tags={})
    with pytest.raises(RegistryError, match=r"the champion, version 2, cannot be compared with: .*gone is damaged"):
        flow.servable_of(champion)
    champion.servable_path.mkdir()
    (champion.servable_path / "weights").write_text("w")
    write_manifest(champion.servable_path, {"kind": "servable"})
    with pytest.raises(RegistryError, match="its digest is not the registered one"):
        flow.servable_of(champion)
