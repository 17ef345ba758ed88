"""The records of a paged JSON API, asked politely: at a limited rate, and again after refusals that pass."""

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import orjson

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.jsonl import digest_of
from tasks.contracts.source_config import HttpSource
from tasks.data.formats import kind_of, value_at
from tasks.data.shown import without_values
from tasks.data.sources.materialised import open_materialised, spelled
from tasks.data.sources.shard import Shard

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("llm_retrain.data")

MAX_PAGE_BYTES = 64 * 2**20
MAX_WAIT_SECONDS = 300.0
"""A server that wants to be left alone for longer is not waited for."""
_FIRST_WAIT_SECONDS = 0.5
_PASSING = {429, 500, 502, 503, 504}
_READ_SETTINGS = {
    *("kind", "url", "records", "next_page", "cursor_parameter", "page_parameter"),
    *("watermark_field", "watermark_parameter", "header_variables"),
}


def open_api(source: HttpSource, index: int, config_key: str, cache: Path) -> tuple[list[Shard], list[Any]]:
    """Read all pages and add their records to those of earlier runs; without a watermark they take their place.

    Returns:
        The pieces, and number and digest of all records.

    Raises:
        DataError: a page cannot be fetched or is not what the settings say.
        EnvironmentProblem: the variable with a header's value is not set.
    """
    settings = source.model_dump(mode="json", include=_READ_SETTINGS)
    with open_materialised(cache, settings, config_key) as chunks:
        if source.watermark_field:
            records = _Api(source, config_key).records(chunks.state.watermark)
            chunks.append((record, value_at(record, source.watermark_field)) for record in records)
        else:
            chunks.replace(_Api(source, config_key).records(None))
        host = urlsplit(source.url).hostname
        return chunks.shards(index, f"http-{host}-{digest_of(source.url)[:8]}"), chunks.content()


