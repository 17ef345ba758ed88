"""A real MLflow server as `llm-retrain up` starts it, behind a proxy that can be told to fail in four ways."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from servers import free_ports

from flows.services.daemon import start_daemon, stop_daemon, wait_until_ready
from flows.services.environment import service_environment
from flows.services.lifecycle import _command
from flows.services.prefect_api import answers
from tasks.contracts.home import Home


class Proxy:
    """Forwards to MLflow; `fault` is "" or what it does instead.

    "refuse" closes the connection, "slow" keeps requests waiting for `seconds` and then forwards them, "500 before"
    answers without forwarding, "500 after" forwards and does not hand on the answer, "400" refuses the content.
    `once` holds faults that happen to one request each, by method and path ("POST runs/create").
    """

    def __init__(self, target):
        self.target, self.fault, self.seconds, self.once = target, "", 0.0, {}
        self._client = httpx.Client(timeout=60, trust_env=False)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fail(self, fault, seconds=0.0):
        self.fault, self.seconds = fault, seconds

    def heal(self):
        self.fail("")
        self.once = {}

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def _fault_of(self, method, path):
        with self._lock:
            return self.once.pop(f"{method} {path.partition('?')[0].rpartition('/mlflow/')[2]}", self.fault)

    def _handler(self):
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fault = proxy._fault_of(self.command, self.path)
                if fault == "refuse":
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(proxy.seconds)
                if fault in ("500 before", "400"):
                    self._answer(int(fault[:3]), b'{"error_code": "%s", "message": "asked for"}' % _CODES[fault])
                    return
                kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                answer = proxy._client.request(self.command, proxy.target + self.path, headers=kept, content=body)
                if fault == "500 after":
                    self._answer(500, b"the answer was lost")
                else:
                    self._answer(answer.status_code, answer.content)

            def _answer(self, status, content):
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True  # whoever asked has gone

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

            def log_message(self, *_):
                pass

        return Handler


_CODES = {"500 before": b"INTERNAL_ERROR", "400": b"INVALID_PARAMETER_VALUE"}


@contextmanager
def running_mlflow(folder):
    """Start the server in a home of its own and yield the proxy before it."""
    home = Home(folder)
    (port,) = free_ports(1)
    environment = service_environment(home, 1)
    daemon = start_daemon(home, "mlflow", _command(home, "mlflow", port), environment, port)
    try:
        wait_until_ready(daemon, lambda: answers(f"http://127.0.0.1:{port}/health"), time.monotonic() + 120)
        proxy = Proxy(f"http://127.0.0.1:{port}")
        yield proxy
        proxy.close()
    finally:
        stop_daemon(home, "mlflow")
