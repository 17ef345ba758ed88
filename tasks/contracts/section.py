"""The base of every group of settings, and the texts of settings that enter rows."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


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
