import pytest
import torch
import transformers

from hf_maskattn.benchmark import benchmark as module
from hf_maskattn.benchmark.benchmark import benchmark, describe_machine
from hf_maskattn.benchmark.inference import has_bf16
from hf_maskattn.benchmark.report import Outcome, Row, Table


@pytest.fixture
def settings(monkeypatch):
    """Replaces the parts by tables of one case; the settings that they are planned with."""
    settings = []

    def build_part(name):
        def plan(setting):
            settings.append(setting)
            return [Table(f"About {name}", "", {"a case": lambda: Row({"ours": Outcome(1.0)})})]

        return plan

    monkeypatch.setattr(module, "PARTS", {name: build_part(name) for name in ("first", "second")})
    return settings


def test_benchmark_runs_all_parts_and_reports_progress(settings):
    progress = []
    report = benchmark(lengths=[3], on_case=lambda *state: progress.append(state))
    assert [table.title for table in report.tables] == ["About first", "About second"]
    assert progress == [("About first: a case", 0, 2), ("About second: a case", 1, 2), ("", 2, 2)]
    assert report.passed


def test_benchmark_runs_one_part(settings):
    report = benchmark(lengths=[3], part="second", quick=True, device="cpu")
    assert [table.title for table in report.tables] == ["About second"]
    (setting,) = settings
    assert (setting.quick, setting.seconds, setting.device.type, setting.lengths) == (True, module.QUICK_SECONDS, "cpu", [3])


def test_benchmark_rejects_unknown_parts_and_devices(settings):
    with pytest.raises(ValueError, match=r"`part` must be one of \['first', 'second'\], got 'third'"):
        benchmark(lengths=[3], part="third")
    with pytest.raises(ValueError, match="`device` must be available, got 'abacus'"):
        benchmark(lengths=[3], device="abacus")


def test_accelerator_without_a_name_is_described():
    assert describe_machine(torch.device("mps"))["device"] == "mps"


def test_describe_machine_has_threads_and_versions():
    machine = describe_machine(torch.device("cpu"))
    assert list(machine) == ["CPU", "cores", "oneDNN", "device", "versions"]
    assert f"torch threads: {torch.get_num_threads()}" in machine["cores"]
    assert f"torch {torch.__version__}, transformers {transformers.__version__}" in machine["versions"]
    assert ("bf16 yes" in machine["oneDNN"]) == has_bf16(torch.device("cpu"))
