"""How many tokens a text has, and bounds of that which cost next to nothing."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

from tasks.contracts.errors import ConfigError

_UNKNOWN = (0.0, float("inf"))
_PIECES = {"ByteLevel", "Digits", "Split", "Punctuation"}


class TokenCounter:
    """Counts with the tokenizer of a `tokenizer.json`, or of the directory that holds one.

    Raises:
        ConfigError: the file cannot be read or is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        # Every process of the data engine has a core of its own: threads inside would only get in each other's way.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises no narrower class
            raise ConfigError(f"the tokenizer of the base model at {path} cannot be read: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._longest_token_bytes = _longest_token_bytes(description)
        self._bytes_factor = 2 if _adds_spaces(description) else 1
        self._composes = (description.get("normalizer") or {}).get("type") == "NFC"

    def counts(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def bounds(self, text: str) -> tuple[float, float]:
        """Return the fewest and the most tokens that a text can have.

        A token of a byte-level tokenizer covers at least one byte and at most as many as the longest one, and no byte
        is lost. Of any other tokenizer nothing is known.
        """
        if not text:
            return 0.0, 0.0
        if not self._longest_token_bytes:
            return _UNKNOWN
        if text.isascii():
            size = len(text)
        elif self._composes and not unicodedata.is_normalized("NFC", text):
            return _UNKNOWN  # what is encoded is another text, longer or shorter
        else:
            size = len(text.encode())
        return -(-size // self._longest_token_bytes), size * self._bytes_factor + self._bytes_factor - 1


def _longest_token_bytes(description: dict[str, Any]) -> int:
    """Return the size of the longest token of a tokenizer that is byte-level all through, else 0."""
    model = description["model"]
    vocabulary = model.get("vocab")
    pieces = _pre_tokenizers(description)
    kinds = {piece["type"] for piece in pieces}
    added = description.get("added_tokens") or []
    byte_level = (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and "ByteLevel" in kinds <= _PIECES
        and all(piece.get("behavior") != "Removed" for piece in pieces)
        and (description.get("normalizer") or {"type": "NFC"}).get("type") == "NFC"
        and not any(token["lstrip"] or token["rstrip"] for token in added)  # those swallow white space
        and sum(len(token) == 1 for token in vocabulary) >= 256
    )
    if not byte_level:
        return 0
    return max([len(token) for token in vocabulary] + [len(token["content"].encode()) for token in added])


def _adds_spaces(description: dict[str, Any]) -> bool:
    """Tell whether a space is put before each piece of a text; there are at most as many pieces as bytes."""
    return any(piece.get("add_prefix_space") for piece in _pre_tokenizers(description))


def _pre_tokenizers(description: dict[str, Any]) -> list[dict[str, Any]]:
    pre_tokenizer = description.get("pre_tokenizer") or {"type": "none"}
    pieces: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    return pieces
