import json
import os

import pytest
import torch
from safetensors.torch import load_file

from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.distributed.conftest import ACCUMULATED, DROPPED, RUNS, STEPS_PER_EPOCH, STOPPED_AT, STOPPED_IN_ONE, STOPPED_IN_TWO
from tests.tolerances import MANY_STEPS, TRAINED

pytestmark = pytest.mark.multiprocess

SPLITS = ("validation", "test")
TIMES = ("runtime", "samples_per_second")
TEACHER = ("teacher_accuracy", "teacher_macro_f1", "agreement")
TAUGHT = "a teacher"


def history(folder, name):
    state = json.loads((folder / "trainer_state.json").read_text())
    return [entry[name] for entry in state["log_history"] if name in entry]


def scores(metrics):
    return {(split, name): value for split in SPLITS for name, value in metrics[split].items() if name not in TIMES + TEACHER}


def written_scores(folder):
    return scores(json.loads((folder / "metrics.json").read_text())["metrics"])


def assert_same_weights(folder, other):
    found, expected = (load_file(path / "model.safetensors") for path in (folder, other))
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, atol=TRAINED, rtol=0)


def test_interrupt_of_one_process_ends_all(launched):
    assert launched.exit_code != 0
    assert launched.output.count("Stopped. The checkpoint is") == 1
    assert "To resume: launch the command again with --resume" in launched.output
    assert "exitcode  : 130" in launched.output
    assert "Traceback" not in launched.output.partition("Stopped. ")[0], launched.output


def test_no_warnings_about_unused_parameters_or_strides(launched):
    assert "find_unused_parameters" not in launched.output
    assert "Grad strides" not in launched.output


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_have_the_loss_curve_of_one(launched, run):
    one, two = launched.run(run, 1), launched.run(run, 2)
    others = {ACCUMULATED: STEPS_PER_EPOCH + 1, DROPPED: 2 * (STEPS_PER_EPOCH - 1), TAUGHT: 2 * (STEPS_PER_EPOCH + 1)}
    steps = others.get(run, 2 * STEPS_PER_EPOCH)
    for name in ("loss", "grad_norm"):
        curve = history(one, name)
        assert len(curve) == steps
        assert history(two, name) == pytest.approx(curve, abs=TRAINED)
    assert curve[0] != pytest.approx(curve[-1], abs=1e-3)
    assert_same_weights(two, one)


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_have_the_metrics_of_one(launched, run):
    expected = scores(launched.reports[run].metrics)
    assert len(expected) >= 2 * len(SPLITS)
    assert written_scores(launched.run(run, 2)) == pytest.approx(expected, abs=TRAINED)
    for name in {f"eval_{name}" for _, name in expected}:
        assert history(launched.run(run, 2), name) == pytest.approx(history(launched.run(run, 1), name), abs=TRAINED)


@pytest.mark.parametrize("run", RUNS)
def test_model_of_two_processes_loads_in_one(launched, run):
    folder = launched.run(run, 2)
    recipe = load_recipe(folder / "recipe.yaml")
    found = evaluate(folder, recipe, "test").metrics["test"]
    expected = {name: value for (split, name), value in written_scores(folder).items() if split == "test"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=MANY_STEPS)


def test_only_random_states_are_saved_by_each_process(launched):
    one, two = (
        {str(path.relative_to(folder)) for path in folder.rglob("*")}
        for folder in (launched.run("spans", 1), launched.run("spans", 2))
    )
    checkpoints = {name for name in one if name.startswith("checkpoint-") and "/" not in name}  # the best one and the last
    assert f"checkpoint-{2 * STEPS_PER_EPOCH}" in checkpoints
    assert two - one == {f"{checkpoint}/rng_state_{rank}.pth" for checkpoint in checkpoints for rank in (0, 1)}
    assert {os.path.basename(path) for path in one - two} == {"rng_state.pth"}


def test_one_process_resumes_an_interrupted_run_of_two(launched):
    stopped = launched.run(STOPPED_IN_TWO, 2)
    assert [path.name for path in stopped.glob("checkpoint-*")] == [f"checkpoint-{STEPS_PER_EPOCH}", f"checkpoint-{STOPPED_AT}"]
    stopped.rename(launched.run(STOPPED_IN_TWO, 1))
    report = train(launched.recipe(STOPPED_IN_TWO, "spans"), resume=True)
    assert scores(report.metrics) == pytest.approx(scores(launched.reports["spans"].metrics), abs=TRAINED)
    assert_same_weights(report.model_folder, launched.run("spans", 1))


def test_two_processes_resume_an_interrupted_run_of_one(launched):
    resumed = launched.run(STOPPED_IN_ONE, 2)
    assert f"Resuming from {resumed / f'checkpoint-{STOPPED_AT}'}" in launched.output
    assert written_scores(resumed) == pytest.approx(scores(launched.reports["spans"].metrics), abs=TRAINED)
    assert_same_weights(resumed, launched.run("spans", 1))
    assert history(resumed, "loss") == pytest.approx(history(launched.run("spans", 1), "loss"), abs=TRAINED)
