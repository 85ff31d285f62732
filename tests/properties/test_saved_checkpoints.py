"""A saved folder loads by every Auto class, bit for bit, in a process without this package."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

import hf_maskattn
from hf_maskattn.model.configuration_maskattn import AUTO_MAP
from hf_maskattn.model.configuration_rnnsearch import AUTO_MAP as RNNSEARCH_AUTO_MAP
from tests.clean_process import run_without_package
from tests.heads import HEADS, build_head
from tests.tolerances import OUTPUT

LOAD_ALL = """
    import torch, transformers
    inputs = torch.load("inputs.pt", weights_only=True)
    outputs = {}
    for name in ["AutoModel", "AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModelForMaskedLM"]:
        model = getattr(transformers, name).from_pretrained("saved", trust_remote_code=True, dtype="auto").eval()
        assert type(model).__module__.startswith("transformers_modules"), type(model)
        with torch.no_grad():
            outputs[name] = [o for o in model(**inputs, output_attentions=True).to_tuple() if torch.is_tensor(o)]
        model.save_pretrained(f"again/{name}")
        getattr(transformers, name).from_pretrained(f"again/{name}", trust_remote_code=True)
    torch.save(outputs, "outputs.pt")
"""


@pytest.mark.parametrize("head", HEADS)
def test_auto_classes_load_saved_heads_without_package(tmp_path, tiny_config, head):
    changes = {"num_labels": 3} if head != "MaskAttnForTokenClassification" else {"rnn_type": "gru"}
    model = build_head(head, tiny_config, **({} if "num_labels" in HEADS[head] else changes)).eval()
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    inputs = {
        "input_ids": torch.randint(40, (3, 5)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]),
    }
    torch.save(inputs, tmp_path / "inputs.pt")
    run_without_package(LOAD_ALL, tmp_path)
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert outputs.keys() == {name for name in AUTO_MAP if name != "AutoConfig"}
    saved_as = next(name for name, path in AUTO_MAP.items() if path.endswith(f".{head}"))
    base = model if head == "MaskAttnModel" else model.maskattn
    for name, expected in {saved_as: model, "AutoModel": base}.items():
        with torch.no_grad():
            values = [o for o in expected(**inputs, output_attentions=True).to_tuple() if torch.is_tensor(o)]
        for actual, value in zip(outputs[name], values, strict=True):
            assert torch.equal(actual, value), name


LOAD_AND_GENERATE = """
    import torch, transformers
    inputs = torch.load("inputs.pt", weights_only=True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained("saved", trust_remote_code=True).eval()
    base = transformers.AutoModel.from_pretrained("saved", trust_remote_code=True).eval()
    for loaded in (model, base):
        assert type(loaded).__module__.startswith("transformers_modules"), type(loaded)
    sequences = model.generate(**inputs, num_beams=2, max_new_tokens=5)
    with torch.no_grad():
        features = base(**inputs, decoder_input_ids=sequences).last_hidden_state
    model.save_pretrained("again")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained("again", trust_remote_code=True).eval()
    assert torch.equal(again.generate(**inputs, num_beams=2, max_new_tokens=5), sequences)
    torch.save([sequences, features], "outputs.pt")
"""


def test_encoder_decoder_generates_without_package(tmp_path, tiny_rnnsearch_config):
    model = hf_maskattn.RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"] == RNNSEARCH_AUTO_MAP
    inputs = {"input_ids": torch.randint(40, (2, 5)), "attention_mask": torch.tensor([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])}
    torch.save(inputs, tmp_path / "inputs.pt")
    run_without_package(LOAD_AND_GENERATE, tmp_path)
    sequences, features = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert torch.equal(model.generate(**inputs, num_beams=2, max_new_tokens=5), sequences)
    with torch.no_grad():
        assert torch.equal(model.rnnsearch(**inputs, decoder_input_ids=sequences).last_hidden_state, features)


def test_auto_classes_load_encoder_decoder(tmp_path, tiny_rnnsearch_config):
    hf_maskattn.RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchModel
    assert type(AutoModelForSeq2SeqLM.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchForConditionalGeneration


def test_auto_classes_load_encoder(tmp_path, tiny_config):
    build_head("MaskAttnModel", tiny_config).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is hf_maskattn.MaskAttnConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is hf_maskattn.MaskAttnModel


@pytest.mark.parametrize(("saved", "loaded"), [("eager", "ragged"), ("ragged", "eager")])
def test_checkpoint_loads_with_any_implementation(tmp_path, tiny_config, saved, loaded):
    model = build_head("MaskAttnModel", tiny_config, attention_implementation=saved, num_attention_heads=2).eval()
    model.save_pretrained(tmp_path)
    other = hf_maskattn.MaskAttnModel.from_pretrained(tmp_path, attention_implementation=loaded).eval()
    ids, mask = torch.randint(40, (2, 4)), torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]])
    assert other.pooling.attention.implementation == loaded
    torch.testing.assert_close(other(ids, mask).pooler_output, model(ids, mask).pooler_output, atol=OUTPUT, rtol=0)


def test_masked_lm_saves_tied_embeddings_once(tmp_path, tiny_config):
    model = build_head("MaskAttnForMaskedLM", tiny_config)
    model.save_pretrained(tmp_path)
    assert "lm_head.decoder.weight" not in load_file(tmp_path / "model.safetensors")
    again = hf_maskattn.MaskAttnForMaskedLM.from_pretrained(tmp_path)
    assert again.lm_head.decoder.weight is again.maskattn.word_embeddings.weight
    torch.testing.assert_close(again.lm_head.decoder.weight, model.maskattn.word_embeddings.weight, atol=0, rtol=0)
