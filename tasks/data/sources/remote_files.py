"""Files at a URL that fsspec knows, copied to this machine once for each content.

A copy is found by the URL and what the store says of its content (ETag, or size and time). A store that says nothing
is asked again each time.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.jsonl import digest_of

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hf": "huggingface_hub",
    "oci": "ocifs",
    "smb": "smbprotocol",
    "webhdfs": "requests",
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("hdfs", "ftp", "memory"), ""),
}
_VALIDATORS = ("ETag", "etag", "version_id", "mtime", "LastModified", "last_modified", "updated", "created")
_BLOCK_BYTES = 2**20


def is_remote(path: str) -> bool:
    """Whether `path` is a URL of another machine's file."""
    return "://" in path and not path.startswith(("file://", "local://"))


def fetch(url: str, config_key: str, cache: Path) -> list[tuple[str, Path]]:
    """Copy the files that `url` names, or matches, below `cache`; return the name and the copy of each.

    Raises:
        DataError: the URL is of an unknown kind, matches nothing, or a file cannot be read.
        EnvironmentProblem: the package that speaks to this store is not installed.
    """
    with _as_one_sentence(url, config_key):
        file_system, pattern = _file_system(url, config_key)
        if any(character in pattern for character in "*?["):
            found = sorted(path for path in file_system.glob(pattern) if file_system.isfile(path))
        else:
            found = [pattern] if file_system.isfile(pattern) else []
        return [(path.rstrip("/").rpartition("/")[2], _copy(file_system, url, path, cache)) for path in found]


def _file_system(url: str, config_key: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.partition("://")[0]
    if "::" in url or protocol not in _PACKAGES:
        raise DataError(
            f"{config_key} names {url!r}, whose kind {protocol!r} is not read; expected a local path, or one of "
            f"{', '.join(sorted(_PACKAGES))}"
        )
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise EnvironmentProblem(
            f"{config_key} names {url!r}, which needs the package {_PACKAGES[protocol]}; install it beside llm-retrain"
        ) from error


def _copy(file_system: Any, url: str, path: str, cache: Path) -> Path:
    info = file_system.info(path)
    said = {name: str(info[name]) for name in _VALIDATORS if info.get(name) is not None}
    folder = cache / digest_of([url.partition("://")[0], path])[:32]
    copy = folder / digest_of([said, info.get("size")])[:32]
    if said and copy.is_file():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as target, file_system.open(path, "rb") as remote:
            shutil.copyfileobj(remote, target, _BLOCK_BYTES)
        Path(part).replace(copy)
    finally:
        Path(part).unlink(missing_ok=True)
    for older in folder.iterdir():
        if older != copy and older.suffix != ".part":
            older.unlink(missing_ok=True)
    return copy


@contextmanager
def _as_one_sentence(url: str, config_key: str) -> Iterator[None]:
    try:
        yield
    except (DataError, EnvironmentProblem):
        raise
    except Exception as error:  # each store has errors of its own, of no common base
        raise DataError(
            f"{config_key} names {url!r}, which cannot be read ({type(error).__name__}: {error}); "
            "expected files this machine may read"
        ) from error
