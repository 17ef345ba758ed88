"""The general-ability set: what a model could do before, asked of what was made of it.

It is in no data version and no part of the scores. The project's own rows (`general.jsonl`) are short questions of
facts, numbers, words and instructions in English and Chinese, written for this; a file of one's own takes their place.
"""

import json
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import DatasetRef, Part, Predictions
from tasks.contracts.errors import ConfigError, EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.evaluation_sets import evaluation_digest, general_digest, general_file
from tasks.contracts.jsonl import digest_of, read_jsonl, write_jsonl
from tasks.contracts.store import Store, code_digest
from tasks.contracts.twins import folded
from tasks.evaluation.scoring import SYSTEMS, score_systems
from tasks.evaluation.side_by_side import SideBySide, learned_prompts, read_side_by_side

METRICS = ("reference_nats", "rougeL")
"""The first is judged; the second is for readers."""
ANSWER_TOKENS = 24
"""The longest answer: the references are shorter, and what is judged is how likely they are."""
_ROLES = ("system", "user", "assistant")


def check_general(evaluation: EvaluationSection) -> None:
    """Say before anything is read or trained that the file of the set cannot be used.

    Raises:
        ConfigError: it cannot be read, or a line of it is no conversation.
    """
    file = general_file(evaluation)
    if file is not None:
        general_digest(evaluation)  # says that it cannot be read
        _read_rows(file)


def prepare_general(
    evaluation: EvaluationSection, trained_on: tuple[DatasetRef, ...], store: Store
) -> DatasetRef | None:
    """Return the set as evaluation rows, None if it is not asked.

    Args:
        evaluation: which set.
        trained_on: what a candidate will be trained on, of which nothing may be asked.
        store: keeps the rows.

    Raises:
        ConfigError: the file cannot be read, or a line of it is no conversation.
        EvaluationError: training rows ask what the set asks.
    """
    file = general_file(evaluation)
    if file is None:
        return None
    inputs = {"rows": general_digest(evaluation), "code": code_digest("tasks/evaluation/general_set.py")}

    def write(directory: Path) -> dict[str, Any]:
        rows = _read_rows(file)
        write_jsonl(directory / "eval.jsonl", rows)
        return {"rows": len(rows), "eval_digest": evaluation_digest(rows)}

    entry = store.produce("general", inputs, write)
    rows = entry.facts["rows"]
    general = DatasetRef(entry.path, entry.digest, rows, 0, rows, {}, entry.facts["eval_digest"])
    _refuse_learned(general, trained_on)
    return general


def score_general(answers: dict[str, Predictions], evaluation: EvaluationSection) -> tuple[SideBySide, Part]:
    """Score the systems' answers to the set, by `METRICS`; the first is left out if an engine says no likelihoods.

    A champion whose engine is too old to say them is left out itself.

    Args:
        answers: system → its answers; of base and candidate at least.
        evaluation: how intervals are made.

    Raises:
        EvaluationError: a system is missing, or they did not answer the same rows.
    """
    rows = read_side_by_side({system: answers[system] for system in SYSTEMS if system in answers})
    if {"base", "candidate"} <= set(rows.likelihoods) < set(answers):
        rows = read_side_by_side({system: answers[system] for system in rows.likelihoods})
    scored = score_systems(rows, evaluation.model_copy(update={"metrics": METRICS}))
    return rows, Part(len(rows.ids), scored.scores, scored.differences)


def _refuse_learned(general: DatasetRef, trained_on: tuple[DatasetRef, ...]) -> None:
    asked = {folded(row["messages"][:-1]): row["messages"][-2] for row in read_jsonl(general.path / "eval.jsonl")}
    learned = learned_prompts(set(asked), (dataset.path / "train.jsonl" for dataset in trained_on))
    if learned:
        first = next(message["content"] for prompt, message in asked.items() if prompt in learned)
        raise EvaluationError(
            f"{len(learned)} of {general.eval_rows} questions of the general-ability set are asked in training rows "
            f"({first!r}); take these rows out of data.sources, or name another set in evaluation.general_path, "
            "or set evaluation.general to false"
        )


def _read_rows(file: Path) -> list[dict[str, Any]]:
    """Read and check a file of conversations.

    Raises:
        ConfigError: it is empty, or a line of it is no conversation or asks what another one asks.
    """
    rows: list[dict[str, Any]] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        messages, name = _conversation(file, number, line)
        earlier = line_of.setdefault(folded(messages[:-1]), number)
        if earlier != number:
            raise _problem(file, number, f"asks what line {earlier} asks", "each question once")
        rows.append({"id": digest_of(messages), "messages": messages, "slice": name})
    if not rows:
        raise ConfigError(f"evaluation.general_path is {str(file)!r}, which is empty; expected a conversation a line")
    return rows


def _conversation(file: Path, number: int, line: bytes) -> tuple[list[dict[str, str]], str]:
    expected = 'an object with "messages" of role and content, the last of them the assistant\'s'
    try:
        record = json.loads(line)
        messages = [{"role": message["role"], "content": message["content"]} for message in record["messages"]]
        name = record.get("slice", "")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _problem(file, number, "is no conversation", expected) from error
    texts = [name, *(text for message in messages for text in message.values())]
    if not all(isinstance(text, str) for text in texts) or {message["role"] for message in messages} - set(_ROLES):
        raise _problem(file, number, "is no conversation", expected)
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise _problem(file, number, "has no question with an answer", expected)
    return messages, name


def _problem(file: Path, number: int, what: str, expected: str) -> ConfigError:
    return ConfigError(f"evaluation.general_path is {str(file)!r}, whose line {number} {what}; expected {expected}")
