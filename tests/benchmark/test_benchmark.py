import pytest

from hf_maskattn.benchmark import benchmark as module
from hf_maskattn.benchmark.benchmark import benchmark
from hf_maskattn.benchmark.plan import Plan
from hf_maskattn.benchmark.report import Outcome, Row


@pytest.fixture
def plans(monkeypatch):
    """Parts with one table of one case each, that keep the settings they got."""
    settings = []

    def planner(name):
        def plan(setting):
            settings.append(setting)
            return [Plan(f"About {name}", "", {"a case": lambda: Row({"ours": Outcome(1.0)})})]

        return plan

    monkeypatch.setattr(module, "PARTS", {name: planner(name) for name in ("first", "second")})
    return settings


def test_all_parts_run_and_progress_is_told(plans):
    told = []
    report = benchmark(lengths=[3], on_case=lambda *state: told.append(state))
    assert [table.title for table in report.tables] == ["About first", "About second"]
    assert told == [("About first: a case", 0, 2), ("About second: a case", 1, 2), ("", 2, 2)]
    assert report.passed


def test_one_part_runs_alone(plans):
    report = benchmark(lengths=[3], part="second", quick=True, device="cpu")
    assert [table.title for table in report.tables] == ["About second"]
    (setting,) = plans
    assert (setting.quick, setting.seconds, setting.device.type, setting.lengths) == (True, module.QUICK_SECONDS, "cpu", [3])


def test_mistakes_are_told(plans):
    with pytest.raises(ValueError, match=r"part='third' is unknown; choose from \['first', 'second'\]"):
        benchmark(lengths=[3], part="third")
    with pytest.raises(ValueError, match="device='abacus' is not here: "):
        benchmark(lengths=[3], device="abacus")
