"""Both orders of each pair are put to the judge, by several threads; what it says is counted.

An answer is preferred if the judge prefers it whether it comes first or second; anything else is a tie, as Zheng et
al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023 (arXiv 2306.05685, section 3.4) propose against the
preference of judges for a position.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from tasks.contracts.artifacts import Interval, Predictions, Preference
from tasks.contracts.chat_endpoint import ChatEndpoint, ChatProblem, key_from
from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.jsonl import digest_of, digest_of_file, write_jsonl
from tasks.contracts.judge_config import JudgeSection
from tasks.contracts.progress import Report
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.evaluation.judging.kept import KeptVerdicts
from tasks.evaluation.judging.question import AnswerPair, Place, question, verdict_of
from tasks.evaluation.preference import figures_of, mean_with_interval
from tasks.evaluation.side_by_side import SideBySide, read_side_by_side

_DETERMINES = {
    "url",
    "model",
    "instructions",
    "show_reference",
    "rows",
    "max_answer_tokens",
    "fixed_sampling",
    "max_failed_share",
}
_REFUSES_ALL = (401, 403, 404)
_REFUSES_THIS = (400, 422)
_LESS_TO_REFUSE = (
    "; some endpoints want evaluation.judge.fixed_sampling false (no temperature, no seed) or .max_answer_tokens 0 (no "
    "max_tokens)"
)
_PREFERENCE = TypeAdapter(Preference)
_FIRST_WINS = {"A": 1.0, "tie": 0.5, "B": 0.0}


class JudgingFailed(EvaluationError):
    """The judge cannot be asked, or too many of its replies are no verdict.

    The text is what a report keeps: the same whenever the same thing happens, for a report with another text would
    make the same model another version.

    Attributes:
        detail: what differs from one time to the next: counts, and what was said last.
    """

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.detail = detail


class Reply(NamedTuple):
    """What came of one question: a verdict, or why there is none."""

    verdict: Place | None
    problem: str = ""
    is_unreadable: bool = False


@dataclass(frozen=True)
class JudgedPair:
    """A pair with the judge's replies, None where nobody was asked because both answers are the same."""

    pair: AnswerPair
    candidate_first: Reply | None
    baseline_first: Reply | None

    @property
    def verdicts(self) -> tuple[Place, Place] | None:
        """What was said with the candidate's answer first and second, if both can be read."""
        if self.candidate_first is None or self.baseline_first is None:
            return None
        first, second = self.candidate_first.verdict, self.baseline_first.verdict
        return None if first is None or second is None else (first, second)

    @property
    def share(self) -> float | None:
        """1 if the candidate's answer is preferred, 0 if the baseline's is, 0.5 for a tie, None if it is not known."""
        if self.candidate_first is None:
            return 0.5
        return None if self.verdicts is None else {("A", "B"): 1.0, ("B", "A"): 0.0}.get(self.verdicts, 0.5)


def key_of(judge: JudgeSection) -> str:
    """Return the key that the environment holds for a judge, empty if it needs none.

    Raises:
        ConfigError: the variable is not set, or holds what is no key.
    """
    return key_from(judge.key_variable, "evaluation.judge.key_variable") if judge.url else ""


