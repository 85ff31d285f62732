import pytest
import torch

import hf_maskattn
from hf_maskattn import MaskAttnForMaskedLM, MaskAttnModel, RNNSearchForConditionalGeneration
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.embeddings.pretrained import PretrainedEmbeddings
from hf_maskattn.embeddings.reduction import reduce_embeddings
from tests.embeddings.toy_source import PIECES, SIZE, WORDS, build_tokenizer, write_vectors


def rms(tensor):
    return tensor.square().mean().sqrt().item()


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def model(tiny_config):
    return MaskAttnModel(tiny_config(vocab_size=len(PIECES)))


@pytest.mark.parametrize("kind", ["input", "static"])
def test_embeddings_are_reduced_and_scaled(model, tokenizer, source, kind):
    report = hf_maskattn.load_embeddings(model, tokenizer, source, kind=kind)
    rows = model.get_input_embeddings().weight[1:]
    expected, explained = reduce_embeddings(PretrainedEmbeddings(str(source), kind).load(PIECES[1:])[1], 6)
    torch.testing.assert_close(rows, expected / rms(expected), atol=1e-6, rtol=0)
    assert (report.num_tokens, report.num_found, report.coverage, report.source_size) == (18, 18, 1.0, SIZE)
    assert report.explained_variance == explained < 1


def test_padding_and_other_tokens_keep_first_values(model, tokenizer, source):
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer) + 2)
    before = model.get_input_embeddings().weight.detach().clone()
    report = hf_maskattn.load_embeddings(model, tokenizer, source)
    after = model.get_input_embeddings().weight
    assert (report.num_tokens, report.num_found) == (19, 18)
    torch.testing.assert_close(after[[0, -3, -2, -1]], before[[0, -3, -2, -1]] / rms(before))


def test_embeddings_of_the_right_size_are_not_reduced(tiny_config, tokenizer, source):
    model = MaskAttnModel(tiny_config(vocab_size=len(PIECES), embedding_size=SIZE))
    report = hf_maskattn.load_embeddings(model, tokenizer, source)
    expected = PretrainedEmbeddings(str(source)).load(PIECES)[1]
    torch.testing.assert_close(model.get_input_embeddings().weight[1:], expected[1:] / rms(expected[1:]))
    assert str(report) == f"{source} has embeddings of 18 of 18 tokens (100.0%), of size 8."


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"vocab_size": len(PIECES), "embedding_size": 9},
            r"embedding_size must be at most 8, .*, got 9. Set embedding_size=8",
        ),
        ({"vocab_size": 18}, r"vocab_size must be at least 19, the size of the tokenizer, got 18."),
    ],
)
def test_sizes_that_do_not_fit_raise(tiny_config, tokenizer, source, sizes, message):
    with pytest.raises(ValueError, match=message):
        hf_maskattn.load_embeddings(MaskAttnModel(tiny_config(**sizes)), tokenizer, source)


@pytest.mark.parametrize(
    ("model_class", "config"),
    [(MaskAttnForMaskedLM, "tiny_config"), (RNNSearchForConditionalGeneration, "tiny_rnnsearch_config")],
)
def test_tied_weights_stay_tied_and_keep_their_scale(request, model_class, config, tokenizer, source):
    model = model_class(request.getfixturevalue(config)(vocab_size=len(PIECES)))
    before = rms(model.get_input_embeddings().weight)
    hf_maskattn.load_embeddings(model, tokenizer, source)
    assert rms(model.get_input_embeddings().weight[1:]) == pytest.approx(before)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_word_vectors_are_loaded(tiny_config, tmp_path):
    tokenizer = train_tokenizer(WORDS, kind="word", vocab_size=40, max_length=8)
    model = MaskAttnModel(tiny_config(vocab_size=len(tokenizer)))
    vectors = write_vectors(tmp_path / "vectors.txt", ["paw", "moo", "tail"], size=6)[[0, 2]]
    report = hf_maskattn.load_embeddings(model, tokenizer, tmp_path / "vectors.txt")
    rows = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(["paw", "tail"])]
    torch.testing.assert_close(rows, vectors / rms(vectors))
    assert (report.num_tokens, report.num_found) == (len(WORDS) + 2, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("moo 1 0 0 0 0 0\n", r"must have tokens of the tokenizer, got none of its 18 tokens."),
        ("paw 0 0 0 0 0 0\n", r"must be finite and not all 0, got a root mean square of 0.0."),
    ],
)
def test_vectors_without_use_raise(model, tokenizer, tmp_path, line, message):
    (tmp_path / "vectors.txt").write_text(line)
    with pytest.raises(ValueError, match=message):
        hf_maskattn.load_embeddings(model, tokenizer, tmp_path / "vectors.txt")
