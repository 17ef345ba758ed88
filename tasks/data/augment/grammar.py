"""Questions said in another form that asks the same, by rules for English and Chinese.

English: an imperative becomes polite or a question and back (Explain … → Could you explain …?), a question becomes a
request (What is the X? → Tell me what the X is.), contractions open or close (do not ↔ don't).

Chinese: 请 and 请问 come or go, 怎样 ↔ 如何, 为什么 ↔ 为何, 能…吗 ↔ 能不能…, 什么是X ↔ X是什么.

Rules look at the first line, where an instruction stands; only contractions and words of asking change anywhere in the
prose. Where a rule would need to understand the sentence, it is left out: a form that is never made harms nothing.
"""

import random
import re
from collections.abc import Callable

from tasks.data.augment.method import question_of, with_changed_prose, with_question
from tasks.data.rows import Row

_MAX_LINE_CHARS = 400
"""A first line longer than this is no instruction."""

_MAX_CHARS = 4_000

_VERB = (
    "(?:add|analy[sz]e|answer|calculate|choose|classify|compare|complete|compute|convert|correct|count|create|define"
    "|describe|design|determine|discuss|draft|edit|evaluate|explain|extract|find|fix|generate|give|identify|implement"
    "|improve|list|make|name|outline|paraphrase|predict|propose|provide|rank|rephrase|reply|rewrite|say|show|simplify"
    "|solve|sort|state|suggest|summari[sz]e|tell|translate|use|write)"
)
_TASK = "(?:写|解释|说明|列出|描述|总结|概括|翻译|介绍|分析|比较|计算|给出|判断|推荐|生成|改写|举例)"
_WHO = "(?:我|你|您|他|她|它|孩子|宝宝|患者|病人|老人|孕妇|这种情况|现在|平时|还){0,3}"
_HAN = "(?=[^？?]*[\u4e00-\u9fff])"

Rule = Callable[[str], str | None]


def _rule(pattern: str, form: Callable[[re.Match[str]], str]) -> Rule:
    compiled = re.compile(pattern, re.IGNORECASE)

    def apply(line: str) -> str | None:
        match = compiled.fullmatch(line.rstrip())
        return form(match) if match else None

    return apply


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


_ENGLISH: tuple[Rule, ...] = (
    _rule(rf"({_VERB}\b[^?]*?)([.!:]?)", lambda m: f"Please {_lower_first(m[1])}{m[2] or '.'}"),
    _rule(rf"({_VERB}\b[^?.!:]*)[.!]?", lambda m: f"Could you {_lower_first(m[1])}?"),
    _rule(rf"please ({_VERB}\b.*)", lambda m: _upper_first(m[1])),
    _rule(rf"(?:can|could|would) you (?:please )?({_VERB}\b[^?]*)\?", lambda m: f"{_upper_first(m[1])}."),
    _rule(
        r"what (is|are|was|were) ((?:the|a|an) [^?,]{2,120})\?",
        lambda m: f"Tell me what {m[2]} {m[1].lower()}.",
    ),
    _rule(r"how (?:do|can|should) (?:i|you|we|one) ([^?]{3,300})\?", lambda m: f"Explain how to {m[1]}."),
    _rule(r"how to ([^?.]{3,300})\??", lambda m: f"How can I {m[1]}?"),
)

