import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BartConfig, BartModel

from hf_maskattn import MaskAttnConfig, MaskAttnModel
from hf_maskattn.embeddings import pretrained
from hf_maskattn.embeddings.pretrained import PretrainedEmbeddings
from tests.embeddings.toy_source import PIECES, SIZE, build_tokenizer

TOKENS = ["[SEP]", "meow", "##w", "unknown", "paw"]
FOUND = [0, 1, 2, 4]


@pytest.fixture
def changed(source, tmp_path):
    """A copy of the source that a test may damage."""
    return shutil.copytree(source, tmp_path / "changed")


def encode_alone(folder, token):
    """Return the mean of the hidden states of a token between [CLS] and [SEP]."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", token, "[SEP]"])
    with torch.no_grad():
        states = model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states
        return sum(layer[0, 1] for layer in states) / len(states)


def test_input_embeddings_are_rows_of_the_input_matrix(source):
    embeddings = PretrainedEmbeddings(str(source))
    found, vectors = embeddings.load(TOKENS)
    matrix = load_file(source / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert (found, embeddings.size) == (FOUND, SIZE)
    assert torch.equal(vectors, matrix[[PIECES.index(TOKENS[i]) for i in FOUND]])


def test_static_embeddings_are_states_of_tokens_alone(source, monkeypatch):
    monkeypatch.setattr(pretrained, "_BATCH_SIZE", 3)
    found, vectors = PretrainedEmbeddings(str(source), "static").load(TOKENS)
    assert found == FOUND
    expected = torch.stack([encode_alone(source, TOKENS[i]) for i in FOUND])
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)


def test_static_embeddings_are_computed_once(source, cache, monkeypatch):
    first = PretrainedEmbeddings(str(source), "static").load(TOKENS)[1]
    (path,) = cache.rglob("*.*")
    assert path.name == "model.safetensors"
    monkeypatch.setattr(PretrainedEmbeddings, "_compute_static", lambda *args: pytest.fail("computed again"))
    assert torch.equal(PretrainedEmbeddings(str(source), "static").load(TOKENS)[1], first)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged .* Delete it"):
        PretrainedEmbeddings(str(source), "static").load(TOKENS)


def test_cache_depends_on_tokens_and_weights(source, changed, cache):
    PretrainedEmbeddings(str(source), "static").load(TOKENS)
    PretrainedEmbeddings(str(source), "static").load(TOKENS[:2])
    weights = load_file(changed / "model.safetensors")
    save_file({**weights, "pooler.dense.bias": weights["pooler.dense.bias"] + 1}, changed / "model.safetensors")
    PretrainedEmbeddings(str(changed), "static").load(TOKENS)
    assert len([*cache.rglob("*.safetensors")]) == 3


def test_full_disk_is_an_error_before_the_model_is_loaded(source, monkeypatch):
    monkeypatch.setattr("hf_maskattn.data.cache.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    monkeypatch.setattr(PretrainedEmbeddings, "_load_model", lambda self: pytest.fail("loaded"))
    with pytest.raises(OSError, match="The cache of static embeddings needs 0 MiB"):
        PretrainedEmbeddings(str(source), "static").load(TOKENS)


def test_loading_does_not_draw_random_numbers(changed):
    weights = load_file(changed / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "pooler" not in name}, changed / "model.safetensors")
    state = torch.random.get_rng_state()
    for kind in ("input", "static"):
        PretrainedEmbeddings(str(changed), kind).load(TOKENS)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_missing_weights_are_an_error(changed):
    weights = load_file(changed / "model.safetensors")
    del weights["embeddings.word_embeddings.weight"]
    save_file(weights, changed / "model.safetensors")
    with pytest.raises(ValueError, match=r"must be complete, embeddings.word_embeddings.weight is missing."):
        PretrainedEmbeddings(str(changed)).load(TOKENS)


def test_pickled_weights_are_not_loaded(changed):
    (changed / "model.safetensors").rename(changed / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"must have model.safetensors, found none. pytorch_model.bin is not loaded"):
        PretrainedEmbeddings(str(changed))


def test_missing_source_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder and could not be loaded from the Hub"):
        PretrainedEmbeddings(str(tmp_path / "nothing"))


def test_encoder_of_an_encoder_decoder_is_used(tmp_path):
    config = BartConfig(
        **{"vocab_size": len(PIECES), "d_model": SIZE, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 8},
        **{f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("ffn_dim", "attention_heads")},
    )
    model = BartModel(config).eval()
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    _, vectors = PretrainedEmbeddings(str(tmp_path), "static").load(["meow"])
    with torch.no_grad():
        ids = torch.tensor([[3, PIECES.index("meow"), 4]])
        states = model.get_encoder()(ids, output_hidden_states=True).hidden_states
        expected = sum(layer[:, 1] for layer in states) / len(states)
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)


def test_states_of_another_size_than_the_last_are_left_out(tmp_path):
    config = MaskAttnConfig(vocab_size=len(PIECES), embedding_size=4, hidden_size=6, attention_size=4, pad_token_id=0)
    model = MaskAttnModel(config).eval()
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    _, vectors = PretrainedEmbeddings(str(tmp_path), "static").load(["meow"])
    with torch.no_grad():
        states = model(torch.tensor([[3, PIECES.index("meow"), 4]]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(vectors, states[-1][:, 1], atol=1e-6, rtol=0)


def test_tokenizer_of_the_source_needs_no_padding_token(changed):
    tokenizer = AutoTokenizer.from_pretrained(changed)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(changed)
    assert AutoTokenizer.from_pretrained(changed).pad_token is None
    assert PretrainedEmbeddings(str(changed)).load(TOKENS)[0] == FOUND


def test_check_tokens(source):
    embeddings = PretrainedEmbeddings(str(source))
    embeddings.check_tokens(build_tokenizer([*PIECES[:5], "[MASK]", "paw"]))
    message = r"tokenizer must have the tokens of .*, got 2 others: 'cow', 'moo'. Use the tokenizer"
    with pytest.raises(ValueError, match=message):
        embeddings.check_tokens(build_tokenizer([*PIECES, "moo", "cow"]))
