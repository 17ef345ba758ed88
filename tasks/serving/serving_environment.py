"""The environment that Triton runs in: apart from the project's, because its Python backend needs numpy 1."""

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import PROJECT_ROOT

_STUB_VERSION = "3.11"
_LIBPYTHON = "libpython3.11.so.1.0"
_INSTALL = "make serving"
_SYSTEM_PACKAGES = {
    "libstdc++.so.6": "libstdc++6",
    "libgomp.so.1": "libgomp1",
    "libz.so.1": "zlib1g",
    "libexpat.so.1": "libexpat1",
}
_ANSWER_DEPENDS_ON = ("jinja2", "numpy", "nvidia-pytriton", "onnxruntime", "tokenizers", "torch", "transformers")
_WHERE = """
import importlib.util, json, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "packages": sysconfig.get_path("purelib"),
    "libdir": sysconfig.get_config_var("LIBDIR") or "",
    "base": sys.base_prefix,
    "missing": [name for name in ("numpy", "jinja2", "tokenizers") if importlib.util.find_spec(name) is None],
}))
"""


@dataclass(frozen=True)
class ServingEnvironment:
    """The parts of an installed `nvidia-pytriton`.

    Attributes:
        python: the environment's interpreter.
        tritonserver: the server binary.
        python_backend: directory with libtriton_python.so.
        stub: the process that runs Python models, for Python 3.11.
        libraries: shared libraries that the server brings along.
        libpython_directory: where libpython3.11.so.1.0 is.
    """

    python: Path
    tritonserver: Path
    python_backend: Path
    stub: Path
    libraries: Path
    libpython_directory: Path

    @property
    def library_path(self) -> str:
        """LD_LIBRARY_PATH of the server and its stubs."""
        return f"{self.libraries}:{self.libpython_directory}"


def why_triton_cannot_run() -> str | None:
    """Return what is missing, in one sentence with the command that installs it; None if Triton can run here."""
    try:
        find_serving_environment()
    except EnvironmentProblem as problem:
        return str(problem)
    return None


def find_serving_environment() -> ServingEnvironment:
    """Find Triton in the environment `LLM_RETRAIN_SERVING_ENV`, or in `.venv-serving` of the project.

    Raises:
        EnvironmentProblem: not Linux on x86-64, no such environment, or a system library is missing.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise EnvironmentProblem(
            f"Triton needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}; "
            "models can be trained and evaluated here, and served on another machine"
        )
    root = Path(os.environ.get("LLM_RETRAIN_SERVING_ENV") or PROJECT_ROOT / ".venv-serving").expanduser().absolute()
    python = root / "bin" / "python"
    if not python.exists():
        raise EnvironmentProblem(
            f"there is no serving environment at {root}; make one with `{_INSTALL}` or set LLM_RETRAIN_SERVING_ENV"
        )
    environment = _locate(python, root)
    _refuse_missing_libraries(environment)
    return environment


def installed_versions(environment: ServingEnvironment) -> dict[str, str]:
    """Return the versions of what a served answer depends on, as far as it is installed."""
    packages = environment.libraries.parent
    found = {
        each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions(path=[str(packages)])
    }
    return {name: found[name] for name in _ANSWER_DEPENDS_ON if name in found}


def _locate(python: Path, root: Path) -> ServingEnvironment:
    found = _ask(python)
    if found["version"] != _STUB_VERSION:
        raise EnvironmentProblem(
            f"the serving environment at {root} has Python {found['version']}; expected {_STUB_VERSION}, "
            f"as `{_INSTALL}` makes it"
        )
    packages = Path(found["packages"])
    triton = packages / "pytriton" / "tritonserver"
    parts = {
        "tritonserver": triton / "bin" / "tritonserver",
        "python_backend": triton / "backends" / "python",
        "stub": triton / "python_backend_stubs" / _STUB_VERSION / "triton_python_backend_stub",
        "libraries": packages / "nvidia_pytriton.libs",
    }
    for path in parts.values():
        if not path.exists():
            raise EnvironmentProblem(
                f"the serving environment at {root} has no nvidia-pytriton ({path} is missing); run `{_INSTALL}`"
            )
    if found["missing"]:
        raise EnvironmentProblem(
            f"the serving environment at {root} lacks {', '.join(found['missing'])}; run `{_INSTALL}`"
        )
    # The interpreter's own library first: the system's may be of another patch release.
    candidates = [found["libdir"], f"{found['base']}/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/lib"]
    for directory in candidates:
        if directory and (Path(directory) / _LIBPYTHON).exists():
            return ServingEnvironment(python=python, libpython_directory=Path(directory), **parts)
    raise EnvironmentProblem(
        f"Triton's Python backend needs {_LIBPYTHON}, which is not in {', '.join(filter(None, candidates))}; "
        "install it with `apt-get install libpython3.11`"
    )


def _ask(python: Path) -> dict[str, Any]:
    """Ask the environment's interpreter where its parts are."""
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _WHERE], capture_output=True, text=True, timeout=60, check=True
        )
        found: dict[str, Any] = json.loads(answer.stdout)
        return found
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        why = said[-1] if said else f"it ended with code {error.returncode}"
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
    raise EnvironmentProblem(f"{python} of the serving environment does not run ({why}); run `{_INSTALL}`")


def _refuse_missing_libraries(environment: ServingEnvironment) -> None:
    missing: set[str] = set()
    for binary in (
        environment.tritonserver,
        environment.stub,
        environment.python_backend / "libtriton_python.so",
    ):
        missing |= _libraries_not_found(binary, environment.library_path)
    if missing:
        packages = sorted(_SYSTEM_PACKAGES.get(library, library.split(".so")[0]) for library in missing)
        raise EnvironmentProblem(
            f"Triton needs the shared libraries {', '.join(sorted(missing))}, which this machine lacks; "
            f"install them with `apt-get install {' '.join(packages)}`"
        )


def _libraries_not_found(binary: Path, library_path: str) -> set[str]:
    try:
        listing = subprocess.run(
            ["ldd", str(binary)],  # noqa: S607 - found on PATH, it lives in different places
            env={"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": library_path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        return set()  # without ldd (musl, minimal images) the server itself will say what it lacks
    return {line.split()[0] for line in listing.stdout.splitlines() if line.rstrip().endswith("not found")}
