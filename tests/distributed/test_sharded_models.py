import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from tests.distributed.shard_models import CASES
from tests.tolerances import MANY_STEPS, TRAINED

pytestmark = pytest.mark.multiprocess

MODELS = {**{name: auto_class for name, (auto_class, *_) in CASES.items()}, "by_accelerate": AutoModelForMaskedLM}


@pytest.mark.parametrize("name", MODELS)
def test_sharded_model_trains_like_an_unsharded_one(launched, name):
    folder = launched.folder / "sharded" / name
    weights = MODELS[name].from_pretrained(folder).state_dict()
    expected = load_file(folder / "expected.safetensors")
    assert weights.keys() == expected.keys()
    torch.testing.assert_close(weights, expected, atol=TRAINED, rtol=0)


def test_model_sharded_by_its_config_is_saved_unsharded(launched):
    folder = launched.folder / "sharded"
    before, after = (
        AutoModelForTokenClassification.from_pretrained(folder / name).state_dict()
        for name in ("token-lstm", "by_transformers")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_new_layer_of_a_sharded_model_is_initialized(launched):
    folder = launched.folder / "sharded" / "with_a_new_layer"
    rnn = AutoModelForTokenClassification.from_pretrained(folder).maskattn.recurrence.layers[2].forward_rnn
    for gate in rnn.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4), atol=MANY_STEPS, rtol=0)
    assert (rnn.bias_ih_l0 + rnn.bias_hh_l0).tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize("name", ["token-lstm", "by_accelerate", "by_transformers"])
def test_sharded_model_is_saved_with_its_code(launched, name):
    folder = launched.folder / "sharded" / name
    assert (folder / "modeling_recurrent.py").is_file()
    assert not list(folder.glob("_fsdp*.py"))
    assert "FSDP" not in (folder / "config.json").read_text()
