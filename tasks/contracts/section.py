"""The base of every group of settings, and the kinds of text that settings are made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def flaw_of_text(text: str) -> str:
    """Return why `text` may not stand in a row, empty if it may: NUL divides messages, half a pair has no UTF-8."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return ""


def _checked(text: str) -> str:
    flaw = flaw_of_text(text)
    if flaw:
        raise ValueError(f"the text {flaw}, which no row may hold")
    return text


RowText = Annotated[str, AfterValidator(_checked)]
"""Text of the configuration that is put into rows, or compared with theirs."""


def _digits_are_text(digest: object) -> object:
    # YAML takes a digest without a letter for a number.
    return str(digest) if isinstance(digest, int) and not isinstance(digest, bool) else digest


VersionDigest = Annotated[str, BeforeValidator(_digits_are_text), Field(pattern=r"^([0-9a-f]{8,64})?$")]
"""The digest of a data version or its beginning; empty: none."""
