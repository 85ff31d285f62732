"""Every field of `TrainingArguments` works for a task, or raises an error with its name before data is loaded."""

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
from hf_maskattn.training.trainer import MaskAttnTrainer
from tests.training.argument_cases import (
    CASES,
    GUIDE,
    TASKS,
    Case,
    fields_without_case,
    guide,
    overrides,
    with_table,
    write_toys,
)
from tests.training.toy_recipe import SIZES

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return write_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(autouse=True)
def _restore_global_settings(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    verbosity = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(verbosity)
    torch.use_deterministic_algorithms(False)


def merge(cases: Iterable[Case]) -> list[Case]:
    """Merge cases that set different fields, so that they need few runs."""
    groups: list[dict] = []
    for case in cases:
        free = next((group for group in groups if not group.keys() & case.settings.keys()), None)
        if free is None:
            groups.append(dict(case.settings))
        else:
            free.update(case.settings)
    return [Case(group) for group in groups]


def working(task: str, *, dealt: bool = False) -> list[Case]:
    """Return the cases that work for a task. If they are dealt, each case is returned for one task only."""
    cases = [case for cases in CASES.values() for case in cases if case.works and not case.needs]
    if dealt:
        return [case for number, case in enumerate(cases) if case.works[number % len(case.works)] == task]
    return [case for case in cases if task in case.works]


def check_run(recipe: Path, folder: Path, settings: dict) -> None:
    """Train, and check that there was a step, each row was evaluated, and the weights are in float32."""
    scored = []
    evaluation_loop = MaskAttnTrainer.evaluation_loop

    def loop(self, *args, **kwargs):
        scored.append(evaluation_loop(self, *args, **kwargs))
        return scored[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskAttnTrainer, "evaluation_loop", loop)
        metrics = train(load_recipe(recipe, [*overrides(settings), f"training.output_dir={folder}"])).metrics
    assert metrics["train"]["steps"] >= 1, settings
    for output in scored:
        assert output.num_samples == SIZES["test"]
        predictions = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions  # and their scores
        assert settings.get("prediction_loss_only") or len(predictions) == SIZES["test"]
    assert {"loss", "runtime"} < metrics["test"].keys()
    assert metrics["test"]["loss"] == metrics["test"]["loss"]  # not NaN
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_every_field_has_a_case():
    assert not fields_without_case(), "add cases for these fields to tests/training/argument_cases.py"
    assert FIXED.keys() <= CASES.keys()
    assert not [name for name in NOT_IN_A_RECIPE["training"] if any(case.works for case in CASES.get(name, ()))]


@pytest.mark.slow
@pytest.mark.parametrize("dealt", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_fields_work_together(recipes, tmp_path, task, dealt):
    cases = [case for case in working(task, dealt=dealt) if not case.slow]
    runs = [*merge(case for case in cases if not case.alone), *(case for case in cases if case.alone)]
    for number, case in enumerate(runs):
        check_run(recipes[task], tmp_path / str(number), case.settings)


@pytest.mark.slow
# torch.compile reads the gradients of tensors that are not leaves. With torch 2.8 it also instantiates autograd functions.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not:DeprecationWarning")
@pytest.mark.parametrize("task", TASKS)
def test_each_field_works_alone(recipes, tmp_path, task):
    for number, case in enumerate(working(task, dealt=True)):
        check_run(recipes[task], tmp_path / str(number), case.settings)


@pytest.mark.parametrize("name", CASES)
def test_unsupported_field_raises_before_data_is_loaded(recipes, tmp_path, monkeypatch, name):
    monkeypatch.setattr("hf_maskattn.training.assembly.training_data", lambda *args: pytest.fail("data was loaded"))
    for case in CASES[name]:
        for task in TASKS:
            if task in case.works:
                continue
            with pytest.raises((ValueError, TypeError, OSError, ImportError), match=name) as caught:
                train(load_recipe(recipes[task], [*overrides(case.settings), f"training.output_dir={tmp_path / 'run'}"]))
            assert str(caught.value).endswith(".")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if any(case.needs for case in cases)])
def test_missing_package_raises_before_data_is_loaded(recipes, tmp_path, monkeypatch, name):
    class DataLoadedError(Exception):
        pass

    def read(*args, **kwargs):
        raise DataLoadedError

    monkeypatch.setattr("hf_maskattn.training.assembly.training_data", read)
    for case in (case for case in CASES[name] if case.needs):
        recipe = load_recipe(recipes["single label"], [*overrides(case.settings), f"training.output_dir={tmp_path / 'run'}"])
        with pytest.raises((DataLoadedError, ValueError, ImportError)) as caught:
            train(recipe)
        assert caught.type is DataLoadedError or name in str(caught.value)


def test_guide_is_up_to_date(recipes):
    text = GUIDE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}." in text:  # messages depend on the version
        assert text == with_table(text, guide(recipes)), "python -m tests.training.argument_cases writes it"
    assert [name for name in CASES if f"| `{name}` |" not in text] == []
