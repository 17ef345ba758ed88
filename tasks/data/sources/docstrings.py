"""Rows from Python sources: a function without its docstring, and the docstring's first sentence as the answer.

Every machine that can run this project has such a data set: the standard library of its interpreter.
"""

import ast
import hashlib
import logging
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of
from tasks.contracts.source_config import DocstringSource
from tasks.data.formats import instruction_messages
from tasks.data.rows import Row, build_row

log = logging.getLogger("llm_retrain.data")

SOURCE_NAME = "docstrings"

# Tests, the editor, the two demos and what was installed beside the standard library are other kinds of code.
_SKIPPED_DIRECTORIES = {
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo"),
    *("site-packages", "dist-packages", "__pycache__"),
}
# A block's first line is a triple-quoted string. Parsing costs most of the time; a third of the files have none.
_BLOCK_WITH_DOCSTRING = re.compile(rb""":[ \t]*(?:#[^\n]*)?\r?\n\s+[rRuU]?(?:\"{3}|'{3})""")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_FIRST_SENTENCE = re.compile(r"(.+?(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)[.!?])(?:\s|$)")
_MIN_CODE_CHARS = 60
_MIN_SENTENCE_CHARS = 15
_MAX_SENTENCE_CHARS = 160

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_WITH_DOCSTRING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class DocumentedFunction:
    """A function and what it does.

    Attributes:
        code: its source as `ast.unparse` spells it, without docstrings and comments.
        sentence: the first sentence of its docstring.
        module: the top-level module or package it comes from.
        file: its file, relative to the directory that was read, with forward slashes.
        name: the function's name.
    """

    code: str
    sentence: str
    module: str
    file: str
    name: str


def fingerprint() -> str:
    """Return a digest of everything the source reads: the files with docstrings, and the interpreter that parses them.

    Raises:
        DataError: the standard library has no readable sources.
    """
    library = _documented_files(_standard_library())
    files = {relative: hashlib.sha256(content).hexdigest() for relative, content in library}
    return digest_of({"python": platform.python_version(), "files": files})


def read_rows(source: DocstringSource) -> Iterator[Row]:
    """Yield a row for every documented function of the standard library; its slice is the top-level module.

    Raises:
        DataError: the standard library has no readable sources.
    """
    for function in functions_of(_standard_library(), source.max_code_chars):
        messages = instruction_messages(source.instruction, function.code, function.sentence)
        yield build_row(messages, SOURCE_NAME, function.module, {"file": function.file, "function": function.name})


def functions_of(directory: Path, max_code_chars: int) -> Iterator[DocumentedFunction]:
    """Yield the documented functions and methods of the Python files below `directory`, in a fixed order.

    Files that do not parse are skipped. A function is left out if it has no body beside its docstring, if its code has
    fewer than 60 or more than `max_code_chars` characters or is nested too deeply to be spelled, or if its first
    sentence has fewer than 15 or more than 160 characters, is a doctest, holds control characters or stands in the
    code itself.

    Raises:
        DataError: a file cannot be read, or no file has docstrings.
    """
    for relative, content in _documented_files(directory):
        module = relative.partition("/")[0].removesuffix(".py")
        for function, sentence in _functions_with_sentences(relative, content):
            try:
                code = ast.unparse(function)
            except RecursionError:  # hundreds of nested operators
                continue
            if _MIN_CODE_CHARS <= len(code) <= max_code_chars and sentence not in code:
                yield DocumentedFunction(code, sentence, module, relative, function.name)


def first_sentence(docstring: str) -> str:
    """Return the first sentence of the first paragraph on one line; the whole paragraph if no full stop ends one."""
    paragraph = " ".join(_PARAGRAPH_END.split(docstring.strip(), maxsplit=1)[0].split())
    match = _FIRST_SENTENCE.match(paragraph)
    return match.group(1) if match else paragraph


def _standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _documented_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield relative path and bytes of the Python files that can hold documented functions, sorted."""
    found = 0
    for path in _python_files(directory):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"data.sources asks for the docstrings in {str(directory)!r}, but {str(path)!r} cannot be read "
                f"({os.strerror(error.errno or 0)}); expected readable Python sources"
            ) from error
        if _BLOCK_WITH_DOCSTRING.search(content):
            found += 1
            yield path.relative_to(directory).as_posix(), content
    if not found:
        raise DataError(
            f"data.sources asks for the docstrings in {str(directory)!r}, which holds no Python sources with "
            "docstrings; expected an interpreter with its standard library, or a source of kind jsonl"
        )


def _python_files(directory: Path) -> list[Path]:
    files = []
    for parent, directories, names in os.walk(directory):
        directories[:] = [d for d in directories if d not in _SKIPPED_DIRECTORIES and not d.startswith("config-")]
        files += [Path(parent, name) for name in names if name.endswith(".py")]
    return sorted(path for path in files if path.is_file())  # distributions leave dangling links here


def _functions_with_sentences(relative: str, content: bytes) -> list[tuple[_Function, str]]:
    """Return the functions with a good first sentence, with all docstrings taken out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the parser's own stack raises the last
        log.debug("%s is skipped, it does not parse: %s", relative, error)
        return []
    chosen = []
    for node in list(_definitions(tree.body)):
        docstring, has_body = _docstring_of(node), len(node.body) > 1
        if docstring is None:
            continue
        # What is nested loses its docstring too: it would be the answer of another row.
        node.body[:1] = [] if has_body else [ast.Pass()]
        sentence = first_sentence(docstring)
        if has_body and not isinstance(node, ast.ClassDef) and _is_an_answer(sentence):
            chosen.append((node, sentence))
    return chosen


def _is_an_answer(sentence: str) -> bool:
    good_length = _MIN_SENTENCE_CHARS <= len(sentence) <= _MAX_SENTENCE_CHARS
    return good_length and sentence.isprintable() and not sentence.startswith(">>>")


def _definitions(statements: list[ast.stmt]) -> Iterator[_Function | ast.ClassDef]:
    """Yield functions and classes at any depth; ten times cheaper than `ast.walk`, which visits expressions too."""
    for statement in statements:
        if isinstance(statement, _WITH_DOCSTRING):
            yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _definitions(getattr(statement, field, []))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _definitions(part.body)


def _docstring_of(node: _Function | ast.ClassDef) -> str | None:
    """Return the docstring as it is written; `ast.get_docstring` would also clean its indentation, for nothing."""
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value.value
    return None
