import importlib
import sys

import pytest

from hf_maskattn.data.tokenizers import load_tokenizer, train_tokenizer
from hf_maskattn.deprecated_modules import MOVED
from hf_maskattn.inference.predict import predict
from hf_maskattn.metrics.classification import SingleLabelMetric
from hf_maskattn.recipes.recipe import load_recipe, read_recipe


@pytest.mark.parametrize("name", MOVED)
def test_old_module_warns_and_exists(name):
    sys.modules.pop(name, None)
    with pytest.warns(FutureWarning, match=f"{name} is deprecated. Use {MOVED[name]}."):
        importlib.import_module(name)
    importlib.import_module(MOVED[name])


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("hf_maskattn.data.tokenizer_training", "train_tokenizer", train_tokenizer),
        ("hf_maskattn.data.tokenizer_loading", "load_tokenizer", load_tokenizer),
        ("hf_maskattn.training.predict", "predict", predict),
        ("hf_maskattn.evaluation.single_label", "SingleLabelMetric", SingleLabelMetric),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_old_module_has_the_new_object(module, name, expected):
    assert getattr(importlib.import_module(module), name) is expected
    with pytest.raises(AttributeError):
        importlib.import_module(module).nothing  # noqa: B018


def test_read_recipe_is_load_recipe(pytestconfig):
    path = pytestconfig.rootpath / "configs/date_fields.yaml"
    with pytest.warns(FutureWarning, match="read_recipe is deprecated. Use load_recipe."):
        assert read_recipe(path) == load_recipe(path)


@pytest.mark.parametrize(
    ("module", "name", "current"),
    [("hf_maskattn.inference.export", "export", "export_onnx"), ("hf_maskattn.onnx.export", "export_onnx", "write_onnx")],
)
def test_renamed_export_forwards(monkeypatch, module, name, current):
    module = importlib.import_module(module)
    monkeypatch.setattr(module, current, lambda *args: ("forwarded", *args))
    with pytest.warns(FutureWarning, match=f"{name} is deprecated. Use {current}."):
        result = getattr(module, name)("model", "path")
    assert result in (("forwarded", "model", "path"), None)
