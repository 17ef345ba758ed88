"""A judge's endpoint on this machine, with the habits that real ones have."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def as_object(place):
    return json.dumps({"better": place})


def always_first(_):
    return as_object("A")


def always_tie(_):
    return as_object("tie")


def the_longer(shown):
    first, second = len(shown["answer_A"]), len(shown["answer_B"])
    return as_object("tie" if first == second else "A" if first > second else "B")


class FakeJudge:
    """Answers questions by a habit: a function of the JSON object that it was shown.

    Attributes:
        habit: returns the reply's text.
        script: (status, headers) of the first responses; after them 200.
        seconds: how long it takes for each.
        drips: sends its response a byte at a time, with a pause after each.
        bodies: the requests' bodies; what is no JSON object in the user's message is in `strange`.
        headers: the requests' headers.
        paths: the requests' paths.
        most_at_once: how many questions were under way together at most.
    """

    def __init__(self, habit=the_longer):
        self.habit, self.script, self.seconds, self.drips = habit, [], 0.0, False
        self.bodies, self.headers, self.paths, self.strange = [], [], [], []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def respond(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            status, headers = self.script.pop(0) if self.script else (200, {})
        time.sleep(self.seconds)
        reply = self.habit(self.shown(body)) if status == 200 else "no"
        message = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
        payload = reply if isinstance(reply, bytes) else json.dumps(message).encode()
        with self._lock:
            self.at_once -= 1
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(payload)))
        handler.end_headers()
        for piece in [payload[n : n + 1] for n in range(len(payload))] if self.drips else [payload]:
            handler.wfile.write(piece)
            time.sleep(0.05 if self.drips else 0)

    def shown(self, body):
        """Return the object in the user's message, which is all that may come after the task."""
        system, user = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        try:
            return json.loads(user["content"], object_pairs_hook=self._object)
        except ValueError:
            self.strange.append(user["content"])
            raise

    def _object(self, pairs):
        if len(dict(pairs)) != len(pairs):
            self.strange.append(pairs)
        return dict(pairs)


@contextmanager
def fake_judge(habit=the_longer):
    """Yield a judge; its `url` is the address before /chat/completions."""
    judge = FakeJudge(habit)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                judge.respond(self)
            except (BrokenPipeError, ConnectionResetError):  # who asked did not wait
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
