"""Where rows come from: a section for each kind of source.

Secrets never stand here: a database URL or a request header names the environment variable that holds it.
"""

import codecs
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tasks.contracts.section import RowText, Section

RowFormat = Literal["auto", "instruction", "prompt_completion", "messages", "sharegpt", "preference"]
FileFormat = Literal["auto", "jsonl", "json", "csv", "tsv", "parquet"]

FORMAT_FIELDS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "preference": ("prompt", "chosen", "rejected"),
    "instruction": ("system", "instruction", "input", "output"),
    "prompt_completion": ("system", "prompt", "completion"),
}
"""The fields of each row format; `system` is read only where `columns` names it."""

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Stateful encodings and codecs that are no text encodings (zip, unicode_escape, …) have no place in a data file.
_TEXT_ENCODING = re.compile(
    r"ascii|utf-(8|16|32)(-sig|-le|-be)?|gb(18030|k|2312)|big5(hkscs)?|euc_(jp|kr)|shift_jis|iso8859-[0-9]+|"
    r"cp(125[0-9]|437|850|852|866|874|932|949|950)|koi8-[rtu]"
)


def checked_encoding(name: str) -> str:
    """Return `name` if it is `auto` or an encoding that data files have.

    Raises:
        ValueError: Python does not know it, or it is no plain text encoding.
    """
    try:
        known = name == "auto" or _TEXT_ENCODING.fullmatch(codecs.lookup(name).name)
    except (LookupError, ValueError):
        known = None
    if not known:
        raise ValueError("expected auto or a text encoding such as utf-8, utf-16, gb18030, big5 or cp1252")
    return name


def checked_address(url: str) -> str:
    """Return `url` if no password stands in it.

    Raises:
        ValueError: it has a user or a password, a character that does not print, or is no address.
    """
    if not url.isprintable():
        raise ValueError("expected an address of characters that print")
    address = urlsplit(url)
    if address.scheme in ("http", "https"):
        _ = address.port  # raises where it is none
    if address.password is not None or (address.username is not None and address.scheme in ("http", "https")):
        raise ValueError("expected an address without user and password; secrets come from the environment")
    return url


class SourceSection(Section):
    """What every source of records has: how a record becomes a row, and the slice it belongs to."""

    slice: RowText = Field("default", description="the slice its rows belong to")
    slice_column: str = Field("", description="path of the field that names the slice of a row; empty: slice")
    row_format: RowFormat = Field("auto", description="auto: known by the fields of each record")
    columns: dict[str, str] = Field(
        {},
        description=(
            "field of the row format → where the record has it, by path with dots: "
            "{instruction: ask, input: title, output: answer.text}; several fields joined by lines: 'title + ask'"
        ),
    )

    @model_validator(mode="after")
    def _columns_are_fields_of_one_format(self) -> "SourceSection":
        if not self.columns:
            return self
        names = set(self.columns)
        if "" in (*names, *(path.strip() for paths in self.columns.values() for path in paths.split(" + "))):
            raise ValueError(
                f"columns is {self.columns!r}; expected a path, or several joined by ' + ', for each field"
            )
        candidates = FORMAT_FIELDS if self.row_format == "auto" else {self.row_format: FORMAT_FIELDS[self.row_format]}
        if not any(names <= set(fields) for fields in candidates.values()):
            expected = "; ".join(f"{name}: {', '.join(fields)}" for name, fields in candidates.items())
            raise ValueError(
                f"columns has the fields {', '.join(sorted(names))}; expected those of one format ({expected})"
            )
        return self


class FilesSource(SourceSection):
    """Files: JSONL, JSON, CSV, TSV or Parquet, plain, gzip or zstd, local or at a URL that fsspec knows."""

    kind: Literal["files"] = "files"
    path: str = Field(
        description=(
            "a file, or a pattern with * and **; a relative path counts from the YAML file it stands in, or from the "
            "working directory; s3://bucket/*.jsonl and the like need the extra of their store"
        )
    )
    file_format: FileFormat = Field("auto", description="auto: by the file's name (.jsonl, .csv.gz, …)")
    encoding: str = Field(
        "auto",
        description="auto: UTF-8, UTF-16 (by its mark, or where it is plain), or GB18030; or a name Python knows",
    )

    @field_validator("path")
    @classmethod
    def _is_a_place(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("expected a file, a pattern or an address")
        return checked_address(path) if "://" in path else path

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, name: str) -> str:
        return checked_encoding(name)


class HuggingFaceSource(SourceSection):
    """A data set of the Hugging Face library: saved on disk, or on the hub at one commit."""

    kind: Literal["huggingface"] = "huggingface"
    source: str = Field(description="dir:PATH (save_to_disk) or hub:NAME@COMMIT")
    split: str = Field("train", description="the split to read")
    subset: str = Field("", description="the configuration of a hub data set; empty: its default")

    @field_validator("source")
    @classmethod
    def _has_a_known_kind(cls, source: str) -> str:
        kind, _, rest = source.partition(":")
        if kind not in ("dir", "hub") or not rest:
            raise ValueError("expected dir:PATH or hub:NAME@COMMIT")
        if kind == "hub" and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}", rest):
            raise ValueError("expected hub:NAME@COMMIT with the 40 hex digits of a commit, which cannot move")
        return source


