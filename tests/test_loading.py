import json
import pickle
import shutil

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
)
from hf_maskattn import loading as model_files
from hf_maskattn.loading import (
    check_fit,
    describe,
    find_file,
    has_file,
    in_one_line,
    in_short,
    load_config,
    load_whole_model,
    newest_checkpoint,
    other_shapes,
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
    return load_whole_model(HEAD, folder, load_config(folder))


def test_a_whole_model_is_loaded(folder):
    model = load(str(folder))
    assert type(model) is MaskAttnForSequenceClassification
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert type(load_whole_model(AutoModel, folder, load_config(folder))) is MaskAttnModel


def test_tied_weights_are_not_missed(tiny_config, tmp_path):
    MaskAttnForMaskedLM(tiny_config()).save_pretrained(tmp_path)
    assert type(load_whole_model(AutoModelForMaskedLM, tmp_path, load_config(tmp_path))) is MaskAttnForMaskedLM


def test_models_of_others_are_loaded(tmp_path):
    BertModel(
        BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).save_pretrained(tmp_path)
    assert type(load_whole_model(AutoModel, tmp_path, load_config(tmp_path))) is BertModel
    rewrite(tmp_path, hidden_size=16)
    with pytest.raises(ValueError, match=r"the model .* cannot be loaded: RuntimeError: "):
        load_whole_model(AutoModel, tmp_path, load_config(tmp_path))
    rewrite(tmp_path, hidden_size=8, num_hidden_layers=10**9)
    with pytest.raises(ValueError, match=r"asks for num_hidden_layers=1000000000, its weights are [\d,]+ parameters in"):
        load_whole_model(AutoModel, tmp_path, load_config(tmp_path))


@pytest.mark.parametrize("key", ["encoder_layers", "decoder_layers"])
def test_layers_without_end_are_refused_on_either_side(tiny_rnnsearch_config, tmp_path, key, monkeypatch):
    RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).save_pretrained(tmp_path)
    # Far fewer than would never end: a test that fails is to fail soon.
    monkeypatch.setattr("hf_maskattn.loading._FEW_LAYERS", 1)
    rewrite(tmp_path, **{key: 100})
    with pytest.raises(ValueError, match=rf"asks for (num_hidden_layers|{key})=100, its weights are [\d,]+ parameters in"):
        load_whole_model(AutoModelForSeq2SeqLM, tmp_path, load_config(tmp_path))


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the model '.*nowhere' is neither a folder here nor"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: give a folder"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{nope", "Expecting property name"),
        ("\x00", "Expecting value"),
        ("[1]", "there are no fields in it"),
        ("null", "there are no fields in it"),
        ("[" * 99999, "RecursionError"),
        ('{"a":' * 99999, "RecursionError"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(folder, content, words):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"the config\.json of .*saved cannot be used: {words}"):
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
def test_values_of_a_wrong_kind_are_refused(folder, changes):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=r"the config\.json of .*saved cannot be used: ") as raised:
        load_config(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"hidden_size": 10**12},
            r"describes no model that can be built \(.*\); its weights are [\d,]+ parameters in 15",
        ),
        (
            {"vocab_size": 10**15},
            r"word_embeddings\.weight is \[40, 6\], \[1000000000000000, 6\] is asked for\. In all, 6,0",
        ),
        ({"vocab_size": 10**30}, "describes no model that can be built"),
        ({"hidden_size": 10**5}, r"weight_ih_l0 is \[16, 6\], \[200000, 6\] is asked for"),
        ({"num_hidden_layers": 10**9}, "asks for num_hidden_layers=1000000000, its weights are"),
        ({"num_hidden_layers": 3}, r"layers\.1\.forward_rnn\.weight_ih_l0 is missing, \[16, 8\] is asked for"),
        ({"hidden_size": -8}, "hidden_size must be at least 1, got -8"),
        ({"vocab_size": -1}, "vocab_size must be at least 1, got -1"),
        ({"embedding_size": 0}, "embedding_size must be at least 1, got 0"),
        ({"attention_size": -8}, "attention_size must be at least 1, got -8"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"hidden_dropout_prob": 7.0}, r"hidden_dropout_prob must be in \[0, 1\], got 7"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, r"classifier\.weight is \[2, 8\], \[3, 8\] is asked for"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(folder, changes, words, monkeypatch):
    rewrite(folder, **changes)
    monkeypatch.setattr(HEAD, "from_pretrained", None)
    with pytest.raises(ValueError, match=words):
        load(folder)


def test_fields_that_nobody_knows_do_no_harm(folder):
    rewrite(folder, favorite_color={"of": ["the", "author"]})
    model = load(folder)
    assert model.config.favorite_color == {"of": ["the", "author"]}


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_no_code_that_a_configuration_names_computes_attention(folder, field):
    rewrite(folder, **{field: "someone/some-kernel"})
    assert load(folder).config._attn_implementation == "eager"


def test_a_quantized_model_says_what_it_needs(folder):
    rewrite(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ValueError, match=r"the model .* cannot be loaded: ImportError: .*bitsandbytes"):
        load(folder)


