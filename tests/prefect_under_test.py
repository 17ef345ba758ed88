"""A client of the Prefect server that waits as Prefect's own does while somebody else writes to its SQLite."""

import time
from typing import Any

import httpx

_SECONDS = 150
"""More than the 60 s that the server waits for a locked database, twice in a row."""


class PrefectApi(httpx.Client):
    """Paths are those below `/api`."""

    def __init__(self, port: int) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}/api", timeout=_SECONDS, trust_env=False)

    def request(self, *arguments: Any, **how: Any) -> httpx.Response:
        """Ask, and ask again as long as the answer is 503: the server says so while it cannot write."""
        deadline = time.monotonic() + _SECONDS
        while (answer := super().request(*arguments, **how)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.5)
        return answer
