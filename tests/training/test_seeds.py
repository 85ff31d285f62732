import json
import os
import statistics

import pytest

from hf_maskattn.training import train as train_module
from hf_maskattn.training.callbacks import KeepTrackOfBest
from hf_maskattn.training.train import train
from tests.training.toy_recipe import load_toy

ONE_EPOCH = "training.num_train_epochs=1"
SEEDS = "training.seeds=[3, 1]"


def read(tmp_path, *overrides, **groups):
    return load_toy(tmp_path, ONE_EPOCH, *overrides, **groups)


def test_seeds_are_trained_and_summarized(tmp_path):
    report = train(read(tmp_path, SEEDS))
    folder = tmp_path / "run"
    assert sorted(os.listdir(folder)) == ["recipe.yaml", "seed-1", "seed-3", "seeds.json"]
    written = json.loads((folder / "seeds.json").read_text())
    scores = [written["seeds"][seed]["test"]["loss"] for seed in ("3", "1")]
    assert written["mean"]["test"]["loss"] == statistics.mean(scores)
    assert written["sample_standard_deviation"]["test"]["loss"] == statistics.stdev(scores)
    assert written["best"]["metric"] == "accuracy"
    best = max((3, 1), key=lambda seed: written["seeds"][str(seed)]["validation"]["accuracy"])
    assert written["best"]["seed"] == report.seeds.best == best
    assert report.model_folder == folder / f"seed-{best}"
    assert report.metrics == report.seeds.metrics[best]


@pytest.mark.slow
def test_seed_of_several_gives_the_run_of_one(tmp_path):
    several = train(read(tmp_path, SEEDS)).seeds.metrics
    alone = train(read(tmp_path, "training.seed=3", f"training.output_dir={tmp_path / 'alone'}"))
    assert alone.metrics["test"]["loss"] == several[3]["test"]["loss"]


@pytest.mark.slow
def test_resumed_seeds_keep_those_that_are_finished(tmp_path, monkeypatch):
    class Interrupting(KeepTrackOfBest):
        def on_step_begin(self, args, state, control, **kwargs):
            if args.seed == 1 and state.global_step == 7:
                raise KeyboardInterrupt

    recipe = load_toy(tmp_path, SEEDS)
    monkeypatch.setattr(train_module, "KeepTrackOfBest", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    monkeypatch.undo()
    finished = (tmp_path / "run" / "seed-3" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ValueError, match="must be an empty folder"):
        train(recipe)
    train(load_toy(tmp_path, "training.seeds=[3, 1, 2]"), resume=True)
    assert (tmp_path / "run" / "seed-3" / "model.safetensors").stat().st_mtime_ns == finished
    assert [*json.loads((tmp_path / "run" / "seeds.json").read_text())["seeds"]] == ["3", "1", "2"]
    train(load_toy(tmp_path, "training.seeds=[3, 5]"), overwrite=True)
    assert sorted(os.listdir(tmp_path / "run")) == ["recipe.yaml", "seed-3", "seed-5", "seeds.json"]
    with pytest.raises(ValueError, match=r"has runs of several seeds\. Set training\.seeds"):
        train(load_toy(tmp_path), overwrite=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.seeds=[0]"], r"^training\.seeds must be a list of at least two different seeds .*, got \[0\]\."),
        (["training.seeds=[0, 0]"], r"^training\.seeds must be a list of at least two different seeds"),
        (["training.seeds=[0, -1]"], r"^training\.seeds must be a list of at least two different seeds"),
        ([SEEDS, "training.push_to_hub=true"], r"^training\.push_to_hub=true is not supported .*hf-maskattn push FOLDER"),
        ([SEEDS, "training.fp16=true"], r"^training\.fp16=true has no effect on CPUs"),
        ([SEEDS, "data.text_column=nothing"], "nothing"),
    ],
)
def test_seeds_that_cannot_be_trained_raise(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(read(tmp_path, *settings))
    assert not (tmp_path / "run").exists()


def test_override_replaces_the_seed_of_the_file(tmp_path):
    recipe = read(tmp_path, SEEDS, training={"seed": 0})
    assert (recipe.training.get("seed"), recipe.training["seeds"]) == (None, [3, 1])
    recipe = read(tmp_path, "training.seed=2", training={"seeds": [0, 1]})
    assert (recipe.training["seed"], recipe.training.get("seeds")) == (2, None)


def test_file_with_seed_and_seeds_raises(tmp_path):
    with pytest.raises(ValueError, match=r"^training\.seed=0 and training\.seeds=\[3, 1\] are mutually exclusive"):
        train(read(tmp_path, training={"seed": 0, "seeds": [3, 1]}))
    assert not (tmp_path / "run").exists()


def test_folder_of_one_seed_is_not_used_for_several(tmp_path):
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(ValueError, match="has a run with one seed"):
        train(read(tmp_path, SEEDS), overwrite=True)
