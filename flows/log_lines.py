"""Our own log lines in the Prefect UI, also for runs that a worker executes."""

import logging


def record_log_lines() -> None:
    """Let the lines of llm-retrain through to the handler that Prefect attaches (PREFECT_LOGGING_EXTRA_LOGGERS).

    Prefect leaves the level of extra loggers at WARNING. A level that the command line has set already stays.
    """
    logger = logging.getLogger("llm_retrain")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
