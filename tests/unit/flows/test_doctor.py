"""What the doctor finds, and what it advises."""

import importlib.metadata
import importlib.util
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import doctor
from flows.doctor import Finding, examine, render_findings
from tasks.contracts.config import BaseModelSection, ServingSection
from tasks.contracts.home import Home
from tasks.registry.ledger import append_to_ledger

H100 = ("NVIDIA H100 80GB HBM3", 81_559 * 2**20, (9, 0))
T4 = ("Tesla T4", 15_360 * 2**20, (7, 5))


def test_the_whole_examination_is_quick_and_imports_no_torch(tmp_path):
    code = (
        "import sys; from flows.doctor import examine; from tasks.contracts.home import Home; from pathlib import Path;"
        f"found = examine(Home(Path({str(tmp_path)!r})));"
        "assert 'torch' not in sys.modules and 'prefect' not in sys.modules and 'mlflow' not in sys.modules;"
        "print(len(found))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 14
    assert time.monotonic() - started < 15  # 1.5 s when nothing else runs


def test_examining_changes_nothing(tmp_path):
    examine(Home(tmp_path / "home"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 11, 0), "ok"), ((3, 10, 12), "problem"), ((3, 12, 1), "problem")]
)
def test_only_python_311_will_do(version, verdict):
    assert doctor.python_finding(version).ok == verdict


def test_installed_packages_are_compared_with_the_pins(tmp_path):
    pins = tmp_path / "constraints.txt"
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("click", "PyYAML", "torch")}
    pins.write_text("# a comment\n" + "".join(f"{name}=={version}\n" for name, version in versions.items()))
    assert doctor.pins_finding(pins) == Finding("pins", "ok", "3 packages as pinned")
    pins.write_text("".join(f"{name}==0.0.1\n" for name in (*versions, "rich", "not-installed-at-all")))
    finding = doctor.pins_finding(pins)
    assert finding.ok == "warning"
    assert f"click {versions['click']} instead of 0.0.1" in finding.found
    assert finding.found.endswith("and 1 more")
    assert finding.advice == "pip install --constraint constraints.txt --editable ."


def test_a_package_of_the_project_that_is_not_installed_is_a_problem(tmp_path, monkeypatch):
    pins = tmp_path / "constraints.txt"
    pins.write_text("")
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["click", "No_Such.Package>=2", 'no-such-tool; extra == "dev"']
    )
    assert doctor.pins_finding(pins).found == "not installed: no-such-package"


def test_a_full_disk_is_a_problem_with_its_remedy(tmp_path, monkeypatch):
    home = Home(tmp_path / "not" / "there" / "yet")
    assert doctor.disk_finding(home).found.endswith(f"GB free at {home.root}")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000_000))
    finding = doctor.disk_finding(home)
    assert finding.ok == "problem"
    assert "LLM_RETRAIN_HOME" in finding.advice


@pytest.mark.parametrize(("available", "verdict"), [(3_000_000_000, "warning"), (8_000_000_000, "ok")])
def test_little_memory_is_a_warning(available, verdict):
    assert doctor.memory_finding(available).ok == verdict


@pytest.mark.parametrize(("native", "words"), [(True, "multiplies bf16 itself"), (False, "trains in fp32")])
def test_the_processor_says_in_which_precision_it_trains(monkeypatch, native, words):
    monkeypatch.setattr(doctor, "cpu_computes_bf16", lambda: native)
    assert words in doctor.processor_finding().advice


def test_a_gpu_says_what_it_allows():
    finding = doctor.gpu_finding([H100], torch_has_cuda=True)
    assert finding.found == "1 x NVIDIA H100 80GB HBM3, 86 GB, compute capability 9.0"
    assert finding.advice == "trains in bf16: LoRA up to about 18B parameters, 116B with training.method=qlora"


def test_a_gpu_before_ampere_trains_in_fp16():
    assert (
        "only emulates bf16 and trains in fp16: LoRA up to about 3B"
        in doctor.gpu_finding([T4], torch_has_cuda=True).advice
    )


def test_a_gpu_that_pytorch_cannot_use_is_a_warning():
    finding = doctor.gpu_finding([T4, H100], torch_has_cuda=False)
    assert (finding.ok, finding.found.startswith("2 x NVIDIA H100")) == ("warning", True)


def test_no_gpu_is_in_order():
    assert doctor.gpu_finding([], torch_has_cuda=False).ok == "ok"


def test_the_driver_s_answer_is_read_even_with_a_comma_in_the_name():
    answer = "NVIDIA H100 80GB HBM3, 81559, 9.0\nOdd, Name, 15360, 7.5\n"
    assert doctor.read_nvidia_smi(answer) == [H100, ("Odd, Name", 15_360 * 2**20, (7, 5))]