class SqlSource(SourceSection):
    """The rows of a SQL query; with a watermark, only those that are new since the last run."""

    kind: Literal["sql"] = "sql"
    url_variable: str = Field(description="environment variable that holds the SQLAlchemy URL")
    query: str = Field(
        description=(
            "a SELECT; with a watermark it holds :watermark, best as WHERE updated_at >= :watermark: what was read "
            "at the edge is recognised, and what came later with the same value is not lost, as it is with >"
        )
    )
    watermark_column: str = Field("", description="a column of the result that grows; empty: everything, every time")
    watermark_start: str | int | float = Field("", description="the watermark of the first run")
    batch_rows: int = Field(1_000, ge=1, le=100_000, description="rows fetched at a time")

    @field_validator("url_variable")
    @classmethod
    def _is_a_variable(cls, name: str) -> str:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError("expected the name of an environment variable; the URL itself never stands in a config")
        return name

    @model_validator(mode="after")
    def _watermark_is_whole(self) -> "SqlSource":
        if not re.match(r"\s*(select|with)\b", self.query, re.IGNORECASE):
            raise ValueError(f"query is {self.query[:80]!r}; expected a SELECT")
        if bool(self.watermark_column) != bool(re.search(r"(?<![:\w]):watermark\b", self.query)):
            raise ValueError("a SQL source needs both watermark_column and :watermark in its query, or neither")
        return self


class HttpSource(SourceSection):
    """A paged JSON API."""

    kind: Literal["http"] = "http"
    url: str = Field(description="address of the first page, http:// or https://")
    records: str = Field("", description="path of the list of records in a page; empty: the page is the list")
    next_page: str = Field("", description="path of the next page's address or cursor in a page; empty: page numbers")
    cursor_parameter: str = Field("", description="query parameter that takes the cursor of next_page")
    page_parameter: str = Field(
        "page", description="query parameter that takes the number of the page, from 1; empty: there is one page"
    )
    watermark_field: str = Field("", description="path of a field that grows; empty: everything, every time")
    watermark_parameter: str = Field("since", description="query parameter that takes the watermark of the last run")
    header_variables: dict[str, str] = Field(
        {}, description="request header → environment variable that holds its value, for example {Authorization: TOKEN}"
    )
    requests_per_second: float = Field(5, gt=0, le=1_000, description="rate limit")
    retries: int = Field(4, ge=0, le=20, description="tries after a refusal (429, 5xx) or a broken connection")
    timeout_seconds: float = Field(30, gt=0, le=600, description="time one request may take")
    max_pages: int = Field(10_000, ge=1, description="pages of one run; more are an error, for none may be missed")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        return checked_address(url)

    @field_validator("header_variables")
    @classmethod
    def _are_variables(cls, headers: dict[str, str]) -> dict[str, str]:
        for header, name in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", header) or not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(f"expected header: VARIABLE, the name of an environment variable; found {header!r}")
        return headers

    @model_validator(mode="after")
    def _a_cursor_has_a_place(self) -> "HttpSource":
        if self.cursor_parameter and not self.next_page:
            raise ValueError("cursor_parameter needs next_page, the path of the cursor in a page")
        return self


class ServedLogSource(Section):
    """What people asked the served model, with the answers they corrected.

    The request log (traffic) has the question and what the champion answered; the feedback log has, by the request's
    id, a correction or a rating: {"id", "correction"?: text, "rating"?: "good" or "bad"}; the last feedback of an id
    stands. What the champion wrote itself is no truth: only a corrected request becomes a row, and an answer that was
    rated good if `rated_good` says so.
    """

    kind: Literal["served_log"] = "served_log"
    requests_path: str = Field("", description="JSONL of requests; empty: the request log of the served model")
    feedback_path: str = Field("", description="JSONL of feedback; empty: the feedback log of the served model")
    rated_good: bool = Field(False, description="answers that were rated good become rows too")
    slice: str = Field("served", description="the slice its rows belong to")


class DocstringSource(Section):
    """Functions of the running interpreter's standard library, each with the first sentence of its docstring."""

    kind: Literal["docstrings"] = "docstrings"
    instruction: str = Field(
        "Write one sentence that says what this Python function does.", description="what the model is asked"
    )
    max_code_chars: int = Field(300, ge=80, le=10_000, description="functions with a longer body are left out")


Source = Annotated[
    FilesSource | HuggingFaceSource | SqlSource | HttpSource | ServedLogSource | DocstringSource,
    Field(discriminator="kind"),
]
