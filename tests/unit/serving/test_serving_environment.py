import platform
import socket
import sys

import pytest

from tasks.contracts.errors import EnvironmentProblem
from tasks.serving import serving_environment
from tasks.serving.ports import refuse_port_in_use
from tasks.serving.serving_environment import why_triton_cannot_run

ON_LINUX = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="needs Linux on x86-64"
)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_another_platform_is_named(monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)

    assert f"Triton needs Linux on x86-64, and this is {system} on {machine}" in why_triton_cannot_run()


@ON_LINUX
def test_a_missing_serving_environment_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", str(tmp_path / "nowhere"))

    reason = why_triton_cannot_run()

    assert str(tmp_path / "nowhere") in reason
    assert "`make serving`" in reason


@ON_LINUX
def test_an_interpreter_that_does_not_run_is_named(tmp_path, monkeypatch):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", str(tmp_path))

    assert f"{python} of the serving environment does not run (it ended with code 3)" in why_triton_cannot_run()


@ON_LINUX
def test_an_environment_without_triton_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\n")
    (tmp_path / "bin" / "python").symlink_to(f"{sys.base_prefix}/bin/python3.11")
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", str(tmp_path))

    reason = why_triton_cannot_run()

    assert "has no nvidia-pytriton" in reason
    assert "`make serving`" in reason


@ON_LINUX
def test_a_missing_libpython_is_named_with_its_package(installed_triton, monkeypatch):
    monkeypatch.setattr(serving_environment, "_LIBPYTHON", "libpython3.11.so.0.0")

    reason = why_triton_cannot_run()

    assert "libpython3.11.so.0.0, which is not in" in reason
    assert "`apt-get install libpython3.11`" in reason


@ON_LINUX
def test_missing_shared_libraries_are_named_with_their_packages(installed_triton, tmp_path, monkeypatch):
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibz.so.1 => not found'\necho '\tlibm.so.6 => /lib/libm.so.6 (0x1)'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    reason = why_triton_cannot_run()

    assert "needs the shared libraries libz.so.1, which this machine lacks" in reason
    assert "`apt-get install zlib1g`" in reason


def test_a_port_in_use_is_named_with_its_config_key_and_its_listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EnvironmentProblem) as caught:
            refuse_port_in_use(port, "serving.http_port")

    assert f"port {port} (serving.http_port) is in use by " in str(caught.value)
    assert "set serving.http_port to a free port" in str(caught.value)
    refuse_port_in_use(port, "serving.http_port")


@pytest.fixture
def installed_triton():
    """The real serving environment, without which there is nothing to take away from."""
    reason = why_triton_cannot_run()
    if reason is not None:
        pytest.skip(reason)
