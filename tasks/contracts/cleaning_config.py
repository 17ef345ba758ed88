"""How rows are cleaned: an ordered list of named steps, each with settings of its own."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.contracts.section import RowText, Section


class UnicodeStep(Section):
    """Compose characters (NFC); repair mojibake (ftfy), take control characters and Latin ligatures (ﬁ) away."""

    step: Literal["unicode"] = "unicode"
    repair: bool = Field(True, description="undo wrong decodings, for example â€™ for ’")
    width: bool = Field(False, description="full-width Latin letters and digits become ordinary ones (ＡＢ１ → AB1)")


class WhitespaceStep(Section):
    """One kind of line end, no white space at the end of a text, and at most some empty lines in a row."""

    step: Literal["whitespace"] = "whitespace"
    max_empty_lines: int = Field(2, ge=0, le=100, description="more empty lines in a row become so many")
    collapse_spaces: bool = Field(False, description="runs of spaces and tabs become one space (harms code and tables)")


class HtmlStep(Section):
    """Text out of HTML: tags go, entities become characters, scripts and styles go with their content.

    Markdown code, generics (`List<int>`) and comparisons stay as they are.
    """

    step: Literal["html"] = "html"


class ReplaceStep(Section):
    """A regular expression and what takes its place, or the rows that match it are dropped.

    Expressions run in linear time (RE2): no look-around and no back-references.
    """

    step: Literal["replace"] = "replace"
    name: RowText = Field(description="the name its rows are counted under")
    pattern: RowText = Field(min_length=1, max_length=2_000, description="RE2 expression")
    replacement: RowText = Field(
        "", description="takes the place of what matches; \\1 is the first group, \\g<0> all that matches"
    )
    drop: bool = Field(False, description="drop the rows that match instead")

    @model_validator(mode="after")
    def _does_one_thing(self) -> "ReplaceStep":
        if self.drop and self.replacement:
            raise ValueError(f"the replace step {self.name!r} has both drop and a replacement; expected one of them")
        return self


class TermsStep(Section):
    """Terms spelled as one house spells them, for example 心肌梗塞 → 心肌梗死; the longest term wins."""

    step: Literal["terms"] = "terms"
    terms: dict[RowText, RowText] = Field({}, description="term → the one to use")
    path: str = Field("", description="a file of more terms: two columns, tab between them, UTF-8")
    whole_words: bool = Field(True, description="only where no letter or digit touches it; CJK terms match anywhere")
    ignore_case: bool = Field(False, description="whatever the case of the letters is")

    @model_validator(mode="after")
    def _has_terms(self) -> "TermsStep":
        if not self.terms and not self.path:
            raise ValueError("a terms step needs terms or a path")
        if "" in self.terms:
            raise ValueError("a terms step has an empty term")
        return self


class LengthStep(Section):
    """Bounds in tokens of the base model's own tokenizer."""

    step: Literal["length"] = "length"
    min_answer_tokens: int = Field(1, ge=0, description="rows with a shorter answer are dropped")
    max_answer_tokens: int = Field(0, ge=0, description="rows with a longer answer are dropped; 0: any length")
    max_row_tokens: int = Field(0, ge=0, description="rows whose messages have more tokens are dropped; 0: any length")


class LanguageStep(Section):
    """Keep rows in some languages, recognised from the text of the answer and the prompt."""

    step: Literal["language"] = "language"
    keep: tuple[str, ...] = Field(min_length=1, description="ISO 639-1 codes, for example [en, zh]")
    min_confidence: float = Field(
        0.5, ge=0, le=1, description="rows whose language is less certain are kept: short and mixed text, code"
    )
    min_chars: int = Field(20, ge=1, description="shorter rows are kept: nobody can tell")


class RepetitionStep(Section):
    """Drop rows whose answer repeats itself or says next to nothing.

    The shares are those of Rae et al. 2021 (Gopher, appendix A1.1), for answers of at least `min_chars`.
    """

    step: Literal["repetition"] = "repetition"
    max_line_share: float = Field(0.3, gt=0, le=1, description="characters in lines that were there before")
    max_ngram_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="characters covered by the most frequent 4 words, or 8 characters where no spaces divide words",
    )
    min_distinct_share: float = Field(
        0.05, ge=0, lt=1, description="distinct characters in all characters, of which at most 100 count"
    )
    min_chars: int = Field(40, ge=8, description="shorter answers are kept")


class BlockedStep(Section):
    """Drop rows that hold a blocked word (Aho-Corasick: any number of words in one pass)."""

    step: Literal["blocked"] = "blocked"
    words: tuple[RowText, ...] = Field((), description="blocked words; case is ignored")
    path: str = Field("", description="a file of more words, one a line, UTF-8")
    whole_words: bool = Field(True, description="only where no letter or digit touches it; CJK words match anywhere")

    @model_validator(mode="after")
    def _has_words(self) -> "BlockedStep":
        if not self.words and not self.path:
            raise ValueError("a blocked step needs words or a path")
        return self


PersonalKind = Literal[
    "email",
    "phone",
    "china_id",
    "bank_card",
    "ip_address",
    "mac_address",
    "secret",
    "name_with_age",
    "named_entity",
]


class PersonalStep(Section):
    """Personal data: found, and replaced, dropped or refused."""

    step: Literal["personal"] = "personal"
    action: Literal["pseudonym", "drop", "block"] = Field(
        "pseudonym",
        description=(
            "pseudonym: typed names, the same for the same value within a conversation, for example <EMAIL_1>; "
            "drop: the row goes; block: the run stops"
        ),
    )
    kinds: tuple[PersonalKind, ...] = Field(
        ("email", "phone", "china_id", "bank_card", "ip_address", "mac_address", "secret", "name_with_age"),
        min_length=1,
        description="what is looked for; named_entity (people, places, organisations) needs the extra presidio",
    )
    patterns: dict[str, str] = Field(
        {}, description="your own kinds: NAME → RE2 expression, for example {STAFF_NUMBER: 'EMP-[0-9]{6}'}"
    )

    entity_models: dict[Literal["en", "zh"], str] = Field(
        {},
        description=(
            "for named_entity: language → installed spaCy model (en_core_web_sm), or the directory one was saved to, "
            "with a slash in it (models/en, ./en); a relative path counts from the YAML file it stands in"
        ),
    )

    @field_validator("patterns")
    @classmethod
    def _names_are_types(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name in patterns:
            if not (name.isascii() and name.replace("_", "A").isalpha() and name == name.upper()):
                raise ValueError(f"the kind {name!r} needs a name of capital letters and underscores")
        return patterns


CleaningStep = Annotated[
    UnicodeStep
    | WhitespaceStep
    | HtmlStep
    | ReplaceStep
    | TermsStep
    | LengthStep
    | LanguageStep
    | RepetitionStep
    | BlockedStep
    | PersonalStep,
    Field(discriminator="step"),
]

DEFAULT_STEPS: tuple[CleaningStep, ...] = (UnicodeStep(), WhitespaceStep())