_CHINESE: tuple[Rule, ...] = (
    _rule(r"请问[，,]?\s*(.{2,})", lambda m: m[1]),
    _rule(rf"(?!请|麻烦|您好|你好){_HAN}([^。！；？?]{{4,}}[？?])", lambda m: f"请问{m[1]}"),
    _rule(r"请(?![问教假求勿客])(.{2,})", lambda m: m[1]),
    _rule(rf"({_TASK}[^？?]{{2,}})", lambda m: f"请{m[1]}"),
    _rule(
        rf"({_WHO})(能|会|要|可以|需要|应该)([^不，。？?]{{1,60}})吗[？?]",
        lambda m: f"{m[1]}{m[2][0]}不{m[2]}{m[3]}？",
    ),
    _rule(
        r"([^，。？?]{0,40}?)(?:能不(能)|会不(会)|要不(要)|可不(可以)|需不(需要)|应不(应该))([^，。？?]{1,60})[？?]",
        lambda m: f"{m[1]}{''.join(verb or '' for verb in m.groups()[1:7])}{m[8]}吗？",
    ),
    _rule(r"什么是([^，。？?]{1,40})[？?]?", lambda m: f"{m[1]}是什么？"),
    _rule(r"([^，。？?是]{1,40})是什么[？?]", lambda m: f"什么是{m[1]}？"),
)

_NOT = ("do", "does", "did", "is", "are", "was", "were", "could", "should", "would", "has", "have")
_BE = {
    "it is": "it's",
    "that is": "that's",
    "you are": "you're",
    "we are": "we're",
    "they are": "they're",
    "I am": "I'm",
}
# "it is" before a word that goes on ("what it is and …") or nothing stays; so does "it's" for "it has".
_GOES_ON = r"(?=\s+(?!and\b|or\b|but\b|in\b|that\b)\w)"
_NO_PRONOUN = r"(?!\s+(?:i|you|we|they|he|she|it)\b)"

_ANYWHERE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), new)
    for pattern, new in (
        [(rf"\b{verb} not\b", f"{verb}n't") for verb in _NOT]
        + [(rf"\b{verb}n't\b{_NO_PRONOUN}", f"{verb} not") for verb in _NOT]
        + [(r"\bcannot\b", "can't"), (rf"\bcan't\b{_NO_PRONOUN}", "cannot")]
        + [(rf"\b{long}\b{_GOES_ON}", short) for long, short in _BE.items()]
        + [(rf"\b{short}\b(?!\s+(?:been|got|had)\b)", long) for long, short in _BE.items()]
        + [("怎样(?!的)", "如何"), ("如何(?!是好)", "怎样"), ("为什么", "为何"), ("为何(?!物)", "为什么")]
        + [
            ("怎么(?=治|预防|处理|办理|使用|操作|做|写|选|调整)", "如何"),
            ("(?<![都没])有哪些", "都有哪些"),
            ("都有哪些", "有哪些"),
        ]
    )
)


class Grammar:
    """Says the question in one of the other forms that the rules know, chosen by chance."""

    name = "grammar"

    def make(self, rows: list[Row], draws: list[random.Random]) -> list[Row | None]:
        """Return each row with its question in another form, None where no rule fits."""
        return [self._made(row, draw) for row, draw in zip(rows, draws, strict=True)]

    def depends_on(self) -> dict[str, str]:
        """Return nothing: the rules are code."""
        return {}

    def _made(self, row: Row, draw: random.Random) -> Row | None:
        forms = forms_of(question_of(row))
        return with_question(row, draw.choice(forms)) if forms else None


def forms_of(question: str) -> list[str]:
    """Return every other form that one rule makes of a question, in the order of the rules."""
    if len(question) > _MAX_CHARS:
        return []
    line, line_end, rest = question.partition("\n")
    forms: dict[str, None] = {}
    if len(line) <= _MAX_LINE_CHARS and "`" not in line:
        for rule in _ENGLISH + _CHINESE:
            form = rule(line)
            if form:
                forms[form + line_end + rest] = None
    for pattern, new in _ANYWHERE:
        forms[_with_replaced(question, pattern, new)] = None
    forms.pop(question, None)
    return list(forms)


def _with_replaced(text: str, pattern: re.Pattern[str], new: str) -> str:
    """Return the text with every match outside code replaced, with a capital where the match has one."""

    def spelled(match: re.Match[str]) -> str:
        return _upper_first(new) if match[0][0].isupper() else new

    return with_changed_prose(text, lambda prose: pattern.sub(spelled, prose))
