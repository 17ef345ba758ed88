"""prefect.yaml and the automations: what Prefect would ignore or fail on later is found here."""

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest
import yaml

from flows.services.registration import AUTOMATIONS, PREFECT_YAML, QUEUES, WORK_POOL, lay_over
from tasks.contracts.config import MonitorConfig, validate_config

DOCUMENT = yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))
DEPLOYMENTS = {f"{one['entrypoint'].rpartition('.')[2]}/{one['name']}": one for one in DOCUMENT["deployments"]}
SAMPLE = {
    "approve/by-hand": {"version": 3},
    "promote/by-hand": {"version": 3},
    "rollback/by-hand": {"to": 2},
}  # what the form asks for, where there is no default


def copy_of_the_document():
    """A copy in which the parts that the file's anchors share are apart."""
    return json.loads(json.dumps(DOCUMENT))


def unknown_keys(document):
    """Return the keys Prefect would silently ignore, as dotted paths; the known ones are its own models' fields."""
    from prefect.cli.deploy._models import (
        ConcurrencyLimitSpec,
        DeploymentConfig,
        PrefectYamlModel,
        RawScheduleConfig,
        WorkPoolConfig,
    )
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

    def names(model):
        return {field.alias or name for name, field in model.model_fields.items()}

    found = [key for key in document if key not in names(PrefectYamlModel)]
    for number, deployment in enumerate(document["deployments"]):
        places = [
            ("", deployment, DeploymentConfig),
            ("work_pool.", deployment.get("work_pool", {}), WorkPoolConfig),
            ("concurrency_limit.", deployment.get("concurrency_limit", {}), ConcurrencyLimitSpec),
            *(("schedules.", schedule, RawScheduleConfig) for schedule in deployment.get("schedules", [])),
            *(("triggers.", trigger, DeploymentEventTrigger) for trigger in deployment.get("triggers", [])),
        ]
        for prefix, part, model in places:
            found += [f"deployments.{number}.{prefix}{key}" for key in part if key not in names(model)]
    return found


def flow_of(deployment):
    from prefect.flows import load_flow_from_entrypoint

    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


def test_there_are_eight_deployments_with_the_documented_names():
    assert len(DOCUMENT["deployments"]) == 8
    assert sorted(DEPLOYMENTS) == [
        "approve/by-hand",
        "monitor/every-15-minutes",
        "promote/by-hand",
        "retrain/by-hand",
        "retrain/nightly",
        "retrain/on-drift",
        "rollback/by-hand",
        "sweep/by-hand",
    ]


def test_prefect_knows_every_key():
    assert unknown_keys(DOCUMENT) == []


@pytest.mark.parametrize("place", ["", "work_pool", "concurrency_limit"])
def test_a_misspelt_key_is_found(place):
    document = copy_of_the_document()
    part = document["deployments"][0]
    (part[place] if place else part)["limmit"] = 1
    assert unknown_keys(document) == [f"deployments.0.{place + '.' if place else ''}limmit"]


