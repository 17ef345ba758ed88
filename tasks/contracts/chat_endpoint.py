"""An OpenAI-compatible endpoint (`POST …/chat/completions`): asked again after refusals that pass."""

import json
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import ConfigError
from tasks.contracts.key_spellings import spellings_of

if TYPE_CHECKING:
    import httpx

_MAX_ANSWER_BYTES = 4_000_000
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_SENDABLE_KEY = re.compile(r"[!-~]+")
_QUOTED_CHARS = 200


def key_from(variable: str, setting: str) -> str:
    """Return the key that an environment variable holds, without white space around it; empty if none is named.

    A key with a line's end (a file with CR LF, `export KEY=$(cat file)`) is refused by the HTTP library, whose error
    quotes it; so what cannot be sent is refused here, and never shown.

    Args:
        variable: its name.
        setting: the config key that names it.

    Raises:
        ConfigError: it is not set, or holds what is no key.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"{setting} is {variable!r}, but no such environment variable is set; expected the endpoint's key in it"
        )
    if not _SENDABLE_KEY.fullmatch(key):
        raise ConfigError(
            f"{setting} is {variable!r}, an environment variable that holds what cannot be sent as a key; expected "
            "printable ASCII without spaces"
        )
    return key


class ChatProblem(Exception):
    """An endpoint gave no completion. Where it quotes the key, in any of `spellings_of`, the text holds … instead.

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
        timeout_seconds: time that a response may take. Its body is late when that is over; of its headers only silence
            is timed, so those that come a few bytes at a time take longer, and then the body is late.
        retries: tries after 429, 5xx or a broken connection.
    """

    def __init__(self, url: str, key: str, timeout_seconds: float, retries: int) -> None:
        self._address, self._retries, self._timeout_seconds = f"{url}/chat/completions", retries, timeout_seconds
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._spellings = spellings_of(key) if key else None
        self._client: httpx.Client | None = None
        self._is_over = threading.Event()

    def __enter__(self) -> "ChatEndpoint":
        import httpx

        self._client = httpx.Client(timeout=self._timeout_seconds)
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
            seen = self._without_key(answer.decode(errors="replace"))[:_QUOTED_CHARS]
            problem = f"answered {seen!r} ({type(error).__name__}); expected choices[0].message.content"
            raise ChatProblem(problem) from None  # the decoder's error holds the whole answer
        return str(content)

    def _asked(self, body: dict[str, Any]) -> bytes:
        import httpx

        assert self._client is not None
        problem, status = "", None
        for attempt in range(self._retries + 1):
            wait, started = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt), time.monotonic()
            try:
                with self._client.stream("POST", self._address, json=body, headers=self._headers) as response:
                    if response.status_code == 200:
                        return _bounded(response, started + self._timeout_seconds)
                    problem, status = f"HTTP {response.status_code}", response.status_code
                    if status != 429 and status < 500:
                        break
                    wait = _seconds(response.headers.get("retry-after"), wait)
            except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError) as error:
                problem, status = f"{type(error).__name__}: the request cannot be sent", None  # its text quotes the key
                break
            except httpx.RequestError as error:
                problem, status = self._without_key(f"{type(error).__name__}: {error}"), None
            if attempt < self._retries and self._wait(wait):
                break
        raise ChatProblem(problem, status)

    def _without_key(self, text: str) -> str:
        return self._spellings.sub("…", text) if self._spellings else text

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
