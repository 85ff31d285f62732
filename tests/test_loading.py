import json
import pickle

import pytest
import torch
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
)

from hf_maskattn import (
    MaskAttnForMaskedLM,
    MaskAttnForSequenceClassification,
    MaskAttnModel,
    RNNSearchForConditionalGeneration,
    loading,
)
from hf_maskattn.loading import (
    build_meta_model,
    check_weights_match,
    find_file,
    find_newest_checkpoint,
    has_file,
    list_differing_weights,
    load_config,
    load_verified_model,
    summarize_shapes,
    to_one_line,
    weight_shapes,
)

HEAD = AutoModelForSequenceClassification


@pytest.fixture
def folder(tiny_config, tmp_path):
    MaskAttnForSequenceClassification(tiny_config(num_labels=2)).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder):
    return load_verified_model(HEAD, folder, load_config(folder))


def test_load_verified_model(folder):
    model = load(str(folder))
    assert type(model) is MaskAttnForSequenceClassification
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert type(load_verified_model(AutoModel, folder, load_config(folder))) is MaskAttnModel


def test_load_verified_model_with_tied_weights(tiny_config, tmp_path):
    MaskAttnForMaskedLM(tiny_config()).save_pretrained(tmp_path)
    assert type(load_verified_model(AutoModelForMaskedLM, tmp_path, load_config(tmp_path))) is MaskAttnForMaskedLM


def test_load_verified_model_of_transformers(tmp_path):
    BertModel(
        BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).save_pretrained(tmp_path)
    assert type(load_verified_model(AutoModel, tmp_path, load_config(tmp_path))) is BertModel
    rewrite(tmp_path, hidden_size=16)
    with pytest.raises(ValueError, match=r"The model .* could not be loaded: RuntimeError: "):
        load_verified_model(AutoModel, tmp_path, load_config(tmp_path))
    rewrite(tmp_path, hidden_size=8, num_hidden_layers=10**9)
    message = r"num_hidden_layers .* must match the weights, got 1000000000\. The weights are [\d,]+ parameters in"
    with pytest.raises(ValueError, match=message):
        load_verified_model(AutoModel, tmp_path, load_config(tmp_path))


@pytest.mark.parametrize("key", ["encoder_layers", "decoder_layers"])
def test_load_verified_model_rejects_too_many_layers(tiny_rnnsearch_config, tmp_path, key, monkeypatch):
    RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).save_pretrained(tmp_path)
    # A small number, so that a failure of this test does not take forever.
    monkeypatch.setattr("hf_maskattn.loading._MAX_LAYERS", 1)
    rewrite(tmp_path, **{key: 100})
    message = rf"(num_hidden_layers|{key}) .* must match the weights, got 100\. The weights are [\d,]+ param"
    with pytest.raises(ValueError, match=message):
        load_verified_model(AutoModelForSeq2SeqLM, tmp_path, load_config(tmp_path))


