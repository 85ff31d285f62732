"""Law: a saved folder loads by every Auto class, bit for bit, in a process that does not have this package."""

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
def test_every_auto_class_loads_a_saved_head_without_the_package(tmp_path, tiny_config, head):
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
    outside = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert outside.keys() == {name for name in AUTO_MAP if name != "AutoConfig"}
    saved_as = next(name for name, path in AUTO_MAP.items() if path.endswith(f".{head}"))
    base = model if head == "MaskAttnModel" else model.maskattn
    for name, expected in {saved_as: model, "AutoModel": base}.items():
        with torch.no_grad():
            inside = [o for o in expected(**inputs, output_attentions=True).to_tuple() if torch.is_tensor(o)]
        for found, value in zip(outside[name], inside, strict=True):
            assert torch.equal(found, value), name


LOAD_AND_GENERATE = """
    import torch, transformers
    inputs = torch.load("inputs.pt", weights_only=True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained("saved", trust_remote_code=True).eval()
    base = transformers.AutoModel.from_pretrained("saved", trust_remote_code=True).eval()
    for loaded in (model, base):
        assert type(loaded).__module__.startswith("transformers_modules"), type(loaded)
    words = model.generate(**inputs, num_beams=2, max_new_tokens=5)
    with torch.no_grad():
        features = base(**inputs, decoder_input_ids=words).last_hidden_state
    model.save_pretrained("again")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained("again", trust_remote_code=True).eval()
    assert torch.equal(again.generate(**inputs, num_beams=2, max_new_tokens=5), words)
    torch.save([words, features], "outputs.pt")
"""


def test_an_encoder_decoder_generates_the_same_without_the_package(tmp_path, tiny_rnnsearch_config):
    model = hf_maskattn.RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"] == RNNSEARCH_AUTO_MAP
    inputs = {"input_ids": torch.randint(40, (2, 5)), "attention_mask": torch.tensor([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])}
    torch.save(inputs, tmp_path / "inputs.pt")
    run_without_package(LOAD_AND_GENERATE, tmp_path)
    words, features = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert torch.equal(model.generate(**inputs, num_beams=2, max_new_tokens=5), words)
    with torch.no_grad():
        assert torch.equal(model.rnnsearch(**inputs, decoder_input_ids=words).last_hidden_state, features)


def test_auto_classes_know_an_encoder_decoder_by_name(tmp_path, tiny_rnnsearch_config):
    hf_maskattn.RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchModel
    assert type(AutoModelForSeq2SeqLM.from_pretrained(tmp_path)) is hf_maskattn.RNNSearchForConditionalGeneration


def test_auto_classes_know_the_model_by_name(tmp_path, tiny_config):
    build_head("MaskAttnModel", tiny_config).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is hf_maskattn.MaskAttnConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is hf_maskattn.MaskAttnModel


@pytest.mark.parametrize(("written", "read"), [("eager", "ragged"), ("ragged", "eager")])
def test_a_checkpoint_loads_under_any_implementation(tmp_path, tiny_config, written, read):
    model = build_head("MaskAttnModel", tiny_config, attention_implementation=written, num_attention_heads=2).eval()
    model.save_pretrained(tmp_path)
    other = hf_maskattn.MaskAttnModel.from_pretrained(tmp_path, attention_implementation=read).eval()
    ids, mask = torch.randint(40, (2, 4)), torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]])
    assert other.pooling.attention.implementation == read
    torch.testing.assert_close(other(ids, mask).pooler_output, model(ids, mask).pooler_output, atol=OUTPUT, rtol=0)


def test_the_masked_language_model_saves_its_embeddings_once(tmp_path, tiny_config):
    model = build_head("MaskAttnForMaskedLM", tiny_config)
    model.save_pretrained(tmp_path)
    assert "lm_head.decoder.weight" not in load_file(tmp_path / "model.safetensors")
    again = hf_maskattn.MaskAttnForMaskedLM.from_pretrained(tmp_path)
    assert again.lm_head.decoder.weight is again.maskattn.word_embeddings.weight
    torch.testing.assert_close(again.lm_head.decoder.weight, model.maskattn.word_embeddings.weight, atol=0, rtol=0)
