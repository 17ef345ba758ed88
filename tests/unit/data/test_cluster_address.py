"""A cluster that is not there: one sentence with address and config key, soon, whatever the library would do."""

import socket
import sys
import threading
import time

import pytest

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import EnvironmentProblem
from tasks.data.execution import cluster
from tasks.data.execution.executors import run_jobs


def refused(tmp_path, **execution):
    with pytest.raises(EnvironmentProblem) as caught:
        run_jobs("os:listdir", [{}], [1], ExecutionSection(**execution), tmp_path / "log", print)
    return str(caught.value)


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def foreign_port():
    """Something that is no cluster: it accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def accept():
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_without_its_library_names_the_extra(tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(tmp_path, kind=kind) == (
        f"data.execution.kind is '{kind}', which needs: pip install 'llm-retrain[{kind}]'"
    )


@pytest.mark.parametrize(
    ("kind", "form"), [("ray", "127.0.0.1:{}"), ("ray", "ray://127.0.0.1:{}"), ("dask", "tcp://127.0.0.1:{}")]
)
def test_a_closed_port_is_refused_at_once(tmp_path, closed_port, kind, form):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[kind])
    address, started = form.format(closed_port), time.monotonic()
    sentence = refused(tmp_path, kind=kind, address=address)
    assert sentence.startswith(f"data.execution.address is '{address}', where no {kind.capitalize()} cluster answers (")
    assert "refused" in sentence
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        *(("ray", address) for address in ("http://127.0.0.1:6379", "127.0.0.1", "127.0.0.1:port", "tcp://h:1", "h:")),
        *(("dask", address) for address in ("http://h:8786", "ray://h:1", "tcp://h", "h:99999", "inproc://x", "[:1")),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused_with_the_form_that_is_expected(tmp_path, kind, address):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[kind])
    assert refused(tmp_path, kind=kind, address=address) == (
        f"data.execution.address is {address!r}; expected "
        + {"ray": "HOST:6379, ray://HOST:10001 or auto", "dask": "tcp://HOST:8786"}[kind]
        + f" for data.execution.kind '{kind}'"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [("ray", "127.0.0.1:{}"), ("dask", "tcp://127.0.0.1:{}")])
def test_a_port_of_something_else_is_given_up_after_a_while(tmp_path, foreign_port, monkeypatch, kind, form):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[kind])
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 2.0)
    address = form.format(foreign_port)
    sentence = refused(tmp_path, kind=kind, address=address)
    assert sentence.startswith(
        f"data.execution.address is '{address}', where no {kind.capitalize()} cluster answers (no "
    )
    assert "(no answer within 2 seconds)" in sentence
