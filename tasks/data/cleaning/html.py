"""Text out of HTML, without harm to code that looks like it.

What counts as markup, all of it outside Markdown code (fences and `inline`):

- tags of elements that HTML has: `List<int>`, `a < b` and `<T>` are none;
- only if the text uses them as markup: an element that is opened and closed, one that stands alone (`<br>`), or one
  whose end may be left out (`<p>`, `<li>`, not right after a letter or digit). A single `<b>` stays;
- nothing at all in a text with JSX attributes (`className=`, `={`): that is source code;
- entities with their semicolon. A named one right after `=`, `(` or `,` stays (`p = &copy;` is C), unless it is one of
  those that escape markup (`&lt;`).

HTML source that stands unfenced in prose cannot be told from markup and loses its tags.
"""

import html
import re
from collections.abc import Iterator
from html.entities import html5
from itertools import pairwise

from tasks.contracts.cleaning_config import HtmlStep
from tasks.data.cleaning.markdown_code import prose_spans
from tasks.data.cleaning.step import Dropped, with_texts
from tasks.data.rows import Row

_ALONE = {"br", "hr", "img", "wbr", "input", "link", "meta"}
_END_OPTIONAL = {"p", "li", "dt", "dd", "tr", "td", "th", "option"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "dl", "pre", "blockquote"}
_LINES = (
    "div section article header footer main nav aside figure figcaption form fieldset address li dt dd tr thead tbody "
    "tfoot caption option html head body title hr details summary"
)
_BLOCKS = _PARAGRAPHS | set(_LINES.split())
_CELLS = {"td", "th"}
_HIDDEN = {"script", "style"}
_COMMENT = "!"
_INLINE = (
    "a abbr acronym b bdi bdo big center cite code data del dfn em font i iframe ins kbd label legend mark meter "
    "noscript object picture q rp rt ruby s samp select small source span strike strong sub sup svg textarea time tt "
    "u var video audio button canvas colgroup col path"
)
_ELEMENTS = _ALONE | _END_OPTIONAL | _BLOCKS | _HIDDEN | set(_INLINE.split())

# Every piece of the expression stops at the next "<", so an unclosed tag or quote costs no second look. No possessive
# groups: until Python 3.11.5 `re` matches them wrong (cpython#106052); `re` remembers each turn of
# a group that is none, so a tag has at most 500 quoted values. ASCII: else "<\u017fpan>" is a tag, too.
_TOKEN = re.compile(
    r"<(?P<close>/?)(?P<name>[a-z][a-z0-9]{0,9}+)"
    r"""(?P<attributes>(?:[\s/][^<>"']*+(?:(?:"[^"<]*+"|'[^'<]*+')[^<>"']*+){0,500})?)>"""
    r"|(?P<comment><!--)|(?P<doctype><!doctype\s[^<>]*+>)",
    re.IGNORECASE | re.ASCII,
)
_SOURCE_CODE = re.compile(r"\bclassName=|=\{")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_ESCAPES = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&nbsp;"}


class Html:
    """Takes tags away (blocks become lines), decodes entities, drops scripts, styles and comments whole."""

    name = "html"
    signs = ("</?[a-zA-Z]|<!", "&[#a-zA-Z]")

    def __init__(self, section: HtmlStep) -> None:
        self._section = section

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row without markup; none is dropped."""
        return [with_texts(row, _without_markup) for row in rows]


def _without_markup(text: str) -> str:
    has_tags = "<" in text
    if not has_tags and ("&" not in text or not _ENTITY.search(text)):
        return text
    prose = prose_spans(text)
    names = _markup_names(text, prose) if has_tags else set()
    pieces = _Pieces()
    for (start, end), (next_start, _) in pairwise([*prose, (len(text), len(text))]):
        if names:
            _add_without_tags(pieces, text[start:end], names)
        else:
            pieces.add(_decoded(text[start:end]))
        pieces.add_code(text[end:next_start])
    return pieces.text()


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the tags of HTML's elements, each with its name, and what opens a comment or names the document type."""
    for token in _TOKEN.finditer(text, start, end):
        name = (token["name"] or _COMMENT).lower()
        if name == _COMMENT or name in _ELEMENTS:
            yield token, name


