import pytest
import torch

from hf_maskattn.benchmark.rnnsearch import Shape, our_rnnsearch, step_by_step
from hf_maskattn.benchmark.rnnsearch_rival import END, PAD, START

SHAPE = Shape(3, 4, 5, 8)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


@pytest.fixture
def models():
    """Our model and a rival with its weights, which both end targets gladly."""
    ours = our_rnnsearch(SHAPE).eval()
    ours.lm_head.bias.data[END] = 1.2
    return ours, step_by_step(ours, keys_once=True)


def test_special_ids_are_those_of_our_model():
    config = our_rnnsearch(SHAPE).config
    assert (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id) == (PAD, START, END)


@pytest.mark.parametrize("keys_once", [True, False])
def test_logits_are_ours_under_pads(keys_once):
    ours = our_rnnsearch(SHAPE).eval()
    source, target = torch.randint(3, 1000, (3, 4)), torch.randint(3, 1000, (3, 5))
    expected = ours(source, MASK, target).logits
    torch.testing.assert_close(step_by_step(ours, keys_once)(source, MASK, target), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_searches_end_where_ours_do(models, beams):
    ours, rival = models
    source = torch.randint(3, 1000, (3, 4))
    found = rival.greedy(source, MASK, 9) if beams == 1 else rival.beam_search(source, MASK, 9, beams)
    expected = ours.generate(source, attention_mask=MASK, max_new_tokens=9, num_beams=beams, length_penalty=0.0)[:, 1:]
    assert (found == END).any()
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert not found[:, expected.shape[1] :].any()
