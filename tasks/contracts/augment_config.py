"""How training rows are multiplied: methods in order, each with settings of its own, and filters for what they make."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.contracts.section import Section
from tasks.contracts.source_config import checked_address

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class MethodSection(Section):
    """What every method has."""

    slices: tuple[str, ...] = Field((), description="slices whose rows it is tried on; empty: all")


class SynonymMethod(MethodSection):
    """Words of the question become other words of the same line of a file; the answer stays as it is."""

    method: Literal["synonyms"] = "synonyms"
    path: str = Field(min_length=1, description="words that mean the same, a group a line, tabs between them, UTF-8")
    word_share: float = Field(0.3, gt=0, le=1, description="share of the words found that are replaced, at least one")


class EntityMethod(MethodSection):
    """Entities become others of their kind, the same ones throughout the question and the answer.

    Give only kinds whose members can stand for each other: a swapped capital makes a wrong answer.
    """

    method: Literal["entities"] = "entities"
    path: str = Field(min_length=1, description="two columns, tab between them: kind, entity; UTF-8")


class GrammarMethod(MethodSection):
    """The question said in another form: polite or plain, as a request or a question, with or without contractions."""

    method: Literal["grammar"] = "grammar"


class BackTranslationMethod(MethodSection):
    """The question through two sequence-to-sequence models: into another language and back."""

    method: Literal["back_translation"] = "back_translation"
    forward: str = Field(min_length=1, description="directory of a transformers model that translates the questions")
    backward: str = Field(min_length=1, description="directory of one that translates them back")
    max_tokens: int = Field(256, ge=8, le=4_096, description="longer questions are left out, and no output is longer")


class EndpointMethod(MethodSection):
    """The question through an OpenAI-compatible endpoint: into another language and back."""

    method: Literal["endpoint"] = "endpoint"
    url: str = Field(description="address before /chat/completions, for example http://127.0.0.1:8080/v1")
    model: str = Field(min_length=1, description="the model's name at the endpoint")
    key_variable: str = Field("", description="environment variable that holds the key; empty: none is sent")
    language: str = Field("English", min_length=1, description="the language of the questions")
    pivot: str = Field("German", min_length=1, description="the language between")
    timeout_seconds: float = Field(
        60, gt=0, le=3_600, description="time one request may take (headers that drip in: longer)"
    )
    retries: int = Field(4, ge=0, le=20, description="tries after a refusal (429, 5xx) or a broken connection")
    max_chars: int = Field(4_000, ge=1, le=100_000, description="longer questions are left out")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")) or "?" in url:
            raise ValueError("expected an address that begins with http:// or https://, without a query")
        return checked_address(url).rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _is_a_variable(cls, name: str) -> str:
        if name and not _ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError("expected the name of an environment variable; the key itself never stands in a config")
        return name


AugmentMethod = Annotated[
    SynonymMethod | EntityMethod | GrammarMethod | BackTranslationMethod | EndpointMethod,
    Field(discriminator="method"),
]


class AugmentSection(Section):
    """Rows made of training rows, on top of data.train_rows. Off as long as no method is named.

    They pass data.cleaning and the limits as their parents did, and count in data.max_slice_share.
    """

    methods: tuple[AugmentMethod, ...] = Field((), description="what makes rows, in order; empty: no row is made")
    row_share: float = Field(
        1.0, gt=0, le=1, description="share of the training rows that are tried, which limits made rows"
    )
    max_per_row: int = Field(1, ge=1, le=100, description="rows made of one row at most; each method makes one")
    min_similarity: float = Field(
        0.2,
        ge=0,
        le=1,
        description="made questions less like their parent's are dropped (Jaccard of characters)",
    )
    max_similarity: float = Field(0.98, ge=0, le=1, description="made questions more like their parent's are dropped")
    seed: int = Field(17, ge=0, description="chooses rows, words and forms")

    @model_validator(mode="after")
    def _something_can_pass(self) -> "AugmentSection":
        if self.min_similarity >= self.max_similarity:
            raise ValueError(
                f"min_similarity is {self.min_similarity:g} and max_similarity {self.max_similarity:g}; "
                "expected the first to be smaller"
            )
        return self
