import json
import os
import threading

import pytest

from tasks.contracts.engine import import_served_module
from tasks.contracts.errors import ServingError
from tasks.serving.repository import TRITON_MODELS
from tasks.serving.routing import Routing, read_routing, write_routing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "routing" / "assistant.json"


def test_what_is_written_is_read_back(path):
    routing = Routing("assistant-v3", 3, 5, "2030-01-02T03:04:05+00:00")

    write_routing(path, routing)

    assert read_routing(path) == routing


def test_before_the_first_promotion_there_is_no_champion(path):
    assert read_routing(path) == Routing(champion=None, version=None, generation=0, changed_at="")


def test_a_failed_write_leaves_the_old_table_and_no_debris(path, monkeypatch):
    write_routing(path, Routing("assistant-v1", 1, 1, ""))

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ServingError, match=r"cannot be written.*No space left"):
        write_routing(path, Routing("assistant-v2", 2, 2, ""))

    assert read_routing(path).champion == "assistant-v1"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_never_sees_half_a_table(path):
    """Two tables of very different length are written in turn while a reader reads."""
    tables = [Routing("a", 1, 1, ""), Routing("b" * 50_000, 2, 2, "")]
    write_routing(path, tables[0])
    done = threading.Event()

    def write():
        for turn in range(60):
            write_routing(path, tables[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert read_routing(path) in tables
        reads += 1
    writer.join()
    assert reads > 10


@pytest.mark.parametrize("content", ["{", "[]", '{"winner": "assistant-v1"}'])
def test_a_file_that_is_no_routing_table_is_an_error_that_names_it(path, content):
    path.parent.mkdir()
    path.write_text(content)

    with pytest.raises(ServingError, match=r"assistant\.json cannot be read"):
        read_routing(path)


def test_the_router_sees_a_switch_at_the_next_request(path):
    table, errors = router_table(path)
    assert table.champion() is None

    write_routing(path, Routing("assistant-v1", 1, 1, ""))
    assert table.champion() == "assistant-v1"
    write_routing(path, Routing("assistant-v2", 2, 2, ""))
    assert table.champion() == "assistant-v2"
    assert errors == []


@pytest.mark.parametrize("damage", ["{", "[]", '{"champion": 3}', None])
def test_the_router_keeps_the_last_good_table_and_says_so_once(path, damage):
    write_routing(path, Routing("assistant-v1", 1, 1, ""))
    table, errors = router_table(path)
    assert table.champion() == "assistant-v1"

    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)

    assert [table.champion(), table.champion()] == ["assistant-v1", "assistant-v1"]
    assert len(errors) == 1
    assert "assistant-v1 goes on answering" in errors[0]


def test_the_router_reads_the_file_only_when_it_changed(path):
    write_routing(path, Routing("assistant-v1", 1, 1, ""))
    table, _ = router_table(path)
    table.champion()
    status = path.stat()
    path.write_text(json.dumps({"champion": "assistant-v2"}).ljust(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert table.champion() == "assistant-v1"
    assert table.champion(read_again=True) == "assistant-v2"


def router_table(path):
    """Return the router's own reader of the table, and the list it logs errors to."""
    errors = []
    module = import_served_module(TRITON_MODELS / "router", "routing_table")
    return module.RoutingTable(path, errors.append), errors
