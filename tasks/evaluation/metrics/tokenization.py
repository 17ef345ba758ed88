"""Words for ROUGE in any script, and the question whether a text is Chinese."""

import re
import unicodedata

import regex

# Han: ideographic marks, extension A, the main block, compatibility ideographs, planes 2 and 3.
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Written without spaces as well: kana (with its half-width forms), bopomofo, and four scripts of South-East Asia.
_KANA_AND_BOPOMOFO = "\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"
_THAI_LAO_KHMER_BURMESE = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"

_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_UNSPACED = rf"[[{_HAN}{_KANA_AND_BOPOMOFO}{_THAI_LAO_KHMER_BURMESE}]&&[\p{{L}}\p{{Nl}}]]"
_SPACED = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]"
# Vowel signs, accents and other marks (category M) belong to the letter before them.
_TOKEN = regex.compile(rf"{_UNSPACED}\p{{M}}*|(?:{_SPACED}\p{{M}}*)+", regex.V1)
_ASCII_TOKEN = re.compile("[a-z0-9]+")  # what the expression above finds in ASCII text, six times as fast
_UNSPACED_CHARACTER = regex.compile(_UNSPACED, regex.V1)


def holds_han(text: str) -> bool:
    """Return whether a Han character stands in the text."""
    return _HAN_CHARACTER.search(text) is not None


def holds_unspaced(text: str) -> bool:
    """Return whether a character of a script without spaces stands in the text."""
    return _UNSPACED_CHARACTER.search(text) is not None


class WordOrCharacterTokenizer:
    """Lower-cased words with their marks; in scripts without spaces (CJK, Thai, Lao, Khmer, Burmese) characters.

    The text is composed first (NFC), so that two spellings of an accented letter are one. On ASCII text it yields what
    rouge_score's own tokenizer yields without stemming. That one drops every character outside a-z and 0-9, so that two
    identical Chinese texts would score 0.
    """

    signature = "nfc-words+unspaced-characters"

    @staticmethod
    def tokenize(text: str) -> list[str]:
        """Return the tokens of `text`; punctuation is dropped."""
        lowered = text.lower()
        if text.isascii():
            return _ASCII_TOKEN.findall(lowered)
        tokens: list[str] = _TOKEN.findall(unicodedata.normalize("NFC", lowered))
        return tokens
