"""The judge's settings: an address that answers go to in the clear only on this machine, and never a key."""

import pytest
from pydantic import ValidationError

from tasks.contracts.config import RetrainConfig, load_config
from tasks.contracts.errors import ConfigError
from tasks.contracts.judge_config import JudgeSection

HERE = "evaluation.judge={url: http://127.0.0.1:9/v1/, model: m%s}"


def load(*overrides):
    return load_config(None, None, overrides)


def test_no_judge_is_asked_by_default():
    assert not RetrainConfig().evaluation.judge.url
    assert RetrainConfig().gate.judge == "off"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/v1", "http://localhost:9/v1", "http://[::1]:9/v1", "https://judge.example/v1"]
)
def test_this_machine_may_be_asked_in_the_clear_and_others_encrypted(url):
    assert load(f"evaluation.judge={{url: '{url}', model: m}}").evaluation.judge.url == url
    assert load(HERE % "").evaluation.judge.url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("host", ["judge.example", "10.0.0.3", "127.0.0.1.example", "localhost.example"])
def test_another_machine_is_asked_in_the_clear_only_if_that_is_said(host):
    settings = f"url: 'http://{host}/v1', model: m"
    with pytest.raises(ConfigError, match=r"not encrypted and not on this machine; expected https"):
        load(f"evaluation.judge={{{settings}}}")
    assert load(f"evaluation.judge={{{settings}, allow_http: true}}").evaluation.judge.allow_http


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{url: 'ftp://x', model: m}", "expected an address that begins with http"),
        ("{url: 'https://', model: m}", "expected an address that begins with http"),
        ("{url: 'https://x/v1?key=1', model: m}", "without a query"),
        ("{url: 'https://me:pass@x/v1', model: m}", "without user and password"),
        ("{url: 'https://x/v1'}", r"evaluation\.judge\.model is empty"),
        ("{url: 'https://x/v1', model: m, retrys: 3}", r"evaluation\.judge\.retrys is not a config key; .* retries"),
        ("{rows: 0}", r"evaluation\.judge\.rows is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(f"evaluation.judge={settings}")


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "gsk_AbCdEfGhIjKlMnOpQrStUvWx",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "0123456789abcdef0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "lower_case_name",
    ],
)
def test_a_key_where_the_name_of_its_variable_belongs_is_refused_and_not_shown(key):
    with pytest.raises(ConfigError, match="the key itself never stands in a config") as caught:
        load(f"evaluation.judge.key_variable={key}")
    assert key not in str(caught.value)
    assert load("evaluation.judge.key_variable=OPENAI_API_KEY").evaluation.judge.key_variable == "OPENAI_API_KEY"


@pytest.mark.parametrize("field", ["url", "model", "instructions"])
def test_a_key_anywhere_else_is_refused_and_not_shown(field):
    key = "sk-proj-abcdefghijklmnopqrstuvwx"
    value = f"https://x/{key}" if field == "url" else f"use {key}"
    with pytest.raises(ConfigError, match=rf"^evaluation\.judge\.{field} is not shown: expected no key here") as caught:
        load(f"evaluation.judge.{field}={value}")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "nvapi-" + "a1B2" * 16,
        "github_pat_11AABBCC0" + "aB3_" * 15,
        "ghp_" + "a1B2" * 9,
        "glpat-abcdefghijklmnop1234",
        "r8_" + "a1B2" * 9,
        "sk-ant-api03-" + "a-1_B2" * 12,
        "hf_" + "aB" * 17,
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
    ],
)
def test_the_keys_of_providers_are_known_also_in_an_address(key):
    for field, value in (("model", key), ("url", f"https://x/{key}/v1"), ("instructions", f"key={key}")):
        with pytest.raises(ConfigError, match="expected no key here") as caught:
            load(f"evaluation.judge.{field}={value}")
        assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("model", "skywork-reward-gemma-2-27b"),
        ("model", "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"),
        ("instructions", "skeptical-minded-and-precise"),
        ("instructions", "a-risk-model-for-all-the-people-2"),
        ("instructions", "Prefer disk-space-saving-answers-of-2024."),
    ],
)
def test_a_name_is_no_key(field, name):
    assert getattr(load(f"evaluation.judge.{field}={name}").evaluation.judge, field) == name


@pytest.mark.parametrize(
    "url",
    [
        "https://u:PASSW0RD@h/v1",
        "https://PASSW0RD@h/v1",
        "https://u:PASSW0RD@[h/v1",
        "https://u:PA/PASSW0RD@h/v1",
        "ftp://u:PASSW0RD@h/v1",
        "u:PASSW0RD@h/v1",
        "https://h/v1?key=PASSW0RD",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match=r"^evaluation\.judge\.url is not shown: ") as caught:
        load(f"evaluation.judge={{url: '{url}', model: m}}")
    assert "PASSW0RD" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "pydantic's error quotes the value"


@pytest.mark.parametrize("url", ["https://h\x7f/v1", "https://h/\u2028v1", "https://h o/v1", "https://h:99999/v1"])
def test_an_address_that_nobody_can_be_asked_at_is_refused(url):
    with pytest.raises(ValidationError, match=r"expected an address|[Pp]ort"):
        JudgeSection(url=url, model="m")


def test_a_gate_that_needs_a_judge_has_one_with_enough_rows():
    with pytest.raises(ConfigError, match=r"gate\.judge is 'require' and evaluation\.judge\.url is empty"):
        load("gate.judge=require")
    with pytest.raises(ConfigError, match=r"gate\.min_examples is 30 but evaluation\.judge\.rows is 10"):
        load("gate.judge=guard", HERE % ", rows: 10")
    assert load("gate.judge=guard", HERE % "").gate.judge == "guard"
