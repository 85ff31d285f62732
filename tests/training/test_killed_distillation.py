"""A distillation that is killed in the pass of the teacher, or in training, ends with the bits of one that is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killed_runs import read_results
from tests.training.toy_recipe import write_recipe

PROBE = """
import os, signal, sys
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training import teacher_outputs
from hf_maskattn.training.teacher import Teacher
from hf_maskattn.training.train import train
from hf_maskattn.training.trainer import MaskAttnTrainer

recipe, resume, kill = sys.argv[1:]
teacher_outputs._ROWS_PER_SHARD = 8
owner, name, number = {
    "pass": (Teacher, "compute_logits", 4),
    "training": (MaskAttnTrainer, "training_step", 8),
    "never": (Teacher, "release", 1000),
}[kill]
inner, calls = getattr(owner, name), []

def counted(*args, **kwargs):
    calls.append(name)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args, **kwargs)

setattr(owner, name, counted)
passes, compute = [], Teacher.compute_logits
Teacher.compute_logits = lambda *args: (passes.append(len(args[1])), compute(*args))[1]
train(load_recipe(recipe), resume=resume == "resume")
print(sum(passes))
"""


def attempt(recipe, resume, kill):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HOME": str(recipe.parent / "home"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", PROBE, str(recipe), resume, kill]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_distillation_ends_like_an_uninterrupted_one(tmp_path, pet_teacher):
    ends, rows_read = {}, {}
    for kill in ("never", "pass", "training"):
        (tmp_path / kill).mkdir()
        recipe = write_recipe(
            tmp_path / kill,
            model={"hidden_dropout_prob": 0.3},
            data={"augmentation": 1},
            training={"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 3, "num_train_epochs": 2},
            teacher={"model": pet_teacher, "batch_size": 4},
        )
        done = attempt(recipe, "new", kill)
        if kill != "never":
            assert done.returncode == -9, done.stderr
            done = attempt(recipe, "resume", "never")
        assert done.returncode == 0, done.stderr
        rows_read[kill] = int(done.stdout.splitlines()[-1])
        ends[kill] = read_results(tmp_path / kill / "run")
    assert ends["pass"] == ends["never"]
    assert ends["training"] == ends["never"]
    # One shard was complete in the killed pass; after a kill in training only validation and test are read.
    assert rows_read["pass"] == rows_read["never"] - 8
    assert rows_read["training"] == 24
