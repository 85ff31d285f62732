"""Every field of `TrainingArguments`, for every task: it works, or it is refused by name before any data is read."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from hf_maskattn.recipes.arguments import NOT_IN_A_RECIPE
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_rules import FIXED
from hf_maskattn.training.train import train
from hf_maskattn.training.trainer import ReproducibleTrainer
from tests.training.argument_cases import CASES, GUIDE, TASKS, Case, guide, overrides, undecided, with_table, write_toys
from tests.training.toy_recipe import SIZES

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return write_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(autouse=True)
def _what_settings_change_is_put_back(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    verbosity = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(verbosity)
    torch.use_deterministic_algorithms(False)


def together(cases: Iterable[Case]) -> list[Case]:
    """Merge cases that set different fields, so that they take few runs."""
    groups: list[dict] = []
    for case in cases:
        free = next((group for group in groups if not group.keys() & case.settings.keys()), None)
        if free is None:
            groups.append(dict(case.settings))
        else:
            free.update(case.settings)
    return [Case(group) for group in groups]


def working(task: str) -> list[Case]:
    return [case for cases in CASES.values() for case in cases if task in case.works and not case.needs]


def check_run(recipe: Path, folder: Path, settings: dict) -> None:
    """Train, and check that something was trained, each row was scored, and the weights are as precise as before."""
    scored = []
    evaluation_loop = ReproducibleTrainer.evaluation_loop

    def loop(self, *args, **kwargs):
        scored.append(evaluation_loop(self, *args, **kwargs))
        return scored[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReproducibleTrainer, "evaluation_loop", loop)
        metrics = train(load_recipe(recipe, [*overrides(settings), f"training.output_dir={folder}"])).metrics
    assert metrics["train"]["steps"] >= 1, settings
    for output in scored:
        assert output.num_samples == SIZES["test"]
        assert settings.get("prediction_loss_only") or len(output.predictions) == SIZES["test"]
    assert {"loss", "runtime"} < metrics["test"].keys()
    assert metrics["test"]["loss"] == metrics["test"]["loss"]  # not NaN
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_every_field_is_decided_on():
    assert not undecided(), "decide what these fields do in a recipe, in tests/training/argument_cases.py"
    assert FIXED.keys() <= CASES.keys()
    assert not [name for name in NOT_IN_A_RECIPE["training"] if any(case.works for case in CASES.get(name, ()))]


@pytest.mark.parametrize("task", TASKS)
def test_fields_that_work_work_together(recipes, tmp_path, task):
    groups = together(case for case in working(task) if not case.alone and not case.slow)
    for number, group in enumerate(groups):
        check_run(recipes[task], tmp_path / str(number), group.settings)


@pytest.mark.parametrize("task", TASKS)
def test_fields_that_change_what_others_mean_work(recipes, tmp_path, task):
    for number, case in enumerate(case for case in working(task) if case.alone and not case.slow):
        check_run(recipes[task], tmp_path / str(number), case.settings)


@pytest.mark.slow
# torch.compile looks at the gradients of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("task", TASKS)
def test_each_field_works_alone(recipes, tmp_path, task):
    for number, case in enumerate(working(task)):
        check_run(recipes[task], tmp_path / str(number), case.settings)


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_work_is_refused_by_name_before_data_is_read(recipes, tmp_path, monkeypatch, name):
    monkeypatch.setattr("hf_maskattn.training.assembly.training_data", lambda *args: pytest.fail("data was read"))
    for case in CASES[name]:
        for task in TASKS:
            if task in case.works:
                continue
            with pytest.raises((ValueError, TypeError, OSError, ImportError), match=name) as caught:
                train(load_recipe(recipes[task], [*overrides(case.settings), f"training.output_dir={tmp_path / 'run'}"]))
            assert str(caught.value).endswith(".")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if any(case.needs for case in cases)])
def test_what_a_machine_lacks_is_said_before_data_is_read(recipes, tmp_path, monkeypatch, name):
    class DataWasReadError(Exception):
        pass

    def read(*args, **kwargs):
        raise DataWasReadError

    monkeypatch.setattr("hf_maskattn.training.assembly.training_data", read)
    for case in (case for case in CASES[name] if case.needs):
        recipe = load_recipe(recipes["single label"], [*overrides(case.settings), f"training.output_dir={tmp_path / 'run'}"])
        with pytest.raises((DataWasReadError, ValueError, ImportError)) as caught:
            train(recipe)
        assert caught.type is DataWasReadError or name in str(caught.value)


def test_the_guide_has_the_table(recipes):
    text = GUIDE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}." in text:  # other versions word their messages in other ways
        assert text == with_table(text, guide(recipes)), "python -m tests.training.argument_cases writes it"
    assert [name for name in CASES if f"| `{name}` |" not in text] == []
