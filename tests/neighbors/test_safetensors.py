"""safetensors: weights that share a storage, as for cuDNN, are saved separately, and nothing is pickled."""

import pytest
import torch
from safetensors.torch import load_file, load_model, save_model
from transformers import Trainer, TrainingArguments

from tests.heads import HEADS, build_head
from tests.shared_storage import share_storage

IDS, MASK = torch.arange(1, 11).view(2, 5), torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture
def build_sharing(tiny_config):
    """Builds models whose weights share a storage in each layer and direction."""

    def build(head, rnn_type):
        model = build_head(head, tiny_config, rnn_type=rnn_type, num_hidden_layers=2).eval()
        share_storage(model)
        return model

    return build


@torch.no_grad()
def outputs(model):
    return model(IDS, MASK)[0]


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("head", HEADS)
def test_weights_are_saved_once_and_load_equal(build_sharing, tmp_path, head, rnn_type):
    model = build_sharing(head, rnn_type)
    tied = {"lm_head.decoder.weight"} if head == "MaskAttnForMaskedLM" else set()
    for folder, shard in ((tmp_path / "single", "50GB"), (tmp_path / "parts", "2KB")):
        model.save_pretrained(folder, max_shard_size=shard)
        files = list(folder.glob("*.safetensors"))
        assert (len(files) > 1) == (shard == "2KB")
        assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".py"}
        saved = {name: value for file in files for name, value in load_file(file).items()}
        assert saved.keys() == model.state_dict().keys() - tied
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in saved.items())
        payload = sum(value.numel() * value.element_size() for value in saved.values())
        assert sum(file.stat().st_size for file in files) < payload + 4000 * len(files)  # headers, but no shared buffer
        assert torch.equal(outputs(type(model).from_pretrained(folder)), outputs(model))


def test_trainer_and_safetensors_save_shared_storage(build_sharing, tmp_path):
    model = build_sharing("MaskAttnForMaskedLM", "lstm")
    trainer = Trainer(model, TrainingArguments(str(tmp_path / "run"), report_to="none", use_cpu=True))
    trainer.save_model()
    assert torch.equal(outputs(type(model).from_pretrained(tmp_path / "run")), outputs(model))
    save_model(model, str(tmp_path / "plain.safetensors"))
    other = type(model)(model.config).eval()
    load_model(other, str(tmp_path / "plain.safetensors"))
    assert torch.equal(outputs(other), outputs(model))


def test_safe_serialization_cannot_be_disabled(build_sharing, tmp_path):
    build_sharing("MaskAttnModel", "gru").save_pretrained(tmp_path, safe_serialization=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json", ".py"}