def test_missing_weights_are_refused_but_for_a_new_head(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit its config\.json: classifier\.weight is missing, \[2, 8\] is asked for"):
        load(folder)
    assert load_whole_model(HEAD, folder, load_config(folder), new_head=True).classifier.out_features == 2


def test_more_labels_than_a_few_are_no_mistake_if_the_weights_have_them(folder, monkeypatch):
    monkeypatch.setattr("hf_maskattn.loading._FEW_LABELS", 1)
    rewrite(folder, num_labels=16)
    assert load_config(folder).num_labels == 16
    rewrite(folder, num_labels=41)
    with pytest.raises(ValueError, match="it asks for num_labels=41, its weights are"):
        load_config(folder)


def test_code_beside_the_weights_is_not_asked_about_and_not_run(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked"))
    rewrite(folder, model_type="another")
    with pytest.raises(ValueError, match=r"cannot be used: .*trust_remote_code"):
        load_config(folder)


def test_the_bare_model_fits_weights_with_and_without_a_head(folder, tiny_config, tmp_path):
    config = load_config(folder)
    bare = describe(MaskAttnForSequenceClassification, config, {}, folder).base_model
    assert bare.device.type == "meta"
    shapes = weight_shapes(folder)
    check_fit(bare, shapes, folder)
    check_fit(bare, {name.removeprefix("maskattn."): shape for name, shape in shapes.items()}, folder)


def test_weights_that_two_models_do_not_share_are_listed(tiny_config, tmp_path):
    one, wider, deeper = (
        describe(MaskAttnModel, tiny_config(**changes), {}, tmp_path)
        for changes in ({}, {"embedding_size": 7}, {"num_hidden_layers": 2})
    )
    assert other_shapes(one, one) == []
    assert "word_embeddings.weight" in other_shapes(one, wider)
    more = other_shapes(one, deeper)
    assert more == other_shapes(deeper, one)
    assert more
    assert all(name.startswith("recurrence.layers.1.") for name in more)


def test_a_folder_that_was_moved_is_the_same(folder, tmp_path):
    shutil.move(folder, tmp_path / "moved")
    load(tmp_path / "moved")


def test_files_of_a_folder(tmp_path):
    (tmp_path / "there.json").write_text("{}")
    assert find_file(tmp_path, "there.json") == str(tmp_path / "there.json")
    assert has_file(str(tmp_path), "there.json")
    assert find_file(tmp_path, "none.json") is None
    assert not has_file(tmp_path, "none.json")


def test_what_is_unknown_for_want_of_the_hub_is_not_missing(tmp_path):
    assert find_file("owner/name", "config.json") is None
    with pytest.raises(OSError, match="We couldn't connect to"):
        has_file("owner/name", "config.json")


@pytest.mark.parametrize("function", [find_file, has_file])
def test_a_connection_that_breaks_off_is_named(monkeypatch, function):
    def broken(*arguments, **settings):
        raise httpx.RemoteProtocolError("Server disconnected")

    monkeypatch.setattr(model_files, "cached_file", broken)
    with pytest.raises(OSError, match=r"the Hub broke off when a\.json of owner/name was asked for: Server disconnected"):
        function("owner/name", "a.json")


def test_the_newest_checkpoint_with_a_model_is_found(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for name in ("checkpoint-90", "checkpoint-810", "checkpoint-9000", "checkpoint-last", "other-99999"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-9000":  # cut off before its model was written
            (tmp_path / name / "config.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-810"


@pytest.fixture
def weights_folder(tmp_path):
    save_file({"a": torch.zeros(3, 2), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


def test_shapes_are_read_by_name(weights_folder):
    assert weight_shapes(weights_folder) == {"a": (3, 2), "b": (4,)}
    assert in_short(weight_shapes(str(weights_folder))) == "10 parameters in 2 tensors, none wider than 4"
    assert in_short({}) == "0 parameters in 0 tensors, none wider than 0"


def test_weights_in_several_files_are_read_together(weights_folder):
    (weights_folder / "model.safetensors").rename(weights_folder / "model-1.safetensors")
    save_file({"c": torch.zeros(5)}, weights_folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (weights_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_shapes(weights_folder) == {"a": (3, 2), "b": (4,), "c": (5,)}
    (weights_folder / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model-2\.safetensors, which its model\.safetensors\.index\.json names"):
        weight_shapes(weights_folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', "[" * 99999])
def test_a_broken_index_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json is no index of weights: "):
        weight_shapes(tmp_path)


@pytest.mark.parametrize("share", [0, 0.1, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_refused(weights_folder, share):
    content = (weights_folder / "model.safetensors").read_bytes()
    (weights_folder / "model.safetensors").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors file: \w"):
        weight_shapes(weights_folder)


@pytest.mark.parametrize("content", [pickle.dumps({}), b"\xff" * 100, (2**60).to_bytes(8, "little") + b"{}", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_refused(weights_folder, content):
    (weights_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        weight_shapes(weights_folder)


def test_a_pickle_is_not_read_and_the_way_out_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"has no model\.safetensors\. Have whoever made the model save it with save"):
        weight_shapes(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not read: it may run any code\. Have whoever"):
        weight_shapes(tmp_path)


def test_errors_are_told_in_one_line():
    assert in_one_line(ValueError("one\n  two.")) == "one two"
    assert in_one_line(KeyError("name")) == "KeyError: 'name'"
    assert in_one_line(ValueError()) == "ValueError: "


def test_weights_that_cannot_be_asked_for_are_not_called_missing():
    with pytest.raises(OSError, match="We couldn't connect to"):
        weight_shapes("owner/name")
