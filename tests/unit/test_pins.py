"""The pins of the two environments: complete, exact, and equal where the same answer depends on it."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tasks.contracts.home import PROJECT_ROOT


def pins_of(name):
    lines = (PROJECT_ROOT / name).read_text().splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s]+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found), f"{name} has a line that is not an exact pin"
    return {canonicalize_name(match[1]): match[2] for match in found}


PROJECT, SERVING = pins_of("constraints.txt"), pins_of("requirements/serving.txt")
TRANSFORMERS = pins_of("requirements/serving-transformers.txt")
BENCH_TRAIN = pins_of("requirements/bench-train.txt")


def declared():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_dependency_is_pinned_within_its_bounds(requirement):
    assert Version(PROJECT[canonicalize_name(requirement.name)]) in requirement.specifier


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "jinja2"])
def test_what_makes_the_answers_is_the_same_version_where_they_are_evaluated_and_served(package):
    assert PROJECT[package] == SERVING[package]


@pytest.mark.parametrize("package", ["torch", "transformers", "safetensors"])
def test_the_reference_engine_serves_with_the_versions_that_trained(package):
    assert PROJECT[package] == TRANSFORMERS[package]


@pytest.mark.parametrize("package", sorted(BENCH_TRAIN.keys() - {"trl"}))
def test_training_is_compared_with_the_versions_that_the_product_trains_with(package):
    assert BENCH_TRAIN[package] == PROJECT[package]


def test_the_traps_stay_closed():
    assert Version(PROJECT["fastapi"]) < Version("0.151"), "prefect 3.8's server fails with newer ones"
    assert Version(PROJECT["sqlalchemy"]) < Version("2.1"), "prefect 3.8 schedules nothing with it"
    assert Version(SERVING["numpy"]) < Version("2"), "Triton's Python stub crashes reading strings"
