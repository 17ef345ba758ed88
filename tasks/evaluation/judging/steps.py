"""The Prefect task of the judge."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.contracts.artifacts import Predictions, Preference, RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.progress import stage_progress
from tasks.contracts.store import Store
from tasks.evaluation.judging.judge import JudgingFailed, judge_answers, key_of, unjudged
from tasks.evaluation.preference_sentence import sentence
from tasks.evaluation.side_by_side import learned_files

log = logging.getLogger("llm_retrain.evaluation")


def check_judge(config: RetrainConfig) -> None:
    """Say before anything is trained that the judge's key is missing, or cannot be sent.

    Raises:
        ConfigError: the variable that shall hold it is not set, or holds what is no key.
    """
    key_of(config.evaluation.judge)


@task(name="ask judge", cache_policy=NO_CACHE)
def ask_judge(
    answers: dict[str, Predictions], champion: RegisteredVersion | None, config: RetrainConfig, store: Store
) -> tuple[Preference, ...]:
    """Ask the configured judge, if there is one, whose answers it prefers: the candidate's or the champion's.

    A judge that fails ends no run: what it could not say is missing evidence, which the gate reads as such.
    """
    judge = config.evaluation.judge
    if not judge.url:
        return ()
    baseline = "champion" if champion else "base"
    questions = 2 * min(judge.rows, answers["candidate"].rows)
    with stage_progress(f"asking {judge.model}", questions, "judge-progress") as progress:
        try:
            found = judge_answers(answers, baseline, config.evaluation, store, learned_files(champion), progress)
        except JudgingFailed as failure:
            said = f"{failure} ({failure.detail})" if failure.detail else str(failure)
            log.warning("The judge decides nothing: %s", said)
            found = unjudged(baseline, judge, str(failure))
    log.info("%s", sentence(found))
    return (found,)
