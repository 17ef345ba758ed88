"""Files that a step reads its words from: a word a line, or two columns with a tab between them."""

from pathlib import Path

from tasks.contracts.errors import ConfigError


def read_words(path: str, config_key: str) -> list[str]:
    """Return the lines that are not blank, without white space around them.

    Raises:
        ConfigError: the file cannot be read.
    """
    return [line.strip() for line in _lines(path, config_key) if line.strip()]


def read_pairs(path: str, config_key: str) -> dict[str, str]:
    """Return the second column by the first; blank lines are skipped.

    Raises:
        ConfigError: the file cannot be read, or a line has not two columns, or the same term stands twice.
    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(_lines(path, config_key), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not columns[0]:
            raise ConfigError(
                f"{config_key} names {path!r}, whose line {number} is {line!r}; expected a term, a tab and another term"
            )
        term, replacement = columns
        if pairs.setdefault(term, replacement) != replacement:
            raise ConfigError(
                f"{config_key} names {path!r}, which has {term!r} twice (line {number}); expected one replacement"
            )
    return pairs


def _lines(path: str, config_key: str) -> list[str]:
    try:
        # utf-8-sig: files from spreadsheets begin with a byte order mark.
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{config_key} names {path!r}, which cannot be read as UTF-8 text: {error}") from error
    lines = text.splitlines()
    if "\0" in text:
        number = next(number for number, line in enumerate(lines, 1) if "\0" in line)
        raise ConfigError(
            f"{config_key} names {path!r}, whose line {number} holds a NUL character, which no row may hold"
        )
    return lines
