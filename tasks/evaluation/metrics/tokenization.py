"""Words for ROUGE in any script, and the question whether a text is Chinese."""

import re

# Han: ideographic marks, extension A, the main block, compatibility ideographs, planes 2 and 3.
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Written without spaces as well: kana (with its half-width forms) and bopomofo.
_KANA_AND_BOPOMOFO = "\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"

_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_TOKEN = re.compile(f"[{_HAN}{_KANA_AND_BOPOMOFO}]|[^\\W_{_HAN}{_KANA_AND_BOPOMOFO}]+")


def holds_han(texts: list[str]) -> bool:
    """Return whether a Han character stands in any of the texts."""
    return any(_HAN_CHARACTER.search(text) for text in texts)


class WordOrCharacterTokenizer:
    """Lower-cased words, and CJK characters one by one.

    On ASCII text it yields what rouge_score's own tokenizer yields without stemming. That one drops every character
    outside a-z and 0-9, so that two identical Chinese texts would score 0.
    """

    signature = "words+cjk-characters"

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text`; punctuation is dropped."""
        return _TOKEN.findall(text.lower())
