import json
import shutil
import sys

import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.cli.conftest import assert_error, run
from tests.tolerances import MANY_STEPS
from tests.training.toy_recipe import write_recipe

TEXTS = ["meow paw", "woof tail bark", " ", "paw", "purr " * 40]


MODELS = {
    "classifier": ("text-classification", {}),
    "tagger": ("token-classification", {"rnn_type": "gru", "bidirectional": False}),
    "tagger with a CRF": ("token-classification", {"use_crf": True}),
}


@pytest.fixture(
    scope="module",
    params=["classifier", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "classifier")],
)
def exported_model(request, tmp_path_factory):
    """A trained model, its file, and what the export said."""
    folder = tmp_path_factory.mktemp("made")
    task, settings = MODELS[request.param]
    train(load_recipe(write_recipe(folder, task, model=settings, training={"num_train_epochs": 8, "learning_rate": 0.03})))
    result = run("export", folder / "run", "--onnx", folder / "model.onnx")
    assert result.exit_code == 0, result.stderr
    return folder / "run", folder / "model.onnx", result


def predictions(*arguments):
    result = run("predict", *arguments, "--batch-size", 3, *(part for text in TEXTS for part in ("--text", text)))
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_export_prints_differences_and_use(exported_model):
    folder, path, result = exported_model
    assert "│ 4 x 37       │ holes         │ " in result.stdout
    assert "│ 5 x 8        │ an empty row  │ " in result.stdout
    assert f"ONNX file: {path}, " in result.stdout
    assert f"hf-maskattn predict {folder} --onnx {path} --text TEXT" in result.stdout
    assert "Warning" not in result.stdout + result.stderr


def test_onnx_predictions_equal_model(exported_model):
    folder, path, _ = exported_model
    expected, found = predictions(folder), predictions(folder, "--onnx", path)
    assert [line["text"] for line in found] == TEXTS
    assert found[2]["predictions"] == []
    for one, other in zip(found, expected, strict=True):
        scores = [[item.pop("score") for item in line["predictions"]] for line in (one, other)]
        assert one == other
        assert scores[0] == pytest.approx(scores[1], abs=MANY_STEPS)
    assert found[0]["predictions"]


def test_int8_reports_equal_predictions(exported_model, tmp_path, monkeypatch):
    folder, path, _ = exported_model
    monkeypatch.setattr(
        "hf_maskattn.inference.export.write_onnx", lambda model, target, contributions: shutil.copy(path, target)
    )
    (tmp_path / "texts").write_text("\n".join(TEXTS), encoding="utf-8")
    result = run("export", folder, "--onnx", tmp_path / "int8.onnx", "--int8", "--text-file", tmp_path / "texts")
    assert result.exit_code == 0, result.stderr
    assert "MB with 8-bit integers, " in result.stdout
    assert "Equal predictions with 8-bit integers: " in result.stdout
    assert "Logits differ by up to " in result.stdout
    assert predictions(folder, "--onnx", tmp_path / "int8.onnx")[0]["predictions"]


def test_export_errors_are_one_line(exported_model, tmp_path):
    folder, path, _ = exported_model
    (tmp_path / "texts").write_text("a\n", encoding="utf-8")
    (tmp_path / "text.onnx").write_text("no graph", encoding="utf-8")
    for arguments, message in {
        ("export", tmp_path / "no-model", "--onnx", tmp_path / "a"): "no-model' is not a folder and",
        ("export", folder, "--onnx", path): "exists. Replace it with --overwrite",
        ("export", folder, "--onnx", tmp_path / "no" / "a.onnx"): "does not exist. Create it",
        ("export", folder, "--onnx", tmp_path / "a", "--int8"): "--int8 needs --text-file FILE",
        ("export", folder, "--onnx", tmp_path / "a", "--text-file", tmp_path / "texts"): "is used with --int8 only",
        ("predict", folder, "--text", "a", "--onnx", tmp_path / "nowhere.onnx"): "nowhere.onnx does not exist",
        ("predict", folder, "--text", "a", "--onnx", tmp_path / "text.onnx"): "could not be loaded by onnxruntime",
    }.items():
        assert_error(run(*arguments), message)


def test_missing_extra_is_named(exported_model, tmp_path, monkeypatch):
    names = [name for name in sys.modules if name.startswith(("hf_maskattn.onnx", "hf_maskattn.inference.export"))]
    for package, _, module in (name.rpartition(".") for name in names):
        monkeypatch.setattr(sys.modules[package], module, getattr(sys.modules[package], module))  # an import sets it again
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = run("export", exported_model[0], "--onnx", tmp_path / "a.onnx")
    assert_error(result, 'Export to ONNX needs onnxscript. Install it: pip install "hf-maskattn[onnx] @ git+https')
