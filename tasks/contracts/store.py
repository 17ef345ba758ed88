"""The content-addressed artifact store: a directory is complete (it has a manifest) or it does not exist.

An entry is found by its key, the digest of everything that determines it: the kind, the inputs' digests, the config
section and the code of the stage. Its own digest is that of its files, and is what the next stage's key is made of.
"""

import errno
import fcntl
import functools
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.errors import StoreError
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.jsonl import canonical_json, digest_of, digest_of_file
from tasks.contracts.locks import held_lock

log = logging.getLogger("llm_retrain.store")

MANIFEST = "manifest.json"
_NAMED_CHARS = 12
"""Of its key, a folder in work has so many in its name."""


@dataclass(frozen=True)
class Entry:
    """A finished directory in the store.

    Attributes:
        kind: what it is ("rows", "dataset", "base", "adapter", "servable", "predictions", "report").
        key: digest of what determines it; the directory's name.
        digest: digest of the files in it; what depends on it uses this.
        path: the directory.
        facts: small JSON facts its writer returned (counts, names, figures).
        inputs: what the key was made of; holds the parents' digests.
    """

    kind: str
    key: str
    digest: str
    path: Path
    facts: dict[str, Any]
    inputs: dict[str, Any]

    @property
    def made_at(self) -> float:
        """When it was finished, in seconds since 1970: its manifest is written last."""
        return (self.path / MANIFEST).stat().st_mtime


class NotInStore(LookupError):
    """Raised by a `LookupOnlyStore` for an entry that would have to be made."""


@functools.cache
def code_digest(*relative_paths: str) -> str:
    """Return the digest of the Python sources under the project's `relative_paths`: the code version of a stage."""
    sources: dict[str, str] = {}
    for relative in relative_paths:
        start = PROJECT_ROOT / relative
        for path in [start] if start.is_file() else sorted(start.rglob("*.py")):
            sources[str(path.relative_to(PROJECT_ROOT))] = digest_of_file(path)
    return digest_of(sources)


def library_versions(*distributions: str) -> dict[str, str]:
    """Return the installed version of each distribution ("absent" without): part of the key of what they compute."""
    versions: dict[str, str] = {}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


