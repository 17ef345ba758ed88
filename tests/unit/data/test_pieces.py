"""Pieces that never became rows, as a data version keeps them."""

import pytest

from tasks.contracts.cleaning_config import PersonalStep, WhitespaceStep
from tasks.data.records.lineage import Lineage, keep_lineage, relatives
from tasks.data.records.pieces import kept_pieces, piece_id

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
