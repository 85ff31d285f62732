"""A saved folder loads by every Auto class, bit for bit, in a process without this package."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

import hf_maskattn
from hf_maskattn.model.configuration_maskattn import AUTO_MAP
from hf_maskattn.model.configuration_rnnsearch import AUTO_MAP as RNNSEARCH_AUTO_MAP
from hf_maskattn.model.modeling_joint import AUTO_MAP as JOINT_AUTO_MAP
from tests.clean_process import run_without_package
from tests.heads import HEADS, build_head, head_class
from tests.tolerances import OUTPUT

FAMILY = {"rnnsearch": RNNSEARCH_AUTO_MAP, "MaskAttnForJointClassification": JOINT_AUTO_MAP}
"""`auto_map` of the models that have another one than the encoder."""

LOAD_WITHOUT_PACKAGE = """
    import torch, transformers, transformers.dynamic_module_utils

    JOINT = "MaskAttnForJointClassification"
    inputs = torch.load("inputs.pt", weights_only=True)
    outputs = {}
    heads = ["SequenceClassification", "TokenClassification", "MaskedLM"]
    auto_classes = ["AutoModel", *(f"AutoModelFor{head}" for head in heads)]
    for head in %r:
        for name in auto_classes:
            model = getattr(transformers, name).from_pretrained(head, trust_remote_code=True, dtype="auto").eval()
            assert type(model).__module__.startswith("transformers_modules"), type(model)
            with torch.no_grad():
                tensors = [value for value in model(**inputs, output_attentions=True).to_tuple() if torch.is_tensor(value)]
            outputs[f"{head} {name}"] = tensors
            model.save_pretrained(f"again/{head}/{name}")
            getattr(transformers, name).from_pretrained(f"again/{head}/{name}", trust_remote_code=True)

    path = transformers.AutoConfig.from_pretrained(JOINT, trust_remote_code=True).auto_map["AutoModelForJointClassification"]
    joint_class = transformers.dynamic_module_utils.get_class_from_dynamic_module(path, JOINT)
    model = joint_class.from_pretrained(JOINT).eval()
    with torch.no_grad():
        outputs["joint"] = [*model(**inputs).to_tuple()]
    model.save_pretrained("again/joint")
    again = transformers.dynamic_module_utils.get_class_from_dynamic_module(path, "again/joint")
    assert torch.equal(again.from_pretrained("again/joint").eval()(**inputs).logits, outputs["joint"][0])

    model = transformers.AutoModelForSeq2SeqLM.from_pretrained("rnnsearch", trust_remote_code=True).eval()
    base = transformers.AutoModel.from_pretrained("rnnsearch", trust_remote_code=True).eval()
    for loaded in (model, base):
        assert type(loaded).__module__.startswith("transformers_modules"), type(loaded)
    sequences = model.generate(**inputs, num_beams=2, max_new_tokens=5)
    with torch.no_grad():
        features = base(**inputs, decoder_input_ids=sequences).last_hidden_state
    model.save_pretrained("again/rnnsearch")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained("again/rnnsearch", trust_remote_code=True).eval()
    assert torch.equal(again.generate(**inputs, num_beams=2, max_new_tokens=5), sequences)
    torch.save({**outputs, "rnnsearch": [sequences, features]}, "outputs.pt")
"""

INPUTS = {
    "input_ids": torch.arange(3, 18).view(3, 5),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]),
}


@pytest.fixture(scope="module")
def models():
    """A model of each head, and an encoder-decoder."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "embedding_size": 6, "hidden_size": 8, "attention_size": 8, "num_labels": 3}
    heads = {}
    for head in HEADS:
        rnn_type = "gru" if head == "MaskAttnForTokenClassification" else "lstm"
        config = hf_maskattn.MaskAttnConfig(**{**sizes, **HEADS[head]}, rnn_type=rnn_type)
        heads[head] = head_class(head)(config).eval()
    del sizes["num_labels"]
    return {**heads, "rnnsearch": hf_maskattn.RNNSearchForConditionalGeneration(hf_maskattn.RNNSearchConfig(**sizes)).eval()}


@pytest.fixture(scope="module")
def outputs(models, tmp_path_factory):
    """The outputs of all saved models in a process without this package."""
    folder = tmp_path_factory.mktemp("saved")
    for name, model in models.items():
        model.save_pretrained(folder / name)
        auto_map = json.loads((folder / name / "config.json").read_text())["auto_map"]
        assert auto_map == FAMILY.get(name, AUTO_MAP)
    torch.save(INPUTS, folder / "inputs.pt")
    run_without_package(LOAD_WITHOUT_PACKAGE % [*HEADS], folder)
    return torch.load(folder / "outputs.pt", weights_only=True)


@pytest.mark.parametrize("head", HEADS)
def test_auto_classes_load_saved_heads_without_package(models, outputs, head):
    model = models[head]
    assert {f"{head} {name}" for name in AUTO_MAP if name != "AutoConfig"} <= outputs.keys()
    expected_models = {name: model for name, path in AUTO_MAP.items() if path.endswith(f".{head}")}
    expected_models["AutoModel"] = model if head == "MaskAttnModel" else model.maskattn
    for name, expected in expected_models.items():
        with torch.no_grad():
            values = [value for value in expected(**INPUTS, output_attentions=True).to_tuple() if torch.is_tensor(value)]
        for actual, value in zip(outputs[f"{head} {name}"], values, strict=True):
            assert torch.equal(actual, value), name


def test_both_heads_load_without_package(models, outputs):
    head = "MaskAttnForJointClassification"
    with torch.no_grad():
        expected = models[head](**INPUTS)
    tags, labels = outputs["joint"]
    assert torch.equal(tags, expected.logits)
    assert torch.equal(labels, expected.sequence_logits)
    assert torch.equal(outputs[f"{head} AutoModelForTokenClassification"][0], tags)
    assert torch.equal(outputs[f"{head} AutoModelForSequenceClassification"][0], labels)


def test_encoder_decoder_generates_without_package(models, outputs):
    model = models["rnnsearch"]
    sequences, features = outputs["rnnsearch"]
    assert torch.equal(model.generate(**INPUTS, num_beams=2, max_new_tokens=5), sequences)
    with torch.no_grad():
        assert torch.equal(model.rnnsearch(**INPUTS, decoder_input_ids=sequences).last_hidden_state, features)


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