def judge_answers(
    answers: dict[str, Predictions],
    baseline: str,
    evaluation: EvaluationSection,
    store: Store,
    learned: tuple[Path, ...],
    progress: Report,
) -> Preference:
    """Return how often the judge prefers the candidate's answers, asking it only what it was not asked before.

    Args:
        answers: system → its answers.
        baseline: whose answers the candidate's are compared with.
        evaluation: the judge, and how intervals are made.
        store: keeps the verdicts.
        learned: files of rows that the champion was trained on; nobody is judged on them.
        progress: told how many questions are answered.

    Raises:
        ConfigError: the variable with the judge's key is not set, or holds what is no key.
        EvaluationError: the systems did not answer the same rows, or the champion has learned all of them.
        JudgingFailed: the endpoint refuses, or more questions than allowed have no readable verdict.
    """
    judge, compared = evaluation.judge, {name: answers[name] for name in (baseline, "candidate")}
    inputs = {
        "predictions": {name: each.digest for name, each in compared.items()},
        "learned": [digest_of_file(path) for path in learned],
        "judge": judge.model_dump(mode="json", include=_DETERMINES),
        "evaluation": evaluation.model_dump(mode="json", include={"resamples", "confidence", "seed"}),
        "code": code_digest("tasks/evaluation/judging", "tasks/evaluation/preference.py"),
        "libraries": library_versions("numpy", "scipy"),
    }

    def write(out: Path) -> dict[str, Any]:
        pairs = pairs_of(read_side_by_side(compared, *learned), baseline, judge.rows, evaluation.seed)
        judged = judge_pairs(pairs, judge, kept_in(store, judge), progress)
        write_jsonl(out / "verdicts.jsonl", map(_record, judged))
        return asdict(preference_of(judged, baseline, evaluation))

    return _PREFERENCE.validate_python(store.produce("judgement", inputs, write).facts)


def kept_in(store: Store, judge: JudgeSection) -> KeptVerdicts:
    """Return the verdicts of one judge that a store keeps; a question's digest says the rest."""
    return KeptVerdicts(store.root / ".judge" / f"{digest_of([judge.url, judge.model])}.jsonl")


def pairs_of(rows: SideBySide, baseline: str, most: int, seed: int) -> list[AnswerPair]:
    """Return the answers to some rows, drawn by the digest of their ids: where `most` grows, those drawn stay."""
    drawn = sorted(range(len(rows.ids)), key=lambda place: digest_of([seed, rows.ids[place]]))[:most]
    return [
        AnswerPair(
            rows.ids[place],
            rows.conversations[place],
            rows.references[place],
            rows.answers["candidate"][place],
            rows.answers[baseline][place],
        )
        for place in sorted(drawn)
    ]


def judge_pairs(
    pairs: Sequence[AnswerPair], judge: JudgeSection, kept: KeptVerdicts, progress: Report
) -> list[JudgedPair]:
    """Ask about each pair in both orders, unless its answers are the same.

    Raises:
        JudgingFailed: the endpoint refuses, or more questions than allowed have no readable verdict.
    """
    asked = {
        (place, candidate_first): digest_of([judge.url, question(pair, candidate_first, judge)])
        for place, pair in enumerate(pairs)
        if pair.candidate != pair.baseline
        for candidate_first in (True, False)
    }
    replies = {key: Reply(verdict) for key, digest in asked.items() if (verdict := kept.get(digest)) is not None}
    left = [key for key in asked if key not in replies]
    failures: list[Reply] = []
    progress(len(replies), "")
    with closing(_replies(left, lambda chat, key: _ask(chat, pairs[key[0]], key[1], judge), judge)) as coming:
        for key, reply in coming:
            replies[key] = reply
            if reply.verdict is not None:
                kept.keep(asked[key], reply.verdict)
            else:
                failures.append(reply)
                if len(failures) > judge.max_failed_share * len(asked):
                    raise _too_many(failures, len(replies), judge)
            progress(len(replies), f"{len(failures)} without a verdict" if failures else "")
    return [
        JudgedPair(pair, replies.get((place, True)), replies.get((place, False))) for place, pair in enumerate(pairs)
    ]


_Key = tuple[int, bool]


def _replies(
    keys: Sequence[_Key], ask: Callable[[ChatEndpoint, _Key], Reply], judge: JudgeSection
) -> Generator[tuple[_Key, Reply], None, None]:
    """Yield replies as they come; when the caller stops, what was not sent yet is not sent."""
    chat = ChatEndpoint(judge.url, key_of(judge), judge.timeout_seconds, judge.retries)
    with chat, ThreadPoolExecutor(judge.parallel, thread_name_prefix="judge") as pool:
        futures: dict[Future[Reply], _Key] = {pool.submit(ask, chat, key): key for key in keys}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            chat.stop()
            pool.shutdown(wait=False, cancel_futures=True)


