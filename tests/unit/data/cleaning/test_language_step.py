import socket

import pytest

from tasks.contracts.cleaning_config import LanguageStep
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.language import Language, _recognised
from tasks.data.cleaning.step import Dropped

TEXTS = {
    "en": "Take the tablets twice a day after meals, and see a doctor if the pain does not go away within three days.",
    "en capitals": "PLEASE TAKE TWO TABLETS EVERY MORNING AND SEE THE DOCTOR AGAIN NEXT WEEK IF YOU STILL FEEL ILL.",
    "zh": "建议您尽快到医院做心电图和心肌酶谱检查，\n排除急性心肌梗死，平时注意休息，避免劳累和情绪激动。",
    "zh traditional": "建議您盡快到醫院做心電圖和心肌酶譜檢查，排除急性心肌梗死，平時注意休息，避免勞累。",
    "ja": "心筋梗塞の疑いがありますので、できるだけ早く病院で心電図の検査を受けてください。",
    "ko": "심근경색이 의심되므로 가능한 한 빨리 병원에서 심전도 검사를 받으시기 바랍니다.",
    "de": "Nehmen Sie die Tabletten zweimal täglich nach dem Essen ein und gehen Sie zum Arzt, wenn es schmerzt.",
    "fr": "Prenez les comprimés deux fois par jour après les repas et consultez un médecin si la douleur persiste.",
    "ru": "Принимайте таблетки два раза в день после еды и обратитесь к врачу, если боль не проходит.",
    "mixed": "患者 CT 提示 pulmonary embolism，建议 start anticoagulation with heparin，并复查 D-dimer。",
    "code": "```python\nfor i in range(10):\n    print(i, end=' ')\n```\n把这段代码放进文件里，运行它，就能看到结果。",
    "long code": "```\n" + "# Take the tablets with the water\n" * 9 + "```\n请把注释翻译成中文，谢谢帮助。",
    "both": "Take the tablets twice a day after meals.\n建议您饭后服药，每日两次，尽快到医院复查心电图。",
    "bare code": "SELECT id, name FROM users u JOIN orders o ON o.user_id = u.id WHERE o.total > 100 ORDER BY id;",
}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (("en",), {"en", "en capitals", "bare code", "both"}),
        (("zh",), {"zh", "zh traditional", "mixed", "code", "long code", "both"}),
        (("ja", "ko"), {"ja", "ko"}),
        (("de", "fr", "ru"), {"de", "fr", "ru"}),
        (("en", "zh"), {"en", "en capitals", "zh", "zh traditional", "mixed", "code", "bare code"}),
    ],
)
def test_rows_in_the_wanted_languages_are_kept_and_certain_others_dropped(keep, kept, row_of):
    step = Language(LanguageStep(keep=keep))
    rows = {name: row_of(text, question="?") for name, text in TEXTS.items()}
    results = dict(zip(rows, step.clean(list(rows.values())), strict=True))
    found = {name for name, result in results.items() if not isinstance(result, Dropped)}
    assert found >= kept
    assert not found & ({"en", "zh", "ja", "ko", "de", "fr", "ru"} - kept)
    assert all(results[name] is rows[name] for name in found)


def test_a_dropped_row_says_which_language_it_is_in(row_of):
    [result] = Language(LanguageStep(keep=("zh",))).clean([row_of(TEXTS["de"], question="?")])
    assert result.reason == "other language"
    assert result.detail.startswith("de, confidence ")


def test_short_and_uncertain_rows_are_kept(row_of):
    rows = [row_of("Guten Tag", question="?"), row_of("1 + 1 = 2; 3 * 4 = 12; 5 / 7", question="42 17 3 ?")]
    assert Language(LanguageStep(keep=("zh",))).clean(rows) == rows
    longer = [row_of(TEXTS["de"], question="?")]
    assert Language(LanguageStep(keep=("zh",), min_confidence=1.0)).clean(longer) == longer


def test_the_shortcut_for_plain_english_and_chinese_agrees_with_the_model():
    for name in ("en", "zh"):
        language, confidence = _recognised(TEXTS[name])
        assert language == name and confidence > 0.8


def test_an_unknown_code_is_refused():
    with pytest.raises(ConfigError, match="'cn'"):
        Language(LanguageStep(keep=("en", "cn")))


def test_batches_and_single_rows_have_the_same_result_without_a_network(row_of, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("opened a socket"))
    step = Language(LanguageStep(keep=("en", "zh")))
    rows = [row_of(text, question=question) for text in TEXTS.values() for question in ("?", TEXTS["fr"])]
    assert [step.clean([row])[0] for row in rows] == step.clean(rows)


@pytest.mark.parametrize("piece", ["ñ", "a ", "心", "```", "\n", "\u0301"])
def test_a_huge_text_costs_no_more_than_its_beginning(piece, row_of, assert_linear):
    step = Language(LanguageStep(keep=("de",)))
    assert_linear(lambda text: step.clean([row_of(text)]), lambda size: piece * size, 50_000)
