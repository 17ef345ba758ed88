"""The Prefect server of a command that finds none running: it lives as long as the command, and no Ctrl+C ends it."""

import signal
import threading

from tasks.contracts.errors import EnvironmentProblem


def start_temporary_server() -> str:
    """Start the server that Prefect's client would start itself, so that Ctrl+C does not reach it; to be called once
    the environment is set and before a flow is.

    A terminal sends Ctrl+C to every process of the command. The flow then reports that it was stopped, and without a
    server to report to, the client tries for minutes. A process inherits the signals that are blocked in the thread
    that starts it, and uvicorn leaves them blocked; SIGTERM, with which the command ends its server, and SIGHUP of a
    closed terminal reach it as before. The thread is one of its own, for the command itself must hear Ctrl+C.

    Returns:
        Its API.

    Raises:
        EnvironmentProblem: the server does not start.
    """
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # the one of this process: Prefect's clients find it running
    problems: list[Exception] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            server.start()
        except Exception as error:
            problems.append(error)

    starting = threading.Thread(target=start, name="temporary-prefect-server", daemon=True)
    starting.start()
    starting.join()
    if problems:
        raise EnvironmentProblem(f"Prefect's temporary server does not start: {problems[0]}") from problems[0]
    return server.api_url