@pytest.mark.parametrize("memory", ["[N/A]", "[Insufficient Permissions]"])
def test_a_driver_that_does_not_tell_the_memory_stops_nothing(memory):
    finding = doctor.gpu_finding(doctor.read_nvidia_smi(f"Orin, {memory}, 8.7\n"), torch_has_cuda=True)
    assert finding.ok == "ok"
    assert "does not say how much memory" in finding.advice


def test_the_kind_of_pytorch_is_what_its_version_file_says():
    version_file = Path(importlib.util.find_spec("torch").origin).with_name("version.py")
    assert doctor.torch_is_built_for_cuda() is (runpy.run_path(str(version_file))["cuda"] is not None)


@pytest.mark.parametrize(
    ("line", "built"),
    [
        ("cuda: Optional[str] = None", False),
        ("cuda: Optional[str] = '12.8'", True),
        ("cuda = None", False),
        ('cuda = "13.0"', True),
    ],
)
def test_a_version_file_of_pytorch_names_cuda_or_none(tmp_path, monkeypatch, line, built):
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip = None\n")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec)
    assert doctor.torch_is_built_for_cuda() is built


def test_a_port_that_somebody_has_is_a_problem_that_names_it(home):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        findings = doctor.port_findings(home, ServingSection(http_port=port))
    by_name = {finding.name: finding for finding in findings}
    assert len(findings) == 5
    assert by_name[f"port {port}"].ok == "problem"
    assert f"port {port} (serving.http_port) is in use by" in by_name[f"port {port}"].found
    assert "serving.http_port" in by_name[f"port {port}"].advice


def test_a_port_of_our_own_service_is_in_order(home, monkeypatch):
    from flows.services.daemon import start_daemon, stop_daemon

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("LLM_RETRAIN_MLFLOW_PORT", str(port))
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    start_daemon(home, "mlflow", server, {}, port)
    try:
        finding = {one.name: one for one in doctor.port_findings(home, ServingSection())}[f"port {port}"]
    finally:
        stop_daemon(home, "mlflow", 5)
    assert (finding.ok, "a service of" in finding.found) == ("ok", True)


def test_a_missing_serving_environment_is_a_warning_with_the_command_that_makes_it(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", str(tmp_path / "nowhere"))
    finding = doctor.triton_finding()
    assert finding.ok == "warning"
    assert "make serving" in finding.advice


def test_a_base_model_directory_that_is_missing_is_a_problem(home):
    finding = doctor.base_model_finding(BaseModelSection(source="dir:/no/such/model"), home)
    assert (finding.ok, "base_model.source" in finding.advice) == ("problem", True)


def test_a_wheel_is_found_where_the_download_puts_it(home):
    section = BaseModelSection(source="wheel:no-such-model==1.0")
    assert "is not here yet" in doctor.base_model_finding(section, home).found
    (home.downloads / "no-such-model-1.0").mkdir(parents=True)
    assert doctor.base_model_finding(section, home).found == "no-such-model==1.0 is here"


def test_findings_are_rendered_with_a_count():
    from rich.console import Console

    console = Console(record=True, width=120)
    render_findings(console, [Finding("disk", "problem", "[full]"), Finding("GPU", "ok", "none")])
    shown = console.export_text()
    assert "[full]" in shown
    assert "1 problems, 0 warnings" in shown


def test_a_ledger_is_as_it_was_written_or_a_problem_and_what_a_crash_tore_a_warning(tmp_path):
    home = Home(tmp_path)
    assert doctor.ledger_finding(home) == Finding("ledger", "ok", "nothing was promoted yet")
    for version in (1, 2, 3):
        append_to_ledger(home, "promoted", "assistant", version - 1, version, "nightly")
    assert doctor.ledger_finding(home) == Finding("ledger", "ok", "as it was written")
    written = home.ledger.read_bytes()
    home.ledger.write_bytes(written + b'{"event":"prom')
    torn = doctor.ledger_finding(home)
    assert (torn.ok, torn.found[:6]) == ("warning", "line 4")
    home.ledger.write_bytes(written.replace(b'"to":2', b'"to":3'))
    changed = doctor.ledger_finding(home)
    assert changed.ok == "problem"
    assert changed.found.startswith("line 3 does not follow from the line before it")
    assert str(home.ledger) in changed.advice
    home.ledger.unlink()
    home.ledger.mkdir()
    assert "cannot be read (Is a directory)" in doctor.ledger_finding(home).found
