"""An OpenAI-compatible endpoint (`POST …/chat/completions`): asked again after refusals that pass."""

import json
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

_MAX_ANSWER_BYTES = 4_000_000
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0


class ChatProblem(Exception):
    """An endpoint gave no completion.

    Attributes:
        status: of the last response; None if there was none, or if it said 200.
    """

    def __init__(self, what: str, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


class ChatEndpoint:
    """One endpoint with its key; any thread may ask it. Redirects are not followed: the key is for this address.

    Args:
        url: address before /chat/completions.
        key: sent as a bearer token; empty: none.
        timeout_seconds: time that a response may take.
        retries: tries after 429, 5xx or a broken connection.
    """

    def __init__(self, url: str, key: str, timeout_seconds: float, retries: int) -> None:
        self._address, self._retries, self._timeout_seconds = f"{url}/chat/completions", retries, timeout_seconds
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client: httpx.Client | None = None
        self._is_over = threading.Event()

    def __enter__(self) -> "ChatEndpoint":
        import httpx

        self._client = httpx.Client(headers=self._headers, timeout=self._timeout_seconds)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._client is not None
        self._client.close()

    def stop(self) -> None:
        """Let nobody wait for another try; what is under way ends by itself."""
        self._is_over.set()

    def ask(self, body: dict[str, Any]) -> str:
        """Send a request until it succeeds, the retries are used up, or the refusal is final; return the reply's text.

        Raises:
            ChatProblem: there is no completion. It quotes nothing that was sent.
        """
        answer = self._asked(body)
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
            content.encode()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ChatProblem(f"answered {answer[:200]!r}; expected choices[0].message.content") from error
        return str(content)

    def _asked(self, body: dict[str, Any]) -> bytes:
        import httpx

        assert self._client is not None
        problem, status = "", None
        for attempt in range(self._retries + 1):
            wait, started = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt), time.monotonic()
            try:
                with self._client.stream("POST", self._address, json=body) as response:
                    if response.status_code == 200:
                        return _bounded(response, started + self._timeout_seconds)
                    problem, status = f"HTTP {response.status_code}", response.status_code
                    if status != 429 and status < 500:
                        break
                    wait = _seconds(response.headers.get("retry-after"), wait)
            except httpx.TransportError as error:
                problem, status = f"{type(error).__name__}: {error}", None
            if attempt < self._retries and self._wait(wait):
                break
        raise ChatProblem(problem, status)

    def _wait(self, seconds: float) -> bool:
        """Wait, and say whether it is over."""
        return self._is_over.wait(seconds)


def _bounded(response: "httpx.Response", deadline: float) -> bytes:
    """Read a response whole; one that drips in is as late as one that does not come."""
    import httpx

    answer = bytearray()
    for piece in response.iter_bytes():
        answer += piece
        if len(answer) > _MAX_ANSWER_BYTES:
            raise ChatProblem(f"answered with more than {_MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer was not complete in time")
    return bytes(answer)


def _seconds(retry_after: str | None, otherwise: float) -> float:
    """Return what a `retry-after` header asks for, within bounds."""
    if retry_after and retry_after.isascii() and retry_after.isdigit():
        return min(_LONGEST_WAIT_SECONDS, float(retry_after[:6]))
    return otherwise
