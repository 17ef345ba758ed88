"""A model that says which of two answers is better: where it is asked, and by what it shall judge."""

import ipaddress
import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tasks.contracts.section import RowText, Section
from tasks.contracts.source_config import checked_address

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_LONGEST_WORD_CHARS = 16
_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        (?:sk|pk|rk|gsk|xai|nvapi|pplx|r8|gh[oprsu]|github_pat|glpat)[-_]
            (?:(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,} | [A-Za-z0-9_-]*?[A-Za-z0-9]{20,})
        | hf_[A-Za-z0-9]{30,}
        | AIza[A-Za-z0-9_-]{30,}
        | (?:AKIA|ASIA)[A-Z0-9]{16}
        | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}
    )""",
    re.VERBOSE,
)
"""Providers' keys by their prefixes, and JSON web tokens; a digit or 20 letters in a row tell them from words."""
_CRITERIA = (
    "Prefer the answer that is more correct and helps more. If a reference is given, it is one good answer; others may "
    "be as good. Neither length nor style makes an answer better, nor which one comes first."
)


class JudgeSection(Section):
    """A judge at an OpenAI-compatible endpoint. Off as long as no address is named."""

    url: str = Field(
        "", description="address before /chat/completions, for example http://127.0.0.1:8080/v1; empty: no judge"
    )
    model: str = Field("", max_length=200, description="the judge's name at the endpoint")
    key_variable: str = Field(
        "", description="environment variable that holds the key, in capitals; empty: none is sent"
    )
    allow_http: bool = Field(False, description="send answers and key unencrypted to another machine")
    instructions: RowText = Field(_CRITERIA, min_length=1, max_length=4_000, description="what makes an answer better")
    show_reference: bool = Field(True, description="show the judge the row's own answer beside the two")
    rows: int = Field(200, ge=1, description="evaluated rows that are judged at most, two questions each")
    parallel: int = Field(4, ge=1, le=64, description="questions that are under way at a time")
    timeout_seconds: float = Field(
        60, gt=0, le=3_600, description="time one question may take (headers that drip in: longer)"
    )
    retries: int = Field(4, ge=0, le=20, description="tries after a refusal (429, 5xx) or a broken connection")
    max_answer_tokens: int = Field(
        512, ge=0, le=100_000, description="longest reply of the judge, in tokens; 0: what the endpoint allows"
    )
    fixed_sampling: bool = Field(
        True, description="send temperature 0 and seed 0, for the same reply every time; some endpoints refuse them"
    )
    max_failed_share: float = Field(
        0.05, ge=0, lt=1, description="share of the questions without a readable verdict above which judging ends"
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url:
            return url
        address = urlsplit(checked_address(url))
        if " " in url:
            raise ValueError("expected an address without spaces")
        if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
            raise ValueError("expected an address that begins with http:// or https://, without a query")
        return _without_key(url.rstrip("/"))

    @field_validator("model", "instructions")
    @classmethod
    def _holds_no_key(cls, text: str) -> str:
        return _without_key(text)

    @field_validator("key_variable")
    @classmethod
    def _is_a_variable(cls, name: str) -> str:
        is_long_word = len(name) > _LONGEST_WORD_CHARS and "_" not in name
        if name and (is_long_word or not _VARIABLE.fullmatch(name)):
            raise ValueError(
                "expected the name of an environment variable in capitals, digits and underscores; "
                "the key itself never stands in a config"
            )
        return name

    @model_validator(mode="after")
    def _can_be_asked(self) -> "JudgeSection":
        if not self.url:
            return self
        if not self.model:
            raise ValueError(f"evaluation.judge.url is {self.url!r} and evaluation.judge.model is empty; expected both")
        address = urlsplit(self.url)
        if address.scheme == "http" and not self.allow_http and not _is_this_machine(address.hostname or ""):
            raise ValueError(
                f"evaluation.judge.url is {self.url!r}, which is not encrypted and not on this machine; expected "
                "https, or evaluation.judge.allow_http"
            )
        return self


def _without_key(text: str) -> str:
    if _KEY.search(text):
        raise ValueError("expected no key here; it comes from the environment variable that key_variable names")
    return text


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