def _markup_names(text: str, prose: list[tuple[int, int]]) -> set[str]:
    """Return the elements that the text uses as markup; _COMMENT stands for comments and the document type."""
    opened: set[str] = set()
    closed: set[str] = set()
    names: set[str] = set()
    last_comment_end = text.rfind("-->")
    for start, end in prose:
        for token, name in _tokens(text, start, end):
            if token["attributes"] and _SOURCE_CODE.search(token["attributes"]):
                return set()
            if name in names:
                continue
            if token["close"]:
                closed.add(name)
            elif name == _COMMENT:
                if token["doctype"] or last_comment_end > token.start():
                    names.add(name)
            elif name in _ALONE or (name in _END_OPTIONAL and not _is_word_before(text, token.start())):
                names.add(name)
            else:
                opened.add(name)
    return names | (opened & closed)


def _is_word_before(text: str, start: int) -> bool:
    before = text[start - 1 : start]
    return before.isalnum() or before == "_"


def _add_without_tags(pieces: "_Pieces", text: str, names: set[str]) -> None:
    hidden_ends = {} if names.isdisjoint({*_HIDDEN, _COMMENT}) else _hidden_ends(text, names)
    end = 0
    for token, name in _tokens(text, 0, len(text)):
        start = token.start()
        if start < end or name not in names:  # inside a script, style or comment; or no markup
            continue
        if end < start:
            pieces.add(_decoded(text[end:start]))
        end = hidden_ends.get(start, token.end())
        if name == "br":
            pieces.break_line()
        elif name == "li" and not token["close"]:
            pieces.end_line(1)
            pieces.add("- ")
        elif name in _CELLS and not token["close"]:
            pieces.next_cell()
        elif name in _BLOCKS:
            pieces.end_line(2 if name in _PARAGRAPHS else 1, keep_indent=name == "pre" and not token["close"])
    pieces.add(_decoded(text[end:]))


def _hidden_ends(text: str, names: set[str]) -> dict[int, int]:
    """Return where scripts, styles and comments end, by where each begins; what nothing closes is left out."""
    ends: dict[int, int] = {}
    unclosed: dict[str, list[int]] = {name: [] for name in _HIDDEN}
    comment_end: int | None = 0
    for token, name in _tokens(text, 0, len(text)):
        if name not in names:
            continue
        if name in _HIDDEN and token["close"]:
            ends.update(dict.fromkeys(unclosed[name], token.end()))
            unclosed[name] = []
        elif name in _HIDDEN:
            unclosed[name].append(token.start())
        elif token["comment"] and comment_end is not None:
            if comment_end < token.end():
                found = text.find("-->", token.end())
                comment_end = None if found < 0 else found + 3  # nothing closes this one or a later one
            if comment_end is not None:
                ends[token.start()] = comment_end
    return ends


def _decoded(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(match: re.Match[str]) -> str:
    entity = match[0]
    if entity[1] != "#" and entity not in _ESCAPES:
        if entity[1:] not in html5:
            return entity
        before = match.string[max(0, match.start() - 2) : match.start()].rstrip(" ")
        if before[-1:] in ("=", "(", ","):
            return entity
    character = html.unescape(entity)
    return " " if character == "\xa0" else character


class _Pieces:
    """Text that grows by pieces, with control over the line ends between them."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._line_ends = 0
        self._keep_indent = False
        self._cell = False

    def add(self, text: str) -> None:
        """Append prose; white space beside a line that a tag ended goes."""
        if self._line_ends or self._cell:
            text = text.lstrip("\n") if self._keep_indent else text.lstrip()
            if not text:
                return
            self.add_code(text)
        elif text:
            self._pieces.append(text)

    def add_code(self, text: str) -> None:
        """Append code as it is."""
        if not text:
            return
        if self._pieces and (self._line_ends or self._cell):
            self._pieces.append("\n" * self._line_ends or " | ")
        self._line_ends, self._keep_indent, self._cell = 0, False, False
        self._pieces.append(text)

    def break_line(self) -> None:
        """End a line; twice leaves an empty one."""
        self.end_line(min(2, self._line_ends + 1))

    def end_line(self, line_ends: int, keep_indent: bool = False) -> None:
        """Begin a new line before the next piece, if it does not begin one already; two leave an empty one between."""
        self._trim()
        self._line_ends, self._keep_indent, self._cell = max(self._line_ends, line_ends), keep_indent, False

    def next_cell(self) -> None:
        """Put a bar before the next piece, unless it begins a line."""
        if not self._line_ends and self._pieces:
            self._trim()
            self._cell = True

    def _trim(self) -> None:
        while self._pieces:
            trimmed = self._pieces.pop().rstrip()
            if trimmed:
                self._pieces.append(trimmed)
                return

    def text(self) -> str:
        """Return the whole."""
        return "".join(self._pieces)