def test_load_config_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The model '.*nowhere' is not a folder and"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json\. Use a folder"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{nope", "Expecting property name"),
        ("\x00", "Expecting value"),
        ("[1]", "it must be a JSON object"),
        ("null", "it must be a JSON object"),
        ("[" * 99999, "RecursionError"),
        ('{"a":' * 99999, "RecursionError"),
    ],
)
def test_load_config_rejects_invalid_file(folder, content, words):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"The config\.json of .*saved is not valid: {words}"):
        load_config(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "8"},
        {"hidden_size": [8]},
        {"hidden_size": True},
        {"rnn_type": "transformer"},
        {"model_type": ["maskattn"]},
        {"model_type": "no such"},
        {"architectures": 5},
        {"architectures": [5]},
        {"id2label": ["a"]},
        {"id2label": {"x": "a"}},
        {"id2label": {"0": "a", "7": "b"}},
        {"num_labels": "many"},
        {"num_labels": 10**12},
        {"dtype": "float99"},
        {"auto_map": 5},
        {"quantization_config": 5},
        {"to_dict": 5, "from_dict": "x"},
    ],
    ids=str,
)
def test_load_config_rejects_invalid_values(folder, changes):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=r"The config\.json of .*saved is not valid: ") as raised:
        load_config(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 10**12}, r"No model can be built from .* \(.*\)\. Its weights are [\d,]+ parameters in 14"),
        ({"vocab_size": 10**15}, r"word_embeddings\.weight is \[40, 6\], expected \[1000000000000000, 6\]\. In total, 6,0"),
        ({"vocab_size": 10**30}, "No model can be built from"),
        ({"hidden_size": 10**5}, r"weight_ih_l0 is \[16, 6\], expected \[200000, 6\]"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers .* must match the weights, got 1000000000\."),
        ({"num_hidden_layers": 3}, r"layers\.1\.forward_rnn\.weight_ih_l0 is missing, expected \[16, 8\]"),
        ({"hidden_size": -8}, "hidden_size must be at least 1, got -8"),
        ({"vocab_size": -1}, "vocab_size must be at least 1, got -1"),
        ({"embedding_size": 0}, "embedding_size must be at least 1, got 0"),
        ({"attention_size": -8}, "attention_size must be at least 1, got -8"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"hidden_dropout_prob": 7.0}, r"hidden_dropout_prob must be in \[0, 1\], got 7"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, r"classifier\.weight is \[2, 8\], expected \[3, 8\]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_load_verified_model_rejects_sizes_before_building(folder, changes, words, monkeypatch):
    rewrite(folder, **changes)
    monkeypatch.setattr(HEAD, "from_pretrained", None)
    with pytest.raises(ValueError, match=words):
        load(folder)


def test_load_verified_model_keeps_unknown_fields(folder):
    rewrite(folder, favorite_color={"of": ["the", "author"]})
    model = load(folder)
    assert model.config.favorite_color == {"of": ["the", "author"]}


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_load_config_ignores_kernels_of_the_hub(folder, field):
    rewrite(folder, **{field: "someone/some-kernel"})
    assert load(folder).config._attn_implementation == "eager"


def test_load_verified_model_names_missing_quantizer(folder):
    rewrite(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ValueError, match=r"The model .* could not be loaded: ImportError: .*bitsandbytes"):
        load(folder)


def test_load_verified_model_rejects_missing_weights(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not match its config\.json: classifier\.weight is missing, expected \[2, 8\]"):
        load(folder)
    assert load_verified_model(HEAD, folder, load_config(folder), new_head=True).classifier.out_features == 2


def test_load_config_accepts_many_labels_of_large_weights(folder, monkeypatch):
    monkeypatch.setattr("hf_maskattn.loading._MAX_LABELS", 1)
    rewrite(folder, num_labels=16)
    assert load_config(folder).num_labels == 16
    rewrite(folder, num_labels=41)
    with pytest.raises(ValueError, match="num_labels must match the weights, got 41"):
        load_config(folder)


def test_load_config_does_not_run_or_ask_about_remote_code(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked"))
    rewrite(folder, model_type="another")
    with pytest.raises(ValueError, match=r"is not valid: .*trust_remote_code"):
        load_config(folder)


def test_check_weights_match_of_base_model(folder):
    config = load_config(folder)
    bare = build_meta_model(MaskAttnForSequenceClassification, config, {}, folder).base_model
    assert bare.device.type == "meta"
    shapes = weight_shapes(folder)
    check_weights_match(bare, shapes, folder)
    check_weights_match(bare, {name.removeprefix("maskattn."): shape for name, shape in shapes.items()}, folder)


def test_list_differing_weights(tiny_config, tmp_path):
    one, wider, deeper = (
        build_meta_model(MaskAttnModel, tiny_config(**changes), {}, tmp_path)
        for changes in ({}, {"embedding_size": 7}, {"num_hidden_layers": 2})
    )
    assert list_differing_weights(one, one) == []
    assert "word_embeddings.weight" in list_differing_weights(one, wider)
    more = list_differing_weights(one, deeper)
    assert more == list_differing_weights(deeper, one)
    assert more
    assert all(name.startswith("recurrence.layers.1.") for name in more)


def test_find_file_and_has_file_of_folder(tmp_path):
    (tmp_path / "there.json").write_text("{}")
    assert find_file(tmp_path, "there.json") == str(tmp_path / "there.json")
    assert has_file(str(tmp_path), "there.json")
    assert find_file(tmp_path, "none.json") is None
    assert not has_file(tmp_path, "none.json")


def test_has_file_raises_if_hub_is_unreachable():
    assert find_file("owner/name", "config.json") is None
    with pytest.raises(OSError, match="We couldn't connect to"):
        has_file("owner/name", "config.json")


@pytest.mark.parametrize("function", [find_file, has_file])
def test_broken_connection_names_file(monkeypatch, function):
    def broken(*arguments, **settings):
        raise httpx.RemoteProtocolError("Server disconnected")

    monkeypatch.setattr(loading, "cached_file", broken)
    with pytest.raises(OSError, match=r"connection to the Hub broke while a\.json of owner/name was requested: Server disconn"):
        function("owner/name", "a.json")


def test_find_newest_checkpoint(tmp_path):
    assert find_newest_checkpoint(tmp_path / "nowhere") is None
    for name in ("checkpoint-90", "checkpoint-810", "checkpoint-9000", "checkpoint-last", "other-99999"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-9000":  # interrupted before its model was written
            (tmp_path / name / "config.json").write_text("{}")
    assert find_newest_checkpoint(tmp_path) == tmp_path / "checkpoint-810"


@pytest.fixture
def weights_folder(tmp_path):
    save_file({"a": torch.zeros(3, 2), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


def test_weight_shapes(weights_folder):
    assert weight_shapes(weights_folder) == {"a": (3, 2), "b": (4,)}
    assert summarize_shapes(weight_shapes(str(weights_folder))) == "10 parameters in 2 tensors, none wider than 4"
    assert summarize_shapes({}) == "0 parameters in 0 tensors, none wider than 0"


def test_weight_shapes_of_shards(weights_folder):
    (weights_folder / "model.safetensors").rename(weights_folder / "model-1.safetensors")
    save_file({"c": torch.zeros(5)}, weights_folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (weights_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_shapes(weights_folder) == {"a": (3, 2), "b": (4,), "c": (5,)}
    (weights_folder / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model-2\.safetensors, which its model\.safetensors\.index\.json names"):
        weight_shapes(weights_folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', "[" * 99999])
def test_weight_shapes_rejects_invalid_index(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json is not a valid index of weights: "):
        weight_shapes(tmp_path)


@pytest.mark.parametrize("fraction", [0, 0.1, 0.7, 0.99])
def test_weight_shapes_rejects_truncated_file(weights_folder, fraction):
    content = (weights_folder / "model.safetensors").read_bytes()
    (weights_folder / "model.safetensors").write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a complete safetensors file: \w"):
        weight_shapes(weights_folder)


@pytest.mark.parametrize("content", [pickle.dumps({}), b"\xff" * 100, (2**60).to_bytes(8, "little") + b"{}", b"PK\x03\x04"])
def test_weight_shapes_rejects_other_file(weights_folder, content):
    (weights_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        weight_shapes(weights_folder)


def test_weight_shapes_does_not_read_pickle(tmp_path):
    with pytest.raises(ValueError, match=r"must have model\.safetensors, found none\. Save the model again with save"):
        weight_shapes(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not loaded, because a pickle can run any code\. Save"):
        weight_shapes(tmp_path)


def test_to_one_line():
    assert to_one_line(ValueError("one\n  two.")) == "one two"
    assert to_one_line(KeyError("name")) == "KeyError: 'name'"
    assert to_one_line(ValueError()) == "ValueError: "


def test_weight_shapes_raises_if_hub_is_unreachable():
    with pytest.raises(OSError, match="We couldn't connect to"):
        weight_shapes("owner/name")
