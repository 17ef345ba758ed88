"""Files in S3, from a real server on this machine that speaks its protocol (moto)."""

import gzip
import json

import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import FilesSource
from tasks.data.sources import open_source, read_shard

pytestmark = pytest.mark.integration

BUCKET = "rows"


@pytest.fixture
def store(monkeypatch):
    for package in ("s3fs", "moto", "boto3"):
        pytest.importorskip(package, reason=f"needs the dev extra: {package}")
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def put(store, key, *answers):
    content = "\n".join(json.dumps({"instruction": "x", "output": answer}) for answer in answers).encode()
    store.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(content, mtime=0) if key.endswith(".gz") else content)


def read(url, cache):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # another run is another process, which has listed nothing yet
    source = FilesSource(path=url)
    opened = open_source(source, 0, "data.sources", cache)
    return opened.digest, [row["messages"][-1]["content"] for s in opened.shards for row in read_shard(s, source)]


def test_objects_are_copied_once_and_again_when_they_change(store, tmp_path):
    put(store, "2026/01/a.jsonl", "a", "b")
    put(store, "2026/02/c.jsonl.gz", "c")
    digest, answers = read(f"s3://{BUCKET}/2026/**/*.jsonl*", tmp_path)
    assert answers == ["a", "b", "c"]

    copies = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert len(copies) == 2
    assert read(f"s3://{BUCKET}/2026/**/*.jsonl*", tmp_path) == (digest, answers)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == copies

    put(store, "2026/01/a.jsonl", "A", "b")
    changed, answers = read(f"s3://{BUCKET}/2026/**/*.jsonl*", tmp_path)
    assert answers == ["A", "b", "c"]
    assert changed != digest


def test_a_bucket_or_object_that_is_missing_is_one_sentence(store, tmp_path):
    with pytest.raises(DataError, match=r"^data\.sources names 's3://rows/none\.jsonl', which matches no file"):
        read(f"s3://{BUCKET}/none.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"^data\.sources names 's3://nowhere/\*\.jsonl', which "):
        read("s3://nowhere/*.jsonl", tmp_path)
