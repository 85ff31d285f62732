import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from tests.distributed.shard_models import CASES, HEADS

MODELS = {**{name: HEADS[name.partition("-")[0]] for name in CASES}, "by_accelerate": AutoModelForMaskedLM}


@pytest.mark.parametrize("name", MODELS)
def test_a_sharded_model_trains_as_a_whole_one_and_loads_in_one_process(launched, name):
    folder = launched.folder / "sharded" / name
    weights = MODELS[name].from_pretrained(folder).state_dict()
    expected = load_file(folder / "expected.safetensors")
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, atol=1e-4, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_a_model_sharded_by_its_configuration_is_saved_whole(launched):
    folder = launched.folder / "sharded"
    before, after = (
        AutoModelForTokenClassification.from_pretrained(folder / name).state_dict()
        for name in ("token-lstm", "by_transformers")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["token-lstm", "by_accelerate", "by_transformers"])
def test_a_sharded_model_carries_its_own_code(launched, name):
    folder = launched.folder / "sharded" / name
    assert (folder / "modeling_maskattn.py").is_file()
    assert not list(folder.glob("_fsdp*.py"))
    assert "FSDP" not in (folder / "config.json").read_text()
