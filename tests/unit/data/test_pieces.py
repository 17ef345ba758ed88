"""Pieces that never became rows, as a data version keeps them."""

import json

import pytest

from tasks.contracts.cleaning_config import PersonalStep, WhitespaceStep
from tasks.data.records.lineage import Lineage, keep_lineage, relatives
from tasks.data.records.pieces import kept_pieces, piece_id
from tasks.data.sources.shard import EXCERPT_CHARS, excerpt_of

PIECE = {
    "reason": "not JSON",
    "detail": "found 'ada@example.org'",
    "source": "a.jsonl",
    "excerpt": "ada@example.org, 13800138000",
    "line": 7,
    "source_index": 0,
}


@pytest.fixture
def keep(tmp_path, store):
    """Keep some pieces and return their records and the ids they are known by."""

    def run(*pieces, steps=(), erased=()):
        lineage = Lineage()
        kept = list(kept_pieces(pieces, steps, erased, lineage))
        lineage.write(tmp_path / "lineage")
        keep_lineage(store, {}, [tmp_path / "lineage"])
        return kept, relatives(store, [piece_id(piece["excerpt"]) for piece in pieces])

    return run


def test_without_steps_a_piece_is_kept_but_for_where_it_stood(keep):
    [kept], ids = keep(PIECE, steps=(WhitespaceStep(),))
    assert kept == {key: PIECE[key] for key in ("reason", "detail", "source", "excerpt")}
    assert ids == {piece_id(PIECE["excerpt"])}


def test_excerpt_and_detail_get_pseudonyms(keep):
    [kept], ids = keep(PIECE, steps=(PersonalStep(),))
    assert (kept["excerpt"], kept["detail"]) == ("<EMAIL_1>, <PHONE_1>", "found '<EMAIL_1>'")
    assert ids == {piece_id("<EMAIL_1>, <PHONE_1>"), piece_id(PIECE["excerpt"])}


@pytest.mark.parametrize("action", ["drop", "block"])
def test_where_the_action_is_no_pseudonym_no_text_is_kept(keep, action):
    clean = {**PIECE, "detail": "Expecting value at character 3", "excerpt": "{"}
    [kept, untouched], _ = keep(PIECE, clean, steps=(PersonalStep(action=action),))
    assert (kept["reason"], kept["detail"], kept["excerpt"]) == ("not JSON", "personal data", "")
    assert (untouched["detail"], untouched["excerpt"]) == ("Expecting value at character 3", "{")


@pytest.mark.parametrize("known", [PIECE["excerpt"], "<EMAIL_1>, <PHONE_1>"])
def test_an_erased_piece_keeps_its_reason_alone(keep, known):
    [kept], _ = keep(PIECE, steps=(PersonalStep(),), erased=[piece_id(known)])
    assert kept == {"reason": "not JSON", "detail": "erased", "source": "a.jsonl", "excerpt": ""}


def hidden_by_escapes(text):
    """Spell a text as JSON that escapes every character, as one line that broke off."""
    units = text.encode("utf-16-be")
    return '{"a": "' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


@pytest.mark.parametrize(
    ("excerpt", "shown"),
    [
        (
            json.dumps({"a": "患者张三，男，45岁，电话13800138000"})[:-1],
            '{"a": "患者<NAME_1>，男，45岁，电话<PHONE_1>"',
        ),
        (r'{"a": "j\u006fhn.smith\u0040example.com"', '{"a": "<EMAIL_1>"'),
        (r'{"a": "138\u002d0013\u002d8000"', '{"a": "<PHONE_1>"'),
        (r'{"a": "call\n13800138000\tnow"', '{"a": "call\n<PHONE_1>\tnow"'),
        (r'{"a": "{\"b\": \"j\\u006fhn\\u0040example.com\"}"', '{"a": "{"b": "<EMAIL_1>"}"'),
        (hidden_by_escapes("\U0001f600 ada@example.org"), '{"a": "\U0001f600 <EMAIL_1>'),
        (r'{"a": "\ud83d ada\u0040example.org \u00', '{"a": "\ufffd <EMAIL_1> \\u00'),
    ],
)
def test_what_json_escapes_is_hidden_too_and_known_by_both_ids(keep, excerpt, shown):
    [kept], ids = keep({**PIECE, "excerpt": excerpt}, steps=(PersonalStep(),))
    assert kept["excerpt"] == shown
    assert ids == {piece_id(shown), piece_id(excerpt)}


@pytest.mark.parametrize(
    ("excerpt", "steps"),
    [
        (r'{"a": "caf\u00e9\n", "b": C:\temp', (PersonalStep(),)),
        (r'{"a": "ada\u0040example.org ' + "x" * EXCERPT_CHARS, ()),
    ],
)
def test_where_nothing_is_hidden_an_excerpt_stays_as_it_is(keep, excerpt, steps):
    [kept], ids = keep({**PIECE, "detail": "broken", "excerpt": excerpt}, steps=steps)
    assert kept["excerpt"] == excerpt
    assert ids == {piece_id(excerpt)}


def test_escapes_count_where_the_action_is_no_pseudonym(keep):
    [kept], _ = keep({**PIECE, "excerpt": r"ada\u0040example.org"}, steps=(PersonalStep(action="drop"),))
    assert (kept["detail"], kept["excerpt"]) == ("personal data", "")


@pytest.mark.parametrize("before", ["", " \n" * 4_000])
@pytest.mark.parametrize(
    ("end", "cut_chars", "gone"),
    [
        ("mail ada.lovelace@example.org", 8, "ada.lovelace"),
        ("call 138 0013 8000", 6, "138"),
        ("患者，电话13800138000", 2, "138001"),
        ("https://example.org/" + "x" * 900, 300, "x" * 500),
    ],
)
def test_half_a_value_at_the_end_of_a_cut_excerpt_goes(keep, before, end, cut_chars, gone):
    filler = "so it goes on. " * 200
    text = filler[: EXCERPT_CHARS - len(end) + cut_chars] + end
    excerpt = excerpt_of((before + text + " and more").encode())
    assert gone in excerpt
    [kept], ids = keep({**PIECE, "excerpt": excerpt}, steps=(PersonalStep(),))
    assert EXCERPT_CHARS - 250 < len(kept["excerpt"]) < EXCERPT_CHARS
    assert gone not in kept["excerpt"]
    assert ids == {piece_id(kept["excerpt"]), piece_id(excerpt)}
