import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tasks.contracts.errors import EvaluationError
from tasks.contracts.home import PROJECT_ROOT
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer, holds_han, holds_unspaced

REFERENCES = [
    "Return the number of items in the container.",
    "Open a file, and return it as a stream object.",
    "Raise KeyError if the key isn't in the mapping (d) at all.",
    "Return True if path is absolute.",
]
ANSWERS = [
    "Return the number of items in a container.",
    "Opens the file named by the path.",
    "",
    "Return True if the path is an absolute path!",
]
RUSSIAN = ["Вернуть длину списка файлов", "Открыть файл для чтения сразу"]
CHINESE = ["返回列表的长度。", "打开文件 config.yaml 并读取内容"]


ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


@pytest.fixture(scope="module")
def rouge_score():
    """What the package rouge-score says of pairs: name → F1 a pair."""
    from rouge_score.rouge_scorer import RougeScorer

    def score(answers, references, tokenizer=None):
        scorer = RougeScorer(ROUGE, tokenizer=tokenizer, use_stemmer=False)
        pairs = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
        return {name: [pair[name].fmeasure for pair in pairs] for name in ROUGE}

    return score


def random_texts(count, seed, words, lines):
    """Texts of few words, so that they have much in common, in up to so many lines, some of them empty."""
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        parts = [
            " ".join(generator.choice(words, generator.integers(0, 12)))
            for _ in range(generator.integers(1, lines + 1))
        ]
        texts.append("\n".join(parts))
    return texts


