"""The sections `evaluation` and `gate` of the configuration."""

from typing import Literal

from pydantic import Field

from tasks.contracts.judge_config import JudgeSection
from tasks.contracts.metric_names import DEFAULT_METRICS, JudgedMetric, MetricName
from tasks.contracts.section import Section


class EvaluationSection(Section):
    """Scores and their uncertainty."""

    metrics: tuple[MetricName, ...] = Field(
        DEFAULT_METRICS, min_length=1, description="what answers are scored by; packages can bring metrics along"
    )
    resamples: int = Field(1_000, ge=100, le=100_000, description="paired bootstrap resamples, for the intervals")
    randomisations: int = Field(
        10_000, ge=1_000, le=1_000_000, description="rounds of swapped answers, for the p-values"
    )
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="confidence of the intervals; half of the rest is the chance to promote what is no better",
    )
    seed: int = Field(17, ge=0, description="resamples and swaps")
    through: Literal["process", "server"] = Field(
        "process",
        description="what answers: the engine in a process of its own, many rows together; or the running Triton, "
        "asked over HTTP",
    )
    concurrency: int = Field(4, ge=1, le=64, description="rows asked at a time through the server")
    answer_timeout_seconds: float = Field(
        300.0, gt=0, description="longest wait for an answer of the server, in which others may be before it"
    )
    asked_again: int = Field(
        8, ge=1, description="rows asked a second time, alone: the noise of one model, and how long a client waits"
    )
    judge: JudgeSection = JudgeSection()
    general: bool = Field(
        True, description="also ask what the adapter was not trained for, and look for what it made the model forget"
    )
    general_path: str = Field(
        "", description="JSONL of messages to ask for that; empty: the project's own set, in English and Chinese"
    )


class GateSection(Section):
    """When a candidate may replace the champion."""

    primary_metric: JudgedMetric = Field("rougeL", description="the metric that must improve")
    min_improvement: float = Field(
        0.0, ge=0, description="the lower end of the improvement's interval must exceed this (the metric's own unit)"
    )
    guarded_metrics: tuple[JudgedMetric, ...] = Field(
        ("bleu", "chrf"), description="metrics that must not get worse with confidence"
    )
    min_examples: int = Field(30, ge=2, description="fewer evaluated rows are no evidence")
    protected_slices: tuple[str, ...] = Field(
        (), description="slices on which the primary metric must be shown to lose less than slice_margin"
    )
    slice_margin: float = Field(
        0.02, gt=0, description="the loss on a protected slice that is still none (the primary metric's own unit)"
    )
    min_slice_examples: int = Field(
        20, ge=2, description="fewer evaluated rows of a slice or of a set say nothing about it"
    )
    general_margin: float = Field(
        0.1,
        gt=0,
        description="the loss against the base model on the general-ability set that is still none, in nats a token",
    )
    max_answer_seconds: float = Field(
        0, ge=0, description="19 in 20 answers to a single client must be there after this time; 0: no limit"
    )
    max_servable_mb: float = Field(0, ge=0, description="the served model's size in megabytes; 0: no limit")
    judge: Literal["off", "guard", "require"] = Field(
        "off",
        description=(
            "off: the verdict of evaluation.judge is only shown; guard: its answers must not be significantly less "
            "preferred; require: they must be significantly preferred"
        ),
    )