def _ask(chat: ChatEndpoint, pair: AnswerPair, candidate_first: bool, judge: JudgeSection) -> Reply:
    """Ask one question, and once more if the reply is no verdict.

    Raises:
        JudgingFailed: the endpoint refuses whatever is asked.
    """
    try:
        for once_more in (False, True):
            verdict = verdict_of(chat.ask(question(pair, candidate_first, judge, once_more)))
            if verdict is not None:
                return Reply(verdict)
    except ChatProblem as problem:
        if problem.status in _REFUSES_ALL:
            raise JudgingFailed(
                f"evaluation.judge.url is {judge.url!r}, which refuses questions to {judge.model!r} (HTTP "
                f"{problem.status}); expected an OpenAI-compatible endpoint that has this model and accepts the key "
                "(evaluation.judge.key_variable)"
            ) from problem
        return Reply(None, f"{problem}{_LESS_TO_REFUSE if problem.status in _REFUSES_THIS else ''}")
    return Reply(None, "a reply that is no verdict", is_unreadable=True)


def _too_many(failures: Sequence[Reply], replies: int, judge: JudgeSection) -> JudgingFailed:
    return JudgingFailed(
        f"evaluation.judge.url is {judge.url!r}, whose {judge.model!r} gave no readable verdict on more questions than "
        f"are allowed; expected at most {judge.max_failed_share:.0%} (evaluation.judge.max_failed_share)",
        f"none on {len(failures)} of {replies} questions so far; the last: {failures[-1].problem}",
    )


def preference_of(judged: Sequence[JudgedPair], baseline: str, evaluation: EvaluationSection) -> Preference:
    """Count verdicts, and how much they depend on which answer came first.

    Raises:
        JudgingFailed: there is no pair with verdicts in both orders.
    """
    shares = [pair.share for pair in judged if pair.share is not None]
    if not shares:
        raise JudgingFailed("the judge gave no pair of answers a verdict in both orders; expected at least one")
    both = [pair.verdicts for pair in judged if pair.verdicts is not None]
    first_preferred = [(_FIRST_WINS[one] + _FIRST_WINS[other]) / 2 - 0.5 for one, other in both]
    agreeing = {("A", "B"), ("B", "A"), ("tie", "tie")}
    replies = [reply for pair in judged for reply in (pair.candidate_first, pair.baseline_first) if reply is not None]
    return Preference(
        kind="judge",
        by=(evaluation.judge.model,),
        baseline=baseline,
        **figures_of(shares, evaluation),
        identical=sum(pair.candidate_first is None for pair in judged),
        left_out=len(judged) - len(shares),
        position_bias=mean_with_interval(first_preferred, evaluation) if both else None,
        inconsistent=sum(verdicts not in agreeing for verdicts in both) / len(both) if both else None,
        questions=len(replies),
        failed=sum(reply.verdict is None and not reply.is_unreadable for reply in replies),
        unreadable=sum(reply.is_unreadable for reply in replies),
    )


def unjudged(baseline: str, judge: JudgeSection, problem: str) -> Preference:
    """Return what is known where judging failed: nothing, and why."""
    return Preference("judge", (judge.model,), baseline, 0, 0, 0, 0, Interval(0.5, 0.0, 1.0), 1.0, 1.0, problem=problem)


def _record(judged: JudgedPair) -> dict[str, Any]:
    replies = {"candidate_first": judged.candidate_first, "baseline_first": judged.baseline_first}
    said = {name: reply and (reply.verdict or reply.problem) for name, reply in replies.items()}
    return {"id": judged.pair.row, **said, "share": judged.share}
