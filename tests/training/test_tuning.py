import logging

import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training import tuning
from hf_maskattn.training.train import train
from hf_maskattn.training.tuning import tune
from tests.training.toy_recipe import load_toy

pytest.importorskip("optuna")

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 5e-2, "log": True},
    "training.label_smoothing_factor": [0.0, 0.1],
    "model.hidden_size": [4, 8],
}


def read(tmp_path, *overrides, space=SPACE, trials=2, **groups):
    return load_toy(tmp_path, *overrides, tuning={"trials": trials, "space": space}, **groups)


@pytest.mark.slow
def test_best_recipe_gives_the_score_of_its_trial(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        report = tune(read(tmp_path, training={"num_train_epochs": 1}))
    assert report.trials[0].values == {
        "training.learning_rate": 1e-2,
        "training.label_smoothing_factor": 0.0,
        "model.hidden_size": 8,
    }
    assert report.best.score == max(trial.score for trial in report.trials)
    assert sorted(path.name for path in (tmp_path / "run-tuning").iterdir()) == ["best.yaml", "recipe.yaml", "trials.db"]
    assert not (tmp_path / "run").exists()
    lines = [record.message for record in caplog.records if record.message.startswith("Trial ")]
    assert lines[0].startswith("Trial 1 of 2: hidden_size=8, label_smoothing_factor=0, learning_rate=0.01: accuracy ")
    again = train(load_recipe(report.recipe))
    assert again.model_folder == tmp_path / "run-tuned"
    assert again.metrics["validation"]["accuracy"] == report.best.score


@pytest.mark.slow
def test_killed_search_resumes_as_one_that_was_not(tmp_path, monkeypatch):
    recipe = read(tmp_path, trials=4, training={"num_train_epochs": 1})
    expected = tune(recipe, output=tmp_path / "whole").trials
    assemble, calls = tuning.assemble, []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return assemble(*args, **kwargs)

    monkeypatch.setattr(tuning, "assemble", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, output=tmp_path / "killed")
    with pytest.raises(ValueError, match=r"must be an empty folder, got .*Continue the search in it with --resume\."):
        tune(recipe, output=tmp_path / "killed")
    trials = tune(recipe, output=tmp_path / "killed", resume=True).trials
    assert [(trial.values, trial.score) for trial in trials] == [(trial.values, trial.score) for trial in expected]
    longer = tune(recipe, trials=5, output=tmp_path / "killed", resume=True)
    assert len(longer.trials) == 5


@pytest.mark.slow
def test_data_is_loaded_once_unless_its_keys_vary(tmp_path, monkeypatch):
    loaded, training_data = [], tuning.training_data

    def load(recipe, seed):
        loaded.append(recipe.data.vocab_size)
        return training_data(recipe, seed)

    monkeypatch.setattr(tuning, "training_data", load)
    recipe = read(tmp_path, trials=3, training={"num_train_epochs": 1})
    tune(recipe)
    assert loaded == [40]
    space = {"data.vocab_size": [20, 40]}
    varied = read(tmp_path, space=space, trials=3, training={"num_train_epochs": 1})
    sizes = [trial.values["data.vocab_size"] for trial in tune(varied, output=tmp_path / "varied").trials]
    assert set(loaded[1:]) == set(sizes)


@pytest.mark.slow
def test_impossible_trial_is_reported_and_the_search_goes_on(tmp_path):
    space = {"model.num_attention_heads": [1, 3]}
    report = tune(read(tmp_path, space=space, trials=4, training={"num_train_epochs": 1}))
    failed = [trial for trial in report.trials if trial.state == "failed"]
    assert failed
    assert all(trial.note.startswith("model.num_attention_heads must divide") and trial.score is None for trial in failed)
    assert report.best.values == {"model.num_attention_heads": 1}


@pytest.mark.slow
def test_search_without_possible_trials_raises(tmp_path):
    space = {"model.num_attention_heads": [3, 5]}
    with pytest.raises(ValueError, match=r"^no trial was possible\. The last one: model\.num_attention_heads must divide"):
        tune(read(tmp_path, space=space))


def test_search_is_not_resumed_with_another_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning._Search, "run", lambda *args: None)
    monkeypatch.setattr(tuning._Search, "report", lambda *args: None)
    tune(read(tmp_path))
    with pytest.raises(ValueError, match=r"^training\.num_train_epochs must be 2, as in the search in .*, got 3"):
        tune(read(tmp_path, "training.num_train_epochs=3"), resume=True)
    with pytest.raises(ValueError, match=r"^tuning\.space must be .*as in the search in"):
        tune(read(tmp_path, space={"model.hidden_size": [4, 8]}), resume=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.validation_file=", r"^tune needs a validation split"),
        ("training.eval_strategy=no", r"^tune needs evaluations during training"),
        ("training.fp16=true", r"^training\.fp16=true has no effect on CPUs"),
    ],
)
def test_recipe_that_cannot_be_tuned_raises(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        tune(read(tmp_path, setting))
    assert not (tmp_path / "run-tuning").exists()
