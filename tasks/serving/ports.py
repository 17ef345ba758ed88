"""Ports of this machine: whether one is free, and who has it."""

import errno
import socket

import psutil

from tasks.contracts.errors import EnvironmentProblem


def refuse_port_in_use(port: int, config_key: str) -> None:
    """Check that a port of 127.0.0.1 is free.

    Args:
        port: the port.
        config_key: what the user sets to choose another.

    Raises:
        EnvironmentProblem: somebody listens on it; says who, as far as this user may know.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # servers do: a closed connection is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise EnvironmentProblem(
                f"port {port} ({config_key}) is in use{_listener(port)}; stop that or set {config_key} to a free port"
            ) from error


def _listener(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
        for connection in connections:
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""  # another user's process, or one that just ended: the sentence does without its name
    return ""