class Store:
    """Makes entries once and finds them again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[Path, Entry] = {}

    def produce(self, kind: str, inputs: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> Entry:
        """Return the entry for `inputs`, calling `write` only if there is no sound one.

        Args:
            kind: sub-directory of the store.
            inputs: JSON facts that determine the result (parents' digests, config section, code digest).
            write: fills the empty directory it is given and returns the entry's facts. If it raises, nothing is kept.

        Raises:
            StoreError: the file system is full or not writable.
        """
        key = self.key(kind, inputs)
        found = self.find(kind, key)
        if found is not None:
            return found
        try:
            with held_lock(self.root / ".locks" / f"{kind}-{key}"):  # the others wait and then find it
                return self.find(kind, key) or self._make(kind, key, inputs, write)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise StoreError(
                    f"the store at {self.root} cannot be written ({os.strerror(error.errno)}); "
                    "free space or point LLM_RETRAIN_HOME elsewhere"
                ) from error
            raise

    def key(self, kind: str, inputs: dict[str, Any]) -> str:
        """Return the key of the entry that `inputs` determine."""
        return digest_of({"kind": kind, "inputs": inputs})

    def find(self, kind: str, key: str) -> Entry | None:
        """Return the entry if it is complete and every file matches its manifest; a damaged one is set aside."""
        path = self.root / kind / key
        if path in self._verified and (path / MANIFEST).exists():
            return self._verified[path]
        if not path.is_dir():
            return None
        damage = damage_of(path)
        if damage:
            aside = self.root / ".damaged" / f"{kind}-{key[:12]}-{os.getpid()}-{os.urandom(3).hex()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
            log.warning("%s entry %s is damaged (%s); set aside in %s and made again", kind, key[:12], damage, aside)
            return None
        entry = entry_at(path)
        self._verified[path] = entry
        return entry

    def entries(self, kind: str) -> Iterator[Entry]:
        """Yield the complete entries of a kind, without verifying their files."""
        for manifest in sorted((self.root / kind).glob(f"[!.]*/{MANIFEST}")):
            yield entry_at(manifest.parent)

    def _make(self, kind: str, key: str, inputs: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> Entry:
        parent = self.root / kind
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f".{key[:_NAMED_CHARS]}-*"):  # this process has the lock: nobody works in it
            _remove(left)
        self._remove_leftovers()
        working = Path(tempfile.mkdtemp(prefix=f".{key[:_NAMED_CHARS]}-", dir=parent))
        try:
            facts = write(working)
            write_manifest(working, {"kind": kind, "key": key, "inputs": inputs, "facts": facts})
            working.chmod(0o755)
            working.rename(parent / key)
        finally:
            shutil.rmtree(working, ignore_errors=True)
        entry = entry_at(parent / key)
        self._verified[parent / key] = entry
        return entry

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left of other entries: it holds text, and fills the disk.

        Whoever makes an entry holds its lock from before its folder is there until after it has gone, so a folder whose
        lock can be had is nobody's. It is removed under that lock; whoever wants to make the entry waits meanwhile.
        """
        for left in self.unfinished():
            named = f"{left.parent.name}-{left.name[1 : 1 + _NAMED_CHARS]}"
            with ExitStack() as locks:
                # The folder names the beginning of the key alone; without a lock file nobody can say whose it is.
                taken = [_try_lock(path, locks) for path in (self.root / ".locks").glob(f"{named}*")]
                if taken and all(taken) and left.exists():
                    _remove(left)

    def unfinished(self) -> list[Path]:
        """Return the folders in which entries are being made, or were when their process was killed."""
        return sorted(self.root.glob("[!.]*/.*-*"))

    def set_aside(self) -> list[Path]:
        """Return the damaged entries, each as `KIND-…`; nothing reads or removes them."""
        return sorted((self.root / ".damaged").glob("*"))


def _try_lock(path: Path, locks: ExitStack) -> bool:
    """Take a lock until `locks` is closed, unless it cannot be had: another process has it, or this one further up."""
    try:
        fcntl.flock(locks.enter_context(path.open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also the lock of another user
        return False
    return True


def _remove(left: Path) -> None:
    log.info("removing %s, which an interrupted run left", left)
    shutil.rmtree(left, ignore_errors=True)


class LookupOnlyStore(Store):
    """A store that makes nothing: it answers whether a run's results are all there already."""

    def produce(self, kind: str, inputs: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> Entry:
        """Return the entry for `inputs`.

        Raises:
            NotInStore: it would have to be made.
        """
        found = self.find(kind, self.key(kind, inputs))
        if found is None:
            raise NotInStore(kind)
        return found


def spelled_time(seconds: float) -> str:
    """Spell a moment, in seconds since 1970, as the lists and reports do: 2026-01-31T08:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Sync the files of `directory`, then write its manifest: sha256 and size of each, last, so it proves the rest."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(directory))] = {"sha256": digest_of_file(path), "bytes": path.stat().st_size}
    manifest = {**content, "files": files, "digest": digest_of(files)}
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(canonical_json(manifest) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a finished directory."""
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def damage_of(directory: Path) -> str:
    """Say what differs between a directory and its manifest; the empty string if nothing does.

    A file that the manifest does not list is damage too. Byte code is not: Python writes it beside what it imports.
    """
    try:
        manifest = read_manifest(directory)
        files, digest = manifest["files"], manifest["digest"]
    except (OSError, ValueError, KeyError):
        return "it has no readable manifest"
    if digest_of(files) != digest:
        return "its manifest does not have its own digest"
    for name, expected in files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return f"{name} is missing or has another size"
        if digest_of_file(path) != expected["sha256"]:
            return f"{name} has another sha256"
    listed = {directory / name for name in (*files, MANIFEST)}
    for path in sorted(directory.rglob("*")):
        if path not in listed and not path.is_dir() and path.parent.name != "__pycache__":
            return f"{path.relative_to(directory)} is not in its manifest"
    return ""


def entry_at(directory: Path) -> Entry:
    """Read a finished directory's manifest as an `Entry`."""
    manifest = read_manifest(directory)
    return Entry(
        kind=manifest["kind"],
        key=manifest["key"],
        digest=manifest["digest"],
        path=directory,
        facts=manifest["facts"],
        inputs=manifest["inputs"],
    )
