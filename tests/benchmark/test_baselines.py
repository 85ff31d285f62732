import os
import sys
from types import SimpleNamespace

import pytest
import torch

from hf_maskattn.benchmark.baselines import (
    END,
    PAD,
    START,
    StepwiseRNNSearch,
    build_keras_classifier,
    build_our_classifier,
    build_transformer_classifier,
)
from hf_maskattn.benchmark.rnnsearch import Shape, build_baseline, build_our_rnnsearch
from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from tests.tolerances import MANY_STEPS

CONFIG = MaskAttnConfig(vocab_size=20, num_labels=3, embedding_size=4, hidden_size=6, classifier_dropout=0.5)
SHAPE = Shape(3, 4, 5, 8)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def test_transformer_has_as_many_parameters():
    num_parameters = build_our_classifier().num_parameters()
    assert num_parameters <= build_transformer_classifier(num_parameters).num_parameters() < 1.1 * num_parameters


def test_missing_keras_and_other_backends_are_reported(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="keras is not installed: pip install keras"):
        build_keras_classifier(CONFIG)
    other = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(ImportError, match="the backend of keras is jax: set KERAS_BACKEND=torch"):
        build_keras_classifier(CONFIG)


def test_keras_ignores_padding(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    model = build_keras_classifier(CONFIG)
    short = model(torch.tensor([[3, 4, 5], [6, 0, 0]]))
    torch.testing.assert_close(short, model(torch.tensor([[3, 4, 5, 0], [6, 0, 0, 0]])))
    assert short.shape == (2, 3)


def test_special_tokens_are_those_of_our_configuration():
    config = build_our_rnnsearch(SHAPE).config
    assert (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id) == (PAD, START, END)


@pytest.mark.parametrize("precompute_keys", [True, False])
def test_stepwise_rnnsearch_equals_ours_with_padding(precompute_keys):
    ours = build_our_rnnsearch(SHAPE).eval()
    source, target = torch.randint(3, 1000, (3, 4)), torch.randint(3, 1000, (3, 5))
    logits = build_baseline(ours, precompute_keys)(source, MASK, target)
    torch.testing.assert_close(logits, ours(source, MASK, target).logits, atol=MANY_STEPS, rtol=0)


def test_greedy_search_ends_like_generate():
    ours = build_our_rnnsearch(SHAPE).eval()
    ours.lm_head.bias.data[END] = 0.45  # as likely as many other tokens
    source, mask = torch.randint(3, 1000, (12, 4), generator=torch.Generator().manual_seed(0)), MASK.repeat(4, 1)
    sequences = build_baseline(ours, precompute_keys=True).greedy_search(source, mask, 9)
    expected = ours.generate(source, attention_mask=mask, max_new_tokens=9)[:, 1:]
    assert (sequences == END)[:, 1:-1].any()
    assert torch.equal(sequences, expected)


@pytest.mark.parametrize("precompute_keys", [True, False])
def test_beam_search_with_all_beams_is_exhaustive(precompute_keys):
    torch.manual_seed(0)
    model = StepwiseRNNSearch(vocab_size=5, embedding_size=4, units=6, precompute_keys=precompute_keys)
    model.vocabulary.bias.data[END] = 0.5
    source, targets = torch.tensor([[3, 4, 3, 4]]), torch.cartesian_prod(*[torch.arange(5)] * 3)  # [125, 3]
    decoder_input_ids = torch.nn.functional.pad(targets, (1, -1), value=START)
    with torch.no_grad():
        scores = model(source.expand(125, -1), MASK[:1].expand(125, -1), decoder_input_ids).log_softmax(dim=-1)
    scores = scores.gather(2, targets[..., None])[..., 0]  # [125, 3]
    is_finished = torch.nn.functional.pad((targets == END).cumsum(dim=1), (1, -1)) > 0
    is_valid = ((targets == PAD) | ~is_finished).all(dim=1)
    totals = scores.masked_fill(is_finished, 0).sum(dim=1).masked_fill(~is_valid, -torch.inf)
    assert torch.equal(model.beam_search(source, MASK[:1], 3, num_beams=60), targets[totals.argmax()][None])
