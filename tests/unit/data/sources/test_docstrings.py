import ast
import re
import textwrap
from pathlib import Path

import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import DocstringSource
from tasks.data.rows import answer_of, prompt_of
from tasks.data.sources import docstrings
from tasks.data.sources.docstrings import first_sentence, functions_of, read_rows

LIBRARY = '''
"""A module."""
import os

def join(parts, separator=", "):
    """Join the parts with a separator.  It is fast.

    More about it.
    """
    # a comment
    return separator.join(str(part) for part in parts if part is not None)

class Reader:
    """Reads."""

    async def read(self, size):
        """Read at most size bytes,
        e.g. a block. Blocks if there are none!
        """
        def retry():
            """Try the same read once more."""
            return self.stream.read(size) or self.again(size)
        class Marker:
            """Marks."""
        return await self.stream.read(size) or retry() or Marker

if os.name == "posix":
    try:
        def guarded(value):
            """Guard the value behind a lock"""
            with value.lock:
                return value.content if value.ready else value.default
    except ImportError:
        pass
else:
    def unguarded(value):
        """Take the value without a lock."""
        return value.content if value.ready else value.default

def deep(value):
    """Add the value to itself, often."""
    return {deep}

def only_documented(first_argument, second_argument, third_argument, *rest):
    """Say nothing but this one sentence."""

def undocumented(value):
    return [value.first, value.second, value.third, value.fourth, value.fifth]

def tiny(x):
    """Return the next number."""
    return x + 1

def terse(value):
    """Too short."""
    return [value.first, value.second, value.third, value.fourth, value.fifth]

def example(value):
    """>>> example(12345678)"""
    return [value.first, value.second, value.third, value.fourth, value.fifth]

def long_winded(value):
    """{long}."""
    return [value.first, value.second, value.third, value.fourth, value.fifth]

def tells(parser):
    """Show the version and exit."""
    parser.add_argument("--version", help="Show the version and exit.", action="version")
'''.replace("{long}", "Word " * 40).replace("{deep}", "+".join(["v"] * 900))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    for relative in ("pkg/mod.py", "test/test_mod.py", "pkg/tests/mod.py", "site-packages/mod.py", "config-3.11/x.py"):
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LIBRARY)
    (root / "broken.py").write_text('def f(:\n    """A docstring in a file that does not parse."""\n')
    documented = b'def f():\n    """A docstring."""\n'
    (root / "nul.py").write_bytes(documented + b"\0")
    (root / "nested.py").write_bytes(documented + b"x = " + b"-" * 3_000 + b"1\n")
    (root / "nested_more.py").write_bytes(documented + b"x = " + b"-" * 30_000 + b"1\n")
    (root / "dangling.py").symlink_to(root / "nowhere.py")
    return root


@pytest.fixture(scope="module")
def standard_rows():
    return list(read_rows(DocstringSource()))


def test_documented_functions_and_methods_are_found_at_any_depth(library):
    found = {function.name: function.sentence for function in functions_of(library, 600)}
    assert found == {
        "join": "Join the parts with a separator.",
        "read": "Read at most size bytes, e.g. a block.",
        "retry": "Try the same read once more.",
        "guarded": "Guard the value behind a lock",
        "unguarded": "Take the value without a lock.",
    }


def test_a_function_knows_its_module_and_file(library):
    function = next(iter(functions_of(library, 600)))
    assert (function.module, function.file) == ("pkg", "pkg/mod.py")


def test_the_code_is_shown_without_docstrings_and_comments(library):
    code = {function.name: function.code for function in functions_of(library, 600)}
    assert code["join"] == textwrap.dedent("""\
        def join(parts, separator=', '):
            return separator.join((str(part) for part in parts if part is not None))""")
    assert "Try the same read" not in code["read"]
    assert "Marks" not in code["read"]


def test_the_code_still_parses_where_a_body_was_only_a_docstring(library):
    codes = [function.code for function in functions_of(library, 600)]
    assert codes
    assert all(ast.parse(code).body for code in codes)


def test_longer_code_than_the_maximum_is_left_out(library):
    assert {function.name for function in functions_of(library, 130)} == {"join", "retry", "guarded", "unguarded"}


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the value.", "Return the value."),
        ("\n   Return the\n   value of x.y. Then stop.", "Return the value of x.y."),
        ("Return the value\n  \nSecond paragraph.", "Return the value"),
        ("Is it true? Maybe.", "Is it true?"),
        (
            "Take units, i.e. metres, vs. feet etc. as they are. Stop.",
            "Take units, i.e. metres, vs. feet etc. as they are.",
        ),
        ("", ""),
    ],
)
def test_the_sentence_is_the_first_of_the_first_paragraph_on_one_line(docstring, sentence):
    assert first_sentence(docstring) == sentence


def test_a_directory_without_documented_sources_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"^data\.sources asks for the docstrings in .* holds no Python sources"):
        list(functions_of(tmp_path / "none", 600))


@pytest.mark.slow
def test_the_standard_library_gives_enough_rows_of_the_asked_size(standard_rows):
    assert len(standard_rows) >= 500
    instruction = DocstringSource().instruction + "\n\n"
    for row in standard_rows:
        content = prompt_of(row)[0]["content"]
        assert content.startswith(instruction)
        assert 60 <= len(content) - len(instruction) <= 600
        assert 15 <= len(answer_of(row)) <= 160


@pytest.mark.slow
def test_no_answer_from_the_standard_library_can_be_read_in_its_prompt(standard_rows):
    assert [row for row in standard_rows if answer_of(row) in prompt_of(row)[0]["content"]] == []


@pytest.mark.slow
def test_the_standard_library_is_read_without_its_tests_and_what_was_installed(standard_rows):
    parts = {part for row in standard_rows for part in row["meta"]["file"].split("/")}
    assert "asyncio" in parts
    assert not parts & {"test", "tests", "idlelib", "lib2to3", "site-packages"}
    assert all(re.fullmatch(r"\w+", row["slice"]) for row in standard_rows)
    assert len({row["slice"] for row in standard_rows}) > 50


def test_the_fingerprint_changes_with_the_content_of_a_file_and_not_with_its_place(library, tmp_path, monkeypatch):
    def fingerprint_at(directory: Path) -> str:
        monkeypatch.setattr(docstrings, "_standard_library", lambda: directory)
        return docstrings.fingerprint()

    before = fingerprint_at(library)
    moved = library.rename(tmp_path / "moved")
    assert fingerprint_at(moved) == before
    (moved / "pkg" / "mod.py").write_text(LIBRARY + "\n# changed\n")
    assert fingerprint_at(moved) != before


@pytest.mark.slow
def test_the_source_is_opened_and_read_like_any_other(read, standard_rows):
    assert read(DocstringSource()).rows == standard_rows