def test_a_misspelt_key_of_a_trigger_or_schedule_is_found():
    document = copy_of_the_document()
    document["deployments"][2]["schedules"][0]["chron"] = "0 3 * * *"
    document["deployments"][3]["triggers"][0]["expects"] = ["x"]
    assert unknown_keys(document) == ["deployments.2.schedules.chron", "deployments.3.triggers.expects"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_a_real_flow_and_gives_it_valid_parameters(name):
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate

    deployment = DEPLOYMENTS[name]
    flow = flow_of(deployment)
    assert flow.name == name.partition("/")[0]
    parameters = deployment.get("parameters", {}) | SAMPLE.get(name, {})
    validate(parameters, parameter_schema(flow).model_dump_for_openapi(), raise_on_error=True)
    flow.validate_parameters(parameters)


def test_the_form_refuses_a_parameter_that_the_flow_does_not_have():
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import ValidationError, validate

    schema = parameter_schema(flow_of(DEPLOYMENTS["retrain/by-hand"])).model_dump_for_openapi()
    with pytest.raises(ValidationError, match="train_row"):
        validate({"config": {"data": {"train_row": 3}}}, schema, raise_on_error=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_runs_in_our_work_pool_and_never_twice_at_once(name):
    deployment = DEPLOYMENTS[name]
    assert deployment["work_pool"]["name"] == WORK_POOL
    if name == "approve/by-hand":  # a decision takes the promotion lock; a form that waits shall hold up nothing
        assert "concurrency_limit" not in deployment
        return
    assert deployment["concurrency_limit"]["limit"] == 1
    if name.startswith(("retrain/", "sweep/")):
        assert deployment["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert QUEUES[deployment["work_pool"]["work_queue_name"]] == 1


def test_schedules_are_what_prefect_can_compute():
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    nightly = DEPLOYMENTS["retrain/nightly"]["schedules"][0]
    CronSchedule(cron=nightly["cron"], timezone=nightly["timezone"])
    quarter = DEPLOYMENTS["monitor/every-15-minutes"]["schedules"][0]
    assert IntervalSchedule(interval=quarter["interval"], anchor_date=quarter["anchor_date"]).interval.seconds == 900


def reason_of(event_payload):
    """Let Prefect's own action render the trigger's parameters for an event."""
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
    from prefect.server.events import actions
    from prefect.server.events.schemas.automations import (
        Automation,
        EventTrigger,
        Firing,
        TriggeredAction,
        TriggerState,
    )
    from prefect.server.events.schemas.events import ReceivedEvent

    spec = DEPLOYMENTS["retrain/on-drift"]["triggers"][0]
    validated = DeploymentEventTrigger.model_validate(spec)
    action = actions.RunDeployment(deployment_id=uuid.uuid4(), parameters=validated.parameters)
    trigger = EventTrigger(expect=validated.expect, match=spec["match"], posture="Reactive", threshold=1)
    event = ReceivedEvent(
        occurred=datetime.now(UTC),
        event="llm-retrain.drift.detected",
        resource={"prefect.resource.id": "llm-retrain.model.assistant"},
        payload=event_payload,
        id=uuid.uuid4(),
    )
    assert trigger.covers(event), "the trigger does not listen to this event"
    triggered = TriggeredAction(
        automation=Automation(name="x", trigger=trigger, actions=[action]),
        firing=Firing(
            trigger=trigger,
            trigger_states={TriggerState.Triggered},
            triggered=datetime.now(UTC),
            triggering_labels={},
            triggering_event=event,
        ),
        triggered=datetime.now(UTC),
        triggering_labels={},
        triggering_event=event,
        action=action,
    )
    return asyncio.run(action.render_parameters(triggered))["reason"]


def test_the_sweep_of_the_form_can_be_started_as_it_stands():
    from tasks.training.sweep.space import check_sweep, trials_or_minutes

    config = validate_config(DEPLOYMENTS["sweep/by-hand"]["parameters"]["config"])
    check_sweep(config)
    assert config.sweep.space and trials_or_minutes(config.sweep)


def test_settings_given_to_up_leave_the_sweep_what_they_do_not_name():
    laid = lay_over(DEPLOYMENTS["sweep/by-hand"], validate_config({"training": {"epochs": 2}, "sweep": {"trials": 3}}))
    sweep = DEPLOYMENTS["sweep/by-hand"]["parameters"]["config"]["sweep"]
    assert laid["config"] == {
        "training": {"validation_rows": 32, "epochs": 2},
        "sweep": {"trials": 3, "space": sweep["space"]},
    }
    assert laid["like_champion"] is False


def test_the_drift_event_becomes_the_reason_of_the_run():
    payload = {"reason": "AUC 0.91 of 40 requests", "version": 2, "auc": 0.91}
    expected = "drift of llm-retrain.model.assistant (version 2): AUC 0.91 of 40 requests"
    assert reason_of(payload) == expected


def test_a_drift_event_without_payload_still_starts_a_run():
    expected = "drift of llm-retrain.model.assistant (version unknown): the event gave no reason"
    assert reason_of({}) == expected


def test_the_trigger_listens_to_the_event_that_the_monitor_sends():
    from tasks.monitoring.steps import DRIFT_EVENT

    assert DEPLOYMENTS["retrain/on-drift"]["triggers"][0]["expect"] == [DRIFT_EVENT]


def test_the_automation_calls_a_run_crashed_only_after_three_missing_heartbeats():
    from prefect.events.schemas.automations import AutomationCore
    from prefect.settings.models.flows import FlowsSettings

    automations = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    assert [one["name"] for one in automations] == ["llm-retrain-no-heartbeat"]
    automation = AutomationCore.model_validate(automations[0])
    assert set(automations[0]) <= set(AutomationCore.model_fields)
    assert set(automations[0]["trigger"]) <= set(type(automation.trigger).model_fields)
    assert automation.trigger.within.total_seconds() >= 3 * FlowsSettings.model_fields["heartbeat_frequency"].default


def test_settings_given_to_up_become_parameters_of_the_flows_that_know_them():
    config = validate_config({"data": {"train_rows": 40}, "serving": {"http_port": 9000}})
    retrain = {
        "entrypoint": "flows.retrain.retrain",
        "parameters": {"reason": "nightly", "config": {"data": {"seed": 3}}},
    }
    assert lay_over(retrain, config) == {
        "reason": "nightly",
        "config": {"data": {"seed": 3, "train_rows": 40}, "serving": {"http_port": 9000}},
    }
    monitor = {"entrypoint": "flows.monitor.monitor", "parameters": {"config": {"alpha": 0.05}}}
    assert lay_over(monitor, config) == {"config": {"alpha": 0.05, "serving": {"http_port": 9000}}}


def test_settings_of_the_monitor_reach_its_deployment_in_the_form_that_its_flow_takes():
    config = validate_config({"monitor": {"alpha": 0.05}, "registry": {"experiment": "mine"}})
    deployment = {"entrypoint": "flows.monitor.monitor", "parameters": {"config": {"min_requests": 40}}}
    laid = lay_over(deployment, config)["config"]
    assert laid == {"min_requests": 40, "alpha": 0.05, "registry": {"experiment": "mine"}}
    taken = MonitorConfig.model_validate(laid)
    assert (taken.alpha, taken.min_requests, taken.registry.experiment) == (0.05, 40, "mine")


def test_default_settings_leave_the_parameters_as_they_stand_in_the_file():
    deployment = {"entrypoint": "flows.retrain.retrain", "parameters": {"reason": "nightly"}}
    assert lay_over(deployment, validate_config({})) == {"reason": "nightly"}


@pytest.mark.parametrize("name", ["retrain/by-hand", "retrain/nightly", "retrain/on-drift"])
def test_a_retraining_does_as_the_champion_s_run_unless_up_was_told_how(name):
    deployment = DEPLOYMENTS[name]
    assert deployment["parameters"]["like_champion"] is True
    laid = lay_over(deployment, validate_config({"training": {"rank": 4}}))
    assert (laid["like_champion"], laid["config"]) == (False, {"training": {"rank": 4}})


def test_paths_of_ones_own_reach_the_deployments_whole_and_absolute(tmp_path, monkeypatch):
    """A worker runs in a directory of its own, where a relative path leads nowhere."""
    monkeypatch.chdir(tmp_path)

    def config_with(rows, held_out, model):
        return validate_config(
            {
                "base_model": {"source": f"dir:{model}"},
                "data": {
                    "sources": [{"kind": "files", "path": str(rows), "slice": "mine"}, {"kind": "docstrings"}],
                    "evaluation_sources": [{"kind": "files", "path": str(held_out)}],
                },
            }
        )

    written = config_with("rows.jsonl", tmp_path / "held-out.jsonl", "models/base")
    laid = lay_over({"entrypoint": "flows.retrain.retrain", "parameters": {}}, written)
    absolute = config_with(tmp_path / "rows.jsonl", tmp_path / "held-out.jsonl", tmp_path / "models/base")
    assert validate_config(laid["config"]) == absolute
