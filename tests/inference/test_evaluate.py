import json
import logging

import pytest
from transformers import AutoModelForSequenceClassification

from hf_maskattn.hub.publication_files import copy_published_files
from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.inference.predict import predict
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.training.toy_recipe import write_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    path = write_recipe(folder, training={"num_train_epochs": 1})
    train(load_recipe(path))
    return folder / "run", path


def test_run_folder_holds_model_code_once(trained, tmp_path):
    folder, _ = trained
    code = {path.name for path in folder.glob("*.py")}
    assert {"configuration_maskattn.py", "modeling_maskattn.py"} <= code
    (checkpoint,) = folder.glob("checkpoint-*")
    assert list(checkpoint.glob("*.py")) == []
    assert type(AutoModelForSequenceClassification.from_pretrained(checkpoint)).__module__.startswith("hf_maskattn.")
    assert [result["text"] for result in predict(checkpoint, ["meow"])] == ["meow"]
    copy_published_files(checkpoint, tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == code


def test_evaluate_needs_only_data_of_split(trained):
    folder, path = trained
    recipe = load_recipe(path, ["data.train_file=", "data.validation_file="])
    assert evaluate(folder, recipe).metrics["test"]["accuracy"] >= 0


def test_evaluate_writes_nothing(trained, tmp_path):
    folder, path = trained
    before = sorted(item.name for item in folder.iterdir())
    evaluate(folder, load_recipe(path, [f"training.output_dir={tmp_path / 'elsewhere'}"]))
    assert sorted(item.name for item in folder.iterdir()) == before
    assert not (tmp_path / "elsewhere").exists()


def test_evaluate_split_cut_from_train_split(tmp_path):
    path = write_recipe(tmp_path, data={"validation_file": None, "validation_fraction": 0.25})
    report = train(load_recipe(path))
    again = evaluate(tmp_path / "run", load_recipe(path), "validation").metrics["validation"]
    assert again["loss"] == report.metrics["validation"]["loss"]


def test_evaluate_names_missing_split(trained):
    folder, path = trained
    words = r"^the recipe has no test split\. Set data\.test_file or data\.test_split\. The recipe has a {0} split, "
    for split, overrides in (
        ("validation", []),
        ("validation", ["data.validation_file=", "data.validation_fraction=0.25"]),
        ("train", ["data.validation_file="]),
    ):
        with pytest.raises(ValueError, match=words.format(split) + rf"which --split {split} selects\.$"):
            evaluate(folder, load_recipe(path, ["data.test_file=", *overrides]))


@pytest.mark.parametrize(
    "settings", [{"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 2, "return_dict_in_generate": True}]
)
def test_evaluate_scores_one_text_a_row(tmp_path, settings):
    path = write_recipe(tmp_path, "text2text-generation", training={"num_train_epochs": 1})
    train(load_recipe(path))
    stored = tmp_path / "run" / "generation_config.json"
    values = json.loads(stored.read_text())
    beams = {name: value for name, value in settings.items() if name == "num_beams"}
    stored.write_text(json.dumps({**values, **beams}))
    expected = evaluate(tmp_path / "run", load_recipe(path)).metrics["test"]
    stored.write_text(json.dumps({**values, **settings, "do_sample": False}))
    found = evaluate(tmp_path / "run", load_recipe(path)).metrics["test"]
    assert {**found, "runtime": 0, "samples_per_second": 0} == {**expected, "runtime": 0, "samples_per_second": 0}


def test_errors_file_needs_predictions(trained, tmp_path):
    folder, path = trained
    recipe = load_recipe(path, ["training.prediction_loss_only=true"])
    with pytest.raises(ValueError, match=r"errors_file must be None with training\.prediction_loss_only=true"):
        evaluate(folder, recipe, errors_file=str(tmp_path / "errors.jsonl"))
    assert {"loss", "runtime"} < evaluate(folder, recipe).metrics["test"].keys()


def test_evaluate_rejects_model_of_other_task(trained, tmp_path):
    folder, _ = trained
    recipe = load_recipe(write_recipe(tmp_path, "token-classification"))
    with pytest.raises(ValueError, match=r"a MaskAttnForSequenceClassification, got model\.task=token-"):
        evaluate(folder, recipe)


def test_evaluate_names_unknown_labels(trained, tmp_path, caplog):
    folder, _ = trained
    path = write_recipe(tmp_path, make=lambda row: {**row, "label": row["label"].replace("dog", "bird")})
    with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
        report = evaluate(folder, load_recipe(path))
    assert any("bird" in record.getMessage() for record in caplog.records)
    assert report.metrics["test"]["accuracy"] < 0.9


def test_evaluate_ignores_training_settings(trained):
    folder, path = trained
    expected = evaluate(folder, load_recipe(path)).metrics["test"]
    overrides = ["dataloader_drop_last=true", "per_device_train_batch_size=1000", "batch_eval_metrics=true", "fsdp=full_shard"]
    found = evaluate(folder, load_recipe(path, [f"training.{override}" for override in overrides])).metrics["test"]
    assert {name: found[name] for name in ("loss", "accuracy", "macro_f1")} == {
        name: expected[name] for name in ("loss", "accuracy", "macro_f1")
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.per_device_eval_batch_size=0", r"training\.per_device_eval_batch_size must be at least 1, got 0\."),
        ("training.fp16=true", r"training\.fp16=true has no effect on CPUs"),
        ("training.log_level=loud", r"training\.log_level must be one of"),
    ],
)
def test_evaluate_checks_settings_before_reading_data(trained, monkeypatch, override, message):
    folder, path = trained
    monkeypatch.setattr("hf_maskattn.inference.evaluate.evaluation_data", lambda *args: pytest.fail("data was read"))
    with pytest.raises(ValueError, match=message):
        evaluate(folder, load_recipe(path, [override]))