class _Api:
    """One reading of an API from its first page to its last."""

    def __init__(self, source: HttpSource, config_key: str) -> None:
        self._source = source
        self._config_key = config_key
        self._next_request = 0.0  # seconds of the monotonic clock

    def records(self, watermark: Any) -> Iterator[dict[str, Any]]:
        import httpx

        source = self._source
        headers = {name: self._secret(name, variable) for name, variable in source.header_variables.items()}
        since = {} if watermark is None else {source.watermark_parameter: _spelled_mark(watermark)}
        # Redirects are not followed: headers with secrets must not reach another server.
        with httpx.Client(timeout=source.timeout_seconds, headers=headers, follow_redirects=False) as client:
            pages = self._linked_pages if source.next_page else self._numbered_pages
            for records in pages(lambda url, query: self._page(client, url, query), since):
                for number, record in enumerate(records):
                    if not isinstance(record, dict):
                        self._fail(source.url, f"whose record {number} is {kind_of(record)}", "objects")
                    yield record

    def _numbered_pages(self, page: Callable[..., Any], since: dict[str, str]) -> Iterator[list[Any]]:
        source, before = self._source, ""
        if not source.page_parameter:
            yield self._list_of(page(source.url, since))
            return
        for number in range(1, source.max_pages + 1):
            records = self._list_of(page(source.url, {**since, source.page_parameter: str(number)}))
            if not records:
                return
            digest = digest_of([spelled({"": record}, self._config_key).decode() for record in records])
            if digest == before:
                self._fail(
                    source.url,
                    f"whose page {number} is the same as the one before",
                    f"that it knows the query parameter {source.page_parameter!r} (page_parameter; empty: one page)",
                )
            before = digest
            yield records
        self._fail(source.url, f"which has more than {source.max_pages} pages", "at most max_pages")

    def _linked_pages(self, page: Callable[..., Any], since: dict[str, str]) -> Iterator[list[Any]]:
        source = self._source
        url, query, seen = source.url, since, set[str]()
        for number in range(1, source.max_pages + 1):
            document = page(url, query)
            yield self._list_of(document)
            following = value_at(document, source.next_page)
            if following in (None, "", False):
                return
            if not isinstance(following, str | int):
                self._fail(url, f"whose {source.next_page} is {kind_of(following)}", "an address or a cursor")
            if str(following) in seen:
                self._fail(url, f"whose page {number} names a next page that came before", "pages that end")
            seen.add(str(following))
            if source.cursor_parameter:
                query = {**since, source.cursor_parameter: str(following)}
            else:
                url, query = urljoin(url, str(following)), {}
                if _origin(url) != _origin(source.url):
                    self._fail(source.url, f"whose next page is on {_origin(url)}", "pages of the same server")
        self._fail(source.url, f"which has more than {source.max_pages} pages", "at most max_pages")

    def _list_of(self, page: Any) -> list[Any]:
        path = self._source.records
        records = value_at(page, path) if path else page
        if not isinstance(records, list):
            where = f"in whose pages {path!r} (records)" if path else "whose page"
            self._fail(self._source.url, f"{where} is {kind_of(records)}", "a list of records")
        found: list[Any] = records
        return found

    def _page(self, client: "httpx.Client", url: str, query: dict[str, str]) -> Any:
        """Fetch a page; refusals that may pass are waited for."""
        import httpx

        for attempt in range(self._source.retries + 1):
            self._wait_for_turn()
            wait, problem = _FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.75, 1.25), ""  # noqa: S311
            try:
                status, content, retry_after = self._fetch(client, url, query)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {without_values(str(error), names=False)}"
            except (httpx.InvalidURL, httpx.DecodingError, ValueError) as error:
                self._fail(url, f"which cannot be asked ({without_values(str(error), names=False)})", "a JSON API")
            else:
                if status == 200:
                    try:
                        return orjson.loads(content)
                    except ValueError as error:
                        self._fail(url, f"whose page is not JSON ({error})", "a JSON API")
                problem = f"status {status}"
                if status not in _PASSING:
                    self._fail(url, f"which answers with {problem}", "status 200")
                if retry_after is not None:
                    wait = retry_after
            if wait > MAX_WAIT_SECONDS:
                self._fail(url, f"which asks to wait {wait:.0f} s ({problem})", f"at most {MAX_WAIT_SECONDS:.0f} s")
            if attempt < self._source.retries:
                log.info("%s: %s; asked again in %.1f s", _shown(url), problem, wait)
                time.sleep(wait)
        self._fail(url, f"which failed {self._source.retries + 1} times ({problem})", "an answer")
        raise AssertionError("not reached")

    def _fetch(self, client: "httpx.Client", url: str, query: dict[str, str]) -> tuple[int, bytes, float | None]:
        import httpx

        address = httpx.URL(url).copy_merge_params(query) if query else httpx.URL(url)
        content = bytearray()
        with client.stream("GET", address) as response:
            if response.status_code == 200:
                for block in response.iter_bytes():
                    content += block
                    if len(content) > MAX_PAGE_BYTES:
                        self._fail(url, f"whose page has more than {MAX_PAGE_BYTES:,} bytes", "smaller pages")
            return response.status_code, bytes(content), _retry_after_seconds(response.headers.get("Retry-After"))

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        if now < self._next_request:
            time.sleep(self._next_request - now)
        self._next_request = max(now, self._next_request) + 1 / self._source.requests_per_second

    def _secret(self, header: str, variable: str) -> str:
        value = os.environ.get(variable)
        if not value:
            raise EnvironmentProblem(
                f"{self._config_key} takes the header {header} from {variable}, which is not set; expected its value"
            )
        return value

    def _fail(self, url: str, problem: str, expected: str) -> None:
        raise DataError(f"{self._config_key} names {_shown(url)!r}, {problem}; expected {expected}")


def _spelled_mark(watermark: Any) -> str:
    return watermark.isoformat() if hasattr(watermark, "isoformat") else str(watermark)


def _retry_after_seconds(header: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _origin(url: str) -> str:
    address = urlsplit(url)
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    return f"{address.scheme}://{address.hostname}:{port}"


def _shown(url: str) -> str:
    """Show an address without its query, in which tokens are often passed."""
    return url.partition("?")[0]
