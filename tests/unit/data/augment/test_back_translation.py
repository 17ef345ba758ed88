import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks.contracts.augment_config import AugmentSection, BackTranslationMethod, EndpointMethod
from tasks.contracts.chat_endpoint import ChatEndpoint
from tasks.contracts.errors import ConfigError, DataError
from tasks.data.augment.augmentation import Augmentation, augment, depends_on
from tasks.data.augment.back_translation import Seq2SeqModel

pytestmark = pytest.mark.slow

WORDS = "[unk] [bos] [eos] [pad] Return Open the sum of two numbers file read write all and a line word . ? , close"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny BART models with random weights: real classes, files and generation, words without sense."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS.split())}, unk_token="[unk]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="[bos]", eos_token="[eos]", pad_token="[pad]", unk_token="[unk]"
    )
    folders = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = BartConfig(
                vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1,
                encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                max_position_embeddings=256, init_std=0.5, forced_eos_token_id=None,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=tokenizer.bos_token_id,
            )  # fmt: skip
            model = BartForConditionalGeneration(config)
        folder = tmp_path_factory.mktemp(f"model{seed}")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def anything_goes(*methods):
    return AugmentSection(methods=methods, min_similarity=0, max_similarity=1)


def test_questions_go_through_two_models_and_come_back_the_same_each_time(models, row_of):
    forward, backward = models
    section = anything_goes(BackTranslationMethod(forward=forward, backward=backward, max_tokens=24))
    rows = [row_of("Return the sum of two numbers."), row_of("Open the file."), row_of("```\ncode\n```")]
    made = list(augment(rows, section))
    assert [row["meta"] for row in made] == [
        {"file": "x", "parent": row["id"], "method": "back_translation"} for row in rows[:2]
    ]
    there = Seq2SeqModel(forward, 24, "x").translate(["Return the sum of two numbers."])
    assert made[0]["messages"][0]["content"] == Seq2SeqModel(backward, 24, "x").translate(there)[0]
    assert list(augment(rows, section)) == made
    assert [row for given in rows for row in augment([given], section)] == made


def test_long_questions_are_left_out(models):
    assert Seq2SeqModel(models[0], 8, "x").translate(["word " * 50, "hi"])[0] is None


def test_the_result_depends_on_the_models_files(models):
    method = BackTranslationMethod(forward=models[0], backward=models[1])
    told = depends_on(anything_goes(method))
    assert told.keys() == {*models, "transformers", "torch", "tokenizers"}
    assert told[models[0]] != told[models[1]]


def test_a_directory_without_a_model_is_named(tmp_path, row_of):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Seq2SeqModel(str(tmp_path), 24, "augment.methods.forward")
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(ConfigError, match=r"augment\.methods\.forward"):
        Seq2SeqModel(str(tmp_path), 24, "augment.methods.forward").translate(["hi"])


class Answers(BaseHTTPRequestHandler):
    """Answers from a list of (status, headers, body or function of the request), the last one for ever."""

    script: list
    requests: list

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.requests.append((self.path, dict(self.headers), body))
        status, headers, answer = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        payload = answer(body) if callable(answer) else answer
        payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


def completion(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def as_translator(body):
    """Say in which language the answer is, as a model that keeps to its instruction would."""
    system, user = (message["content"] for message in body["messages"])
    into = system.removeprefix("Translate the user's text into ").partition(".")[0]
    return completion(f"[{into}] {user}")


@pytest.fixture
def server():
    handler = type("Handler", (Answers,), {"script": [(200, {}, as_translator)], "requests": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield handler
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def waits(monkeypatch):
    seconds = []
    monkeypatch.setattr(ChatEndpoint, "_wait", lambda _, wait: seconds.append(wait))
    return seconds


def test_questions_go_through_an_endpoint_into_another_language_and_back(server, row_of, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "s3cret")
    method = EndpointMethod(url=server.url + "/", model="m", key_variable="SOME_KEY", pivot="French")
    [made] = augment([row_of("How are you?")], anything_goes(method))
    assert made["messages"][0]["content"] == "[English] [French] How are you?"
    assert made["meta"]["method"] == "endpoint"
    for path, headers, body in server.requests:
        assert path == "/v1/chat/completions"
        assert headers["authorization"] == "Bearer s3cret"
        assert (body["model"], body["temperature"], body["seed"]) == ("m", 0, 0)
    assert "s3cret" not in json.dumps(depends_on(anything_goes(method)))


def test_refusals_that_pass_are_tried_again_after_a_wait(server, row_of, waits):
    server.script[:0] = [(429, {"retry-after": "7"}, {}), (503, {}, b"busy"), (500, {"retry-after": "soon"}, b"")]
    [made] = augment([row_of("hi")], anything_goes(EndpointMethod(url=server.url, model="m")))
    assert made["messages"][0]["content"] == "[English] [German] hi"
    assert waits == [7.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("status", "answer", "complaint", "requests"),
    [
        (401, b"no", "HTTP 401", 1),
        (503, b"no", "HTTP 503", 3),
        (200, b"not json", "choices", 1),
        (200, {"choices": []}, "choices", 1),
        (200, completion(None), "choices", 1),
        (200, {"choices": [{"message": {"content": "\ud83d"}}]}, "choices", 1),
        (200, b"[" * 100_000, "choices", 1),
        (200, b"x" * 5_000_000, "4000000", 1),
    ],
)
def test_an_endpoint_that_does_not_answer_is_named(status, answer, complaint, requests, server, row_of, waits):
    server.script[:] = [(status, {}, answer)]
    method = EndpointMethod(url=server.url, model="m", retries=2)
    with pytest.raises(DataError, match=complaint) as caught:
        list(augment([row_of("hi")], anything_goes(method)))
    assert server.url in str(caught.value)
    assert len(server.requests) == requests


def test_nobody_there_is_an_error_after_the_retries(row_of, waits):
    method = EndpointMethod(url="http://127.0.0.1:9", model="m", retries=2)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9"):
        list(augment([row_of("hi")], anything_goes(method)))
    assert waits == [0.5, 1.0]


def test_long_questions_are_not_sent(server, row_of):
    method = EndpointMethod(url=server.url, model="m", max_chars=10)
    augmentation = Augmentation(anything_goes(method))
    assert list(augmentation.run([row_of("a much longer question")])) == []
    assert augmentation.counts["endpoint"] == {"nothing to change": 1}
    assert server.requests == []


def test_a_key_that_is_not_set_is_named():
    method = EndpointMethod(url="http://127.0.0.1:9", model="m", key_variable="NO_SUCH_KEY_HERE")
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE"):
        Augmentation(anything_goes(method))


@pytest.mark.parametrize("settings", [{"url": "ftp://x"}, {"url": "http://x", "key_variable": "sk-123"}])
def test_addresses_and_names_of_variables_are_checked(settings):
    with pytest.raises(ValueError, match="expected"):
        EndpointMethod(model="m", **settings)
