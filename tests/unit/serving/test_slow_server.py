"""A server that lives and answers late is neither stopped nor taken for a stranger on its port."""

import subprocess
import sys

import psutil
import pytest

from tasks.contracts.config import ServingSection
from tasks.contracts.errors import EnvironmentProblem
from tasks.serving import triton_client, tritonserver
from tasks.serving.server_record import write_record
from tasks.serving.triton_client import TritonAddress
from tasks.serving.tritonserver import running_triton, start_tritonserver

_SERVER = """
import http.server, sys, time

class Late(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(float(sys.argv[1]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Late)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def answers_late(home, monkeypatch):
    """Start a server that takes so many seconds to answer, and record it as the Triton of this home."""
    started = []
    monkeypatch.setattr(triton_client, "LIVE_SECONDS", 0.3)
    monkeypatch.setattr(tritonserver, "find_serving_environment", lambda: None)

    def start(seconds):
        process = subprocess.Popen([sys.executable, "-c", _SERVER, str(seconds)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        port = int(process.stdout.readline())
        home.pids.mkdir(parents=True, exist_ok=True)
        write_record(home, process.pid, TritonAddress(port, port, port, "token"))
        return process, ServingSection(http_port=port, grpc_port=65_001, metrics_port=65_002)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_that_answers_late_is_found_by_whoever_has_patience(home, answers_late):
    process, serving = answers_late(1.5)
    assert running_triton(home) is None, "who only looks does not wait"
    assert running_triton(home, patience_seconds=20).http_port == serving.http_port
    assert start_tritonserver(home, serving) == process.pid, "it is there, so none is started"
    assert psutil.Process(process.pid).is_running() and process.poll() is None


def test_a_server_that_does_not_answer_for_long_is_replaced(home, answers_late, monkeypatch):
    """Its port is free then: the next step, which has no environment here, comes after the ports."""
    process, serving = answers_late(60)
    monkeypatch.setattr(tritonserver, "SLOW_SECONDS", 0.5)
    with pytest.raises(AttributeError):
        start_tritonserver(home, serving)
    assert not psutil.pid_exists(process.pid)


def test_a_server_whose_process_has_ended_is_not_waited_for(home, answers_late):
    process, _ = answers_late(0)
    process.kill()
    process.wait()
    assert running_triton(home, patience_seconds=600) is None


def test_a_stranger_on_the_port_is_still_called_one(home, answers_late):
    process, serving = answers_late(0)
    (home.pids / "triton.pid").unlink()
    with pytest.raises(EnvironmentProblem, match=rf"port {serving.http_port} \(serving\.http_port\) is in use by "):
        start_tritonserver(home, serving)
    assert process.poll() is None, "and lives"
