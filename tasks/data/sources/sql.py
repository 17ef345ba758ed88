"""The rows of a SQL query, fetched in batches; with a watermark, only those that are new since the last run."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.jsonl import digest_of
from tasks.contracts.source_config import SqlSource
from tasks.data.shown import shown_name, without_values
from tasks.data.sources.materialised import Watermark, open_materialised
from tasks.data.sources.shard import Shard

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.exc import SQLAlchemyError

_READ_SETTINGS = {"kind", "url_variable", "query", "watermark_column", "watermark_start"}
_CREDENTIALS = {"user", "username", "uid", "password", "passwd", "pwd", "passfile", "sslpassword", "token"}
"""Parameters of an address that say who asks, not what is asked; drivers take them beside the host."""
_ODBC_CREDENTIAL = re.compile(r"(?i)(?:^|;)\s*(?:uid|pwd)\s*=\s*(?:\{(?:[^}]|\}\})*\}|[^;]*)")


def open_query(source: SqlSource, index: int, config_key: str, cache: Path) -> tuple[list[Shard], list[Any]]:
    """Run the query and add its rows to those of earlier runs; without a watermark they take their place.

    Another database is another source, whatever variable names it; another user or password of the same one is not.

    Returns:
        The pieces, and number and digest of all rows.

    Raises:
        DataError: the query fails, or its rows have no usable watermark.
        EnvironmentProblem: the variable with the URL is not set, or the database's driver is not installed.
    """
    url = _address(source, config_key)
    settings = source.model_dump(mode="json", include=_READ_SETTINGS) | {"database": _database_of(url)}
    with open_materialised(cache, settings, config_key) as chunks:
        if source.watermark_column:
            mark = chunks.state.watermark
            rows = _rows(source, url, config_key, source.watermark_start if mark is None else mark)
            chunks.append((row, _watermark(row, source, config_key)) for row in rows)
        else:
            chunks.replace(_rows(source, url, config_key, None))
        return chunks.shards(index, f"sql-{digest_of(source.query)[:8]}"), chunks.content()


def _address(source: SqlSource, config_key: str) -> "URL":
    import sqlalchemy

    address = os.environ.get(source.url_variable)
    if not address:
        raise EnvironmentProblem(
            f"{config_key} reads its database's address from {source.url_variable}, which is not set; expected a "
            "SQLAlchemy URL in it"
        )
    try:
        return sqlalchemy.make_url(address)
    except (
        sqlalchemy.exc.ArgumentError,
        ValueError,
    ):  # ValueError: a port that is no number; both may quote a password
        raise DataError(
            f"{config_key} reads its database's address from {source.url_variable}, which holds none; expected a "
            "SQLAlchemy URL in it, for example postgresql+psycopg://user:password@host/database"
        ) from None


def _database_of(url: "URL") -> str:
    """Return a digest of which database an address names, without who asks it."""
    asked = {name: values for name, values in url.query.items() if name.lower() not in _CREDENTIALS}
    if isinstance(odbc := asked.get("odbc_connect"), str):
        asked["odbc_connect"] = _ODBC_CREDENTIAL.sub("", odbc)
    return digest_of([url.get_backend_name(), url.host, url.port, url.database, asked])


def _rows(source: SqlSource, url: "URL", config_key: str, watermark: Watermark | None) -> Iterator[dict[str, Any]]:
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    named = f"{config_key} has the query {_short(source.query)!r} for the database in {source.url_variable}"
    try:
        # Errors of the driver must not show the values of the rows.
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, hide_parameters=True)
        # Nothing is ever committed: what a query might change is rolled back.
        with engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=source.batch_rows)
            parameters = {} if watermark is None else {"watermark": watermark}
            for row in streamed.execute(sqlalchemy.text(source.query), parameters).mappings():
                yield dict(row)
    except SQLAlchemyError as error:
        reason = _reason(error)
        hint = "; is watermark_start a value of watermark_column's type?" if source.watermark_start == "" else ""
        # Nor the traceback, which logs keep.
        raise DataError(f"{named}, which fails ({reason}); expected rows{hint if watermark == '' else ''}") from None
    except ImportError as error:
        raise EnvironmentProblem(f"{named}, whose driver {error.name!r} is not installed; install it") from error


def _watermark(row: dict[str, Any], source: SqlSource, config_key: str) -> Watermark | None:
    if source.watermark_column not in row:
        raise DataError(
            f"{config_key} has watermark_column {source.watermark_column!r}, which its query does not return; expected "
            f"one of {', '.join(shown_name(str(name)) for name in row)}"
        )
    value: Watermark | None = row[source.watermark_column]
    return value


def _reason(error: "SQLAlchemyError") -> str:
    """Return what the driver says, its first line, without values of rows: a value it cannot convert is quoted."""
    from sqlalchemy.exc import DataError as ValueProblem

    cause = getattr(error, "orig", None) or error
    said = " ".join(str(part) for part in cause.args) or str(cause)  # as a whole, a tuple quotes its quotes
    first_line = said.strip().partition("\n")[0]  # the next ones repeat the query, or rows
    return without_values(first_line, names=not isinstance(error, ValueProblem)) or type(cause).__name__


def _short(query: str) -> str:
    text = " ".join(query.split())
    return text if len(text) <= 80 else text[:77] + "..."
