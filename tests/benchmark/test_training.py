import sys

import pytest
import torch

from hf_maskattn.benchmark import classifiers, training
from hf_maskattn.benchmark.classifiers import WITHOUT_DROPOUT
from hf_maskattn.benchmark.profiling import PARTS, REST, STEP
from hf_maskattn.benchmark.training import labeled_batch, our_way, training_plans
from hf_maskattn.benchmark.ways import check
from hf_maskattn.recipes.recipe import load_recipe
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    """A small model and small batches."""
    monkeypatch.setattr(classifiers, "RECIPE", {**classifiers.RECIPE, "embedding_size": 6, "hidden_size": 8})
    monkeypatch.setattr(training, "BATCH_SIZE", 4)


def test_the_model_is_that_of_the_recipe(pytestconfig):
    recipe = load_recipe(pytestconfig.rootpath / "configs/language_identification.yaml")
    assert recipe.model.config == {
        name: value for name, value in classifiers.RECIPE.items() if name not in ("vocab_size", "num_labels")
    }
    assert recipe.data.vocab_size == classifiers.VOCAB_SIZE
    assert recipe.training["per_device_train_batch_size"] == training.BATCH_SIZE


def test_tokens_do_not_depend_on_the_padding():
    short, long = labeled_batch([2, 3], CPU), labeled_batch([2, 3], CPU, time=5)
    assert long.input_ids.shape == (2, 5)
    assert torch.equal(long.input_ids[:, :3], short.input_ids)
    assert long.attention_mask.sum() == (long.input_ids > 0).sum() == 5


def test_the_textbook_equals_ours(small):
    batches = [labeled_batch([5, 2, 1], CPU)]
    ways = [
        our_way("ours", batches, CPU, WITHOUT_DROPOUT),
        training._textbook_way(batches, WITHOUT_DROPOUT, CPU),
    ]
    assert_same_function(check(ways)["textbook"])
    assert {"loss", "gradient of maskattn.pooling.query"} <= ways[0].run().keys()
    assert check(ways)["textbook"].unequal, "ours is one step ahead"


def test_tables(small, setting, monkeypatch, values):
    monkeypatch.setitem(sys.modules, "keras", None)
    others, padding, shares = training_plans(setting)
    row = others.cases["random batches, no dropout"]()
    assert values(row)["ours"] > 0
    assert values(row)["textbook"] > 0
    assert_same_function(row.outcomes["textbook"])
    assert others.cases["random batches, dropout"]().outcomes["textbook"].difference is None
    assert row.outcomes["Keras 3"].value is None
    assert row.outcomes["Keras 3"].remark == "keras is not installed: pip install keras"
    near, far = padding.cases["without dropout"]().outcomes.values()
    assert_same_function(far)
    assert near.value > 0
    assert padding.cases["with dropout"]().outcomes["padded to 512"].difference is None
    found = values(shares.cases["random batches"]())
    assert list(found) == [STEP, *PARTS, REST]
    assert sum(found[name] for name in (*PARTS, REST)) == pytest.approx(found[STEP])
    assert all(value > 0 for value in found.values())
