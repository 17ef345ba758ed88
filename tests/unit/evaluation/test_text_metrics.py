import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tasks.contracts.errors import EvaluationError
from tasks.contracts.home import PROJECT_ROOT
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer, holds_han

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


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_of_english_is_that_of_rouge_score(rouge, name):
    from rouge_score.rouge_scorer import RougeScorer

    result = rouge.compute(predictions=ANSWERS, references=REFERENCES)
    theirs = RougeScorer([name], use_stemmer=False)
    pairs = zip(ANSWERS, REFERENCES, strict=True)
    expected = [theirs.score(reference, answer)[name].fmeasure for answer, reference in pairs]
    assert result["statistics"][name][:, 0].tolist() == expected
    assert result[name] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("metric", ["bleu", "chrf"], indirect=True)
def test_sacrebleu_metrics_equal_corpus_score(metric, sacrebleu_metrics):
    (name,) = metric.names
    theirs = sacrebleu_metrics[name]()
    result = metric.compute(predictions=ANSWERS, references=REFERENCES)
    assert result[name] == theirs.corpus_score(ANSWERS, [REFERENCES]).score
    assert 0 < result[name] < 100


def test_bleu_without_a_common_4_gram_is_smoothed_as_sacrebleu_does(bleu, sacrebleu_metrics):
    answers = ["Return number of the items.", "A file object."]
    result = bleu.compute(predictions=answers, references=REFERENCES[:2])
    expected = sacrebleu_metrics["bleu"](tokenize="13a", smooth_method="exp").corpus_score(answers, [REFERENCES[:2]])
    assert expected.precisions[3] > 0 == expected.counts[3]
    assert result["bleu"] == expected.score
    assert "tok:13a|smooth:exp" in result["signature"]


def test_chinese_bleu_equals_corpus_score_with_the_zh_tokenizer(bleu, sacrebleu_metrics):
    answers = ["返回列表的大小。", "打开文件并读取 config.yaml"]
    result = bleu.compute(predictions=answers, references=CHINESE)
    assert result["bleu"] == sacrebleu_metrics["bleu"](tokenize="zh").corpus_score(answers, [CHINESE]).score
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
    assert holds_han(["English", "文"])
    assert not holds_han(["English", "カナ", "한국어", "Русский"])


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
    assert offline["scores"] == pytest.approx({"rouge1": 1, "rouge2": 1, "rougeL": 1, "bleu": 100, "chrf": 100})


def test_metrics_leave_no_cache_in_the_home_directory(offline):
    assert [path for path in offline["home"].rglob("*") if "metrics" in path.name] == []


def test_metrics_import_nothing_heavy_that_they_do_not_use_and_leave_it_importable(offline):
    assert offline["heavy"] == []
    assert offline["lost"] == []