@pytest.mark.parametrize("name", ROUGE)
def test_rouge_of_english_is_that_of_rouge_score(rouge, rouge_score, name):
    result = rouge.compute(predictions=ANSWERS, references=REFERENCES)
    expected = rouge_score(ANSWERS, REFERENCES)[name]
    assert result["statistics"][name][:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    assert result[name] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("lines", [1, 4])
@pytest.mark.parametrize("words", [["return", "The", "a", "key", "x1"], ["返回", "列表", "list", "keys", "の"]])
def test_rouge_of_any_texts_is_that_of_rouge_score_with_our_tokens(rouge, rouge_score, words, lines):
    answers, references = random_texts(150, 1, words, lines), random_texts(150, 2, words, lines)
    statistics = rouge.compute(predictions=answers, references=references)["statistics"]
    expected = rouge_score(answers, references, WordOrCharacterTokenizer())
    assert 0 < np.mean(expected["rougeLsum"]) < 1
    for name in ROUGE:
        assert statistics[name][:, 0] == pytest.approx(expected[name], abs=1e-9)


def test_rouge_lsum_finds_lines_in_any_order_and_rouge_l_does_not(rouge):
    result = rouge.compute(predictions=["close the file\nopen it first"], references=["open it first\nclose the file"])
    assert result["rougeLsum"] == pytest.approx(1)
    assert result["rougeL"] == pytest.approx(0.5)


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_sacrebleu_metrics_equal_corpus_score(metric, sacrebleu_metrics):
    (name,) = metric.names
    theirs = sacrebleu_metrics[name]()
    result = metric.compute(predictions=ANSWERS, references=REFERENCES)
    assert result[name] == pytest.approx(theirs.corpus_score(ANSWERS, [REFERENCES]).score, rel=1e-12)
    assert 0 < result[name] < 100


def test_bleu_without_a_common_4_gram_is_smoothed_as_sacrebleu_does(bleu, sacrebleu_metrics):
    answers = ["Return number of the items.", "A file object."]
    result = bleu.compute(predictions=answers, references=REFERENCES[:2])
    expected = sacrebleu_metrics["bleu"](tokenize="13a", smooth_method="exp").corpus_score(answers, [REFERENCES[:2]])
    assert expected.precisions[3] > 0 == expected.counts[3]
    assert result["bleu"] == pytest.approx(expected.score, rel=1e-12)
    assert "tok:13a|smooth:exp" in result["signature"]


def test_chinese_bleu_equals_corpus_score_with_the_zh_tokenizer(bleu, sacrebleu_metrics):
    answers = ["返回列表的大小。", "打开文件并读取 config.yaml"]
    result = bleu.compute(predictions=answers, references=CHINESE)
    expected = sacrebleu_metrics["bleu"](tokenize="zh").corpus_score(answers, [CHINESE]).score
    assert result["bleu"] == pytest.approx(expected, rel=1e-12)
    assert result["bleu"] != sacrebleu_metrics["bleu"](tokenize="13a").corpus_score(answers, [CHINESE]).score
    assert "tok:zh" in result["signature"]


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_summed_statistics_of_any_resample_give_its_corpus_score(metric, sacrebleu_metrics):
    (name,) = metric.names
    theirs = sacrebleu_metrics[name]()
    statistics = metric.compute(predictions=ANSWERS, references=REFERENCES)["statistics"][name]
    drawn = [3, 0, 0, 2]
    expected = theirs.corpus_score([ANSWERS[i] for i in drawn], [[REFERENCES[i] for i in drawn]]).score
    sums = np.stack([statistics[drawn].sum(axis=0), statistics.sum(axis=0)])
    scores = metric.score_sums(sums, len(drawn))
    assert scores[0] == pytest.approx(expected, rel=1e-12)
    assert scores[1] == pytest.approx(theirs.corpus_score(ANSWERS, [REFERENCES]).score, rel=1e-12)


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_sums_of_every_kind_give_what_sacrebleu_makes_of_them(metric, sacrebleu_metrics):
    """Nothing in common, no n-gram of the highest orders, empty answers, answers that are too short and too long."""
    (name,) = metric.names
    texts = ["", "a", "a b", "a b c", "a b c d", "e f g h i", "a b c d e f g h", "x y z x y z a b c d"]
    answers, references = [a for a in texts for _ in texts], texts * len(texts)
    theirs = sacrebleu_metrics[name]()
    statistics = np.array(theirs._extract_corpus_statistics(answers, [references]), dtype=float)
    generator = np.random.default_rng(0)
    sums = np.concatenate([statistics, statistics[generator.integers(0, len(statistics), (300, 3))].sum(axis=1)])
    expected = [theirs._compute_score_from_stats(row).score for row in sums.tolist()]
    assert metric.score_sums(sums, 1).tolist() == pytest.approx(expected, abs=1e-9)
    assert len(set(expected)) > 50


def test_rouge_of_a_resample_is_the_mean_of_its_examples(rouge):
    statistics = rouge.compute(predictions=ANSWERS, references=REFERENCES)["statistics"]["rougeL"]
    drawn = [3, 0, 0, 2]
    scores = rouge.score_sums(statistics[drawn].sum(axis=0, keepdims=True), len(drawn))
    assert scores.tolist() == pytest.approx([statistics[drawn].mean()])


@pytest.mark.parametrize(("metric", "best"), [("rouge", 1.0), ("bleu", 100.0), ("chrf", 100.0)], indirect=["metric"])
@pytest.mark.parametrize("texts", [CHINESE, REFERENCES, RUSSIAN])
def test_identical_texts_have_the_best_score_in_any_script(metric, best, texts):
    result = metric.compute(predictions=texts, references=texts)
    assert [result[name] for name in metric.names] == pytest.approx([best] * len(metric.names))


def test_different_chinese_texts_share_only_their_common_characters(rouge):
    result = rouge.compute(predictions=["你好"], references=["你们"])
    assert result["rouge1"] == pytest.approx(0.5)
    assert result["rouge2"] == 0.0


def test_bleu_divides_each_row_as_its_own_script_wants(bleu, sacrebleu_metrics):
    """A Chinese row changes nothing about how the English ones beside it are divided, nor the other way."""
    answers, references = (
        [*ANSWERS, "返回列表的大小。", "ファイルをひらく"],
        [*REFERENCES, CHINESE[0], "ファイルをとじる"],
    )
    mixed = bleu.compute(predictions=answers, references=references)
    parts = {"13a": slice(0, 4), "zh": slice(4, 5), "char": slice(5, 6)}
    for tokenizer, rows in parts.items():
        theirs = sacrebleu_metrics["bleu"](tokenize=tokenizer)
        expected = theirs._extract_corpus_statistics(answers[rows], [references[rows]])
        assert mixed["statistics"]["bleu"][rows].tolist() == expected
    assert all(f"tok:{tokenizer}" in mixed["signature"] for tokenizer in parts)


def test_the_rouge_tokenizer_yields_characters_and_lower_cased_words():
    tokens = WordOrCharacterTokenizer().tokenize("Open文件 config_file2, カナ Ünïcode!")
    assert tokens == ["open", "文", "件", "config", "file2", "カ", "ナ", "ünïcode"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("की का", ["की", "का"]),
        ("हिन्दी, में।", ["हिन्दी", "में"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("กินข้าว 25", ["กิ", "น", "ข้", "า", "ว", "25"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("cafe\u0301 Cafe", ["caf\u00e9", "cafe"]),
        ("q\u0303uoi", ["q\u0303uoi"]),
        ("か\u3099は", ["が", "は"]),
        ("\u0301 ❤\ufe0f! \u3099 ・", []),
    ],
    ids=["Hindi", "conjuncts", "Tamil", "Thai", "Burmese", "French", "no composed form", "kana", "marks alone"],
)
def test_combining_marks_stay_with_their_letter(text, tokens):
    assert WordOrCharacterTokenizer().tokenize(text) == tokens


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("की", "का"), ("बिल्ली", "बालू"), ("பூ", "பா"), ("กิน", "กัน"), ("cafe", "cafe\u0301")],
    ids=["Hindi", "a Hindi word", "Tamil", "Thai", "decomposed French"],
)
def test_a_wrong_answer_in_a_script_with_marks_is_not_a_right_one(rouge, wrong, right):
    assert rouge.compute(predictions=[wrong], references=[right])["rougeL"] < 1
    assert rouge.compute(predictions=[right], references=[right])["rougeL"] == 1


def test_the_spelling_of_a_character_does_not_matter_but_for_its_look(rouge):
    assert rouge.compute(predictions=["cafe\u0301"], references=["caf\u00e9"])["rougeL"] == 1


def test_the_tokens_of_ascii_text_are_those_of_rouge_score():
    from rouge_score.tokenizers import DefaultTokenizer

    theirs = DefaultTokenizer(use_stemmer=False)
    for first in range(128):
        text = " ".join(f"{chr(first)}{chr(second)}9" for second in range(128)) + f" x{chr(first)}\n{REFERENCES[2]}"
        assert WordOrCharacterTokenizer().tokenize(text) == theirs.tokenize(text)


def test_han_characters_are_told_from_other_scripts():
    assert holds_han("English 文")
    assert not any(holds_han(text) for text in ("English", "カナ", "한국어", "Русский"))
    assert holds_unspaced("カナ 1") and not holds_unspaced("한국어 1")


@pytest.mark.parametrize("metric", ["rouge", "bleu", "chrf"], indirect=True)
def test_empty_answers_score_zero(metric):
    result = metric.compute(predictions=["", "  "], references=REFERENCES[:2])
    assert [result[name] for name in metric.names] == [0.0] * len(metric.names)


@pytest.mark.parametrize("metric", ["rouge", "bleu", "chrf"], indirect=True)
def test_the_signature_names_version_tokenizer_smoothing_and_examples(metric):
    signature = metric.compute(predictions=ANSWERS, references=REFERENCES)["signature"]
    assert "version:" in signature
    assert signature.endswith("examples:4")
    if "chrf" not in metric.names:  # character n-grams need no tokenizer and no smoothing
        assert "tok:" in signature
        assert "smooth:" in signature


@pytest.mark.parametrize("metric", ["rouge", "bleu", "chrf"], indirect=True)
@pytest.mark.parametrize(
    ("predictions", "references", "sentence"),
    [
        (["one"], ["one", "two"], "1 predictions for 2 references"),
        ([], [], "there are no predictions"),
        (["one"], [], "there are no references"),
        ([None], ["one"], "number 0 of the predictions is None"),
    ],
)
def test_bad_input_is_one_clear_sentence(metric, predictions, references, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        metric.compute(predictions=predictions, references=references)


def test_a_metric_can_be_fed_in_batches_as_evaluate_allows(rouge):
    at_once = rouge.compute(predictions=ANSWERS, references=REFERENCES)
    rouge.add_batch(predictions=ANSWERS[:2], references=REFERENCES[:2])
    rouge.add_batch(predictions=ANSWERS[2:], references=REFERENCES[2:])
    assert rouge.compute()["rougeL"] == at_once["rougeL"]


OFFLINE = """
import json, socket, sys
from importlib.util import find_spec
def refuse(*arguments, **options):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from tasks.evaluation.metrics.bleu import Bleu
from tasks.evaluation.metrics.chrf import Chrf
from tasks.evaluation.metrics.rouge import Rouge
scores = {}
for metric in (Rouge(), Bleu(), Chrf()):
    result = metric.compute(predictions=["a b c d e"], references=["a b c d e"])
    scores.update({name: result[name] for name in metric.names})
names = ("torch", "transformers", "scipy.stats", "sklearn")
heavy = [name for name in names if name in sys.modules]
lost = [name for name in names if find_spec(name) is None]
print(json.dumps({"scores": scores, "heavy": heavy, "lost": lost}))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What a fresh process says that scores with an empty home directory and without sockets."""
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "home": home}


def test_metrics_work_without_a_network(offline):
    assert offline["scores"] == pytest.approx({**dict.fromkeys(ROUGE, 1), "bleu": 100, "chrf": 100})


def test_metrics_leave_no_cache_in_the_home_directory(offline):
    assert [path for path in offline["home"].rglob("*") if "metrics" in path.name] == []


def test_metrics_import_nothing_heavy_that_they_do_not_use_and_leave_it_importable(offline):
    assert offline["heavy"] == []
    assert offline["lost"] == []
