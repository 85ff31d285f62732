"""A parameter that a checkpoint lacks is initialized, and loaded parameters are not changed."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_maskattn
from tests.heads import HEADS, build_head
from tests.tolerances import MANY_STEPS


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("head", HEADS)
def test_missing_parameter_is_initialized(tmp_path, tiny_config, head, rnn_type):
    check_every_parameter(tmp_path, build_head(head, tiny_config, rnn_type=rnn_type))


@pytest.mark.parametrize("changes", [{"rnn_type": "gru"}, {"rnn_type": "lstm", "share_embeddings": False}], ids=str)
def test_missing_encoder_decoder_parameter_is_initialized(tmp_path, tiny_rnnsearch_config, changes):
    config = tiny_rnnsearch_config(tie_word_embeddings=False, **changes)
    check_every_parameter(tmp_path, hf_maskattn.RNNSearchForConditionalGeneration(config))


def check_every_parameter(tmp_path, model):
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.123)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for missing in weights:
        save_file({k: v for k, v in weights.items() if k != missing}, tmp_path / "model.safetensors", {"format": "pt"})
        loaded = dict(type(model).from_pretrained(tmp_path).named_parameters())
        assert loaded[missing].isfinite().all(), missing
        assert loaded[missing].abs().max() < 10, missing
        assert not (loaded[missing] == 0.123).all(), missing
        if missing == "crf.transitions":  # all transitions are equal at first
            assert not loaded[missing].any()
        else:
            assert loaded[missing].dim() == 1 or loaded[missing].std() > 0.01, missing
        for name, value in weights.items():
            if name != missing:
                assert torch.equal(loaded[name], value), f"{name}, without {missing}"


def test_initial_values(tiny_config):
    model = build_head("MaskAttnModel", tiny_config, hidden_size=64, embedding_size=32)
    rnn = model.recurrence.layers[0].forward_rnn
    for gate in rnn.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(32), atol=MANY_STEPS, rtol=0)
    bound = (6 / (32 + 32)) ** 0.5
    assert 0.9 * bound < rnn.weight_ih_l0.abs().max() <= bound
    total_bias = (rnn.bias_ih_l0 + rnn.bias_hh_l0).chunk(4)
    assert [(bias.min().item(), bias.max().item()) for bias in total_bias] == [(0, 0), (1, 1), (0, 0), (0, 0)]


def test_initial_values_of_encoder_decoder(tiny_rnnsearch_config):
    torch.manual_seed(0)
    model = hf_maskattn.RNNSearchForConditionalGeneration(tiny_rnnsearch_config(vocab_size=500, embedding_size=64)).eval()
    assert 0.9 < model.get_input_embeddings().weight.norm(dim=1).mean() < 1.1
    # With tied embeddings the initial distribution is nearly uniform.
    ids = torch.arange(20)[None]
    scores = model(ids, decoder_input_ids=ids).logits.log_softmax(dim=-1)
    assert scores.exp().max() < 10 / 500
    for gate in model.rnnsearch.decoder.layers[0].rnn.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(10), atol=MANY_STEPS, rtol=0)


@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_initial_masked_lm_logits_have_unit_scale(tiny_config, deviation):
    model = build_head("MaskAttnForMaskedLM", tiny_config, embedding_size=64, initializer_range=deviation)
    assert model.lm_head.norm.weight.tolist() == pytest.approx([0.125 / deviation] * 64)
    assert 0.5 < model(torch.arange(40)[None]).logits.std() < 2


@pytest.mark.parametrize("deviation", [0.1, 0.3])
def test_initializer_range_is_deviation_of_embeddings(tiny_config, tiny_rnnsearch_config, deviation):
    sizes = {"vocab_size": 400, "embedding_size": 32, "initializer_range": deviation}
    encoder = build_head("MaskAttnModel", tiny_config, **sizes)
    pair = hf_maskattn.RNNSearchModel(tiny_rnnsearch_config(share_embeddings=False, source_vocab_size=300, **sizes))
    for embeddings in (encoder.word_embeddings, pair.encoder.word_embeddings, pair.target_embeddings):
        assert embeddings.weight.std().item() == pytest.approx(deviation, rel=0.05)


def test_initial_bias_of_attention_is_zero(tiny_config):
    attention = build_head("MaskAttnModel", tiny_config).pooling.attention
    assert attention.query_projection is None
    assert attention.bias.tolist() == [0.0] * 8


class WithNormalization(hf_maskattn.MaskAttnForSequenceClassification):
    """A head with modules that a user added."""

    def __init__(self, config):
        super().__init__(config)
        self.convolution = torch.nn.Conv1d(8, 8, 1)
        self.normalization = torch.nn.BatchNorm1d(8)
        self.layer_norm = torch.nn.LayerNorm(8)
        self.post_init()


def test_added_modules_are_initialized_by_transformers(tmp_path, tiny_config):
    build_head("MaskAttnForSequenceClassification", tiny_config).save_pretrained(tmp_path, True)
    added = WithNormalization.from_pretrained(tmp_path)
    assert 0 < added.convolution.weight.abs().max() < 1
    assert added.normalization.running_var.tolist() == [1.0] * 8
    assert added.layer_norm.weight.tolist() == [1.0] * 8
